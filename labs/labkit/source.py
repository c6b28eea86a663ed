"""The library's own source on a page: never pasted, so it cannot drift from what runs."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from html import escape

from labkit import palette


class Listing:
    """Source of some objects, as a fenced code block."""

    def __init__(self, text: str, where: str):
        self.text = text
        self.where = where

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```\n\n*{self.where}*"

    def __repr__(self):
        return f"{self.text}\n# {self.where}"


def show(*objects, doc: bool = True) -> Listing:
    """The source of functions, classes or methods; `doc=False` leaves their docstrings out."""
    text = "\n\n".join(_source(o, doc) for o in objects)
    return Listing(text, "; ".join(map(_where, objects)))


class SideBySide:
    """Two listings next to each other, one under the other on a phone; what differs is marked."""

    def __init__(self, left, right, doc: bool):
        self.objects = (left, right)
        self.left = _source(left, doc).splitlines()
        self.right = _source(right, doc).splitlines()

    def _repr_html_(self) -> str:
        left = set(range(len(self.left)))
        right = set(range(len(self.right)))
        matcher = difflib.SequenceMatcher(None, self.left, self.right, autojunk=False)
        for i, j, n in matcher.get_matching_blocks():
            left -= set(range(i, i + n))
            right -= set(range(j, j + n))
        first, second = self.objects
        columns = _column(self.left, left, first, beside=second)
        columns += _column(self.right, right, second, beside=first)
        return f'<style>{palette.rules()}{CSS}</style><div class="lk-compare">{columns}</div>'

    def __repr__(self):
        return "\n".join([*self.left, "", *self.right])


def compare(left, right, *, doc: bool = False) -> SideBySide:
    """Two pieces of library source side by side, what differs marked."""
    return SideBySide(left, right, doc)


def _source(obj, doc: bool) -> str:
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(obj))).rstrip()
    if doc:
        return text
    node = ast.parse(text).body[0]
    documented = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    if not documented or ast.get_docstring(node) is None:
        return text
    docstring = node.body[0]
    lines = text.splitlines()
    return "\n".join(lines[: docstring.lineno - 1] + lines[docstring.end_lineno :])


def _where(obj) -> str:
    obj = inspect.unwrap(obj)
    return f"{obj.__module__.replace('.', '/')}.py, line {inspect.getsourcelines(obj)[1]}"


def _column(lines: list[str], marked: set[int], obj, beside) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    code = "\n".join(lines)
    html = highlight(code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).rstrip("\n")
    body = "\n".join(
        f"<mark>{line or ' '}</mark>" if i in marked else line
        for i, line in enumerate(html.split("\n"))
    )
    name = escape(obj.__qualname__)
    # two comparisons of a page may share a side
    label = f"source of {name}, beside {escape(beside.__qualname__)}"
    return (
        f"<figure><figcaption>{name} <small>{escape(_where(obj))}</small></figcaption>"
        f'<pre tabindex="0" role="region" aria-label="{label}"><code>{body}</code></pre>'
        "</figure>"
    )


CSS = """
.lk-compare {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: .75rem;
}
.lk-compare figure { margin: 0; min-width: 0; }
.lk-compare figcaption { color: var(--lk-accent); font-weight: 600; padding: .3rem 0; }
.lk-compare small { color: var(--lk-muted); font-weight: 400; }
.lk-compare pre {
  margin: 0;
  padding: .7rem .8rem;
  overflow-x: auto;
  font-size: .8rem;
  line-height: 1.55;
  border-radius: 8px;
  border: 1px solid var(--lk-line);
  background: var(--lk-panel);
  color: var(--lk-ink);
}
.lk-compare mark {
  display: inline-block;
  min-width: 100%;
  background: var(--lk-wash);
  color: inherit;
  box-shadow: -3px 0 0 var(--lk-accent);
}
.lk-compare :is(.k, .kn, .kc, .ow) { color: var(--lk-accent); font-weight: 600; }
.lk-compare :is(.s1, .s2, .sd, .si) { color: var(--lk-good); }
.lk-compare :is(.c1, .cm) { color: var(--lk-muted); font-style: italic; }
.lk-compare :is(.mi, .mf) { color: var(--lk-bad); }
"""

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
        self.text, self.where = text, where

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```\n\n*{self.where}*"

    def __repr__(self):
        return f"{self.text}\n# {self.where}"


def show(*objects, doc: bool = True) -> Listing:
    """The source of functions, classes or methods; `doc=False` leaves their docstrings out."""
    return Listing(
        "\n\n".join(_source(o, doc) for o in objects), "; ".join(_where(o) for o in objects)
    )


class SideBySide:
    """Two listings next to each other (one under the other on a phone), the lines that differ
    marked.
    """

    def __init__(self, left, right, doc: bool):
        self.sides = [(_source(o, doc).splitlines(), o) for o in (left, right)]

    def _repr_html_(self) -> str:
        a, b = (lines for lines, _ in self.sides)
        own = ({*range(len(a))}, {*range(len(b))})
        for i, j, n in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
            own[0].difference_update(range(i, i + n))
            own[1].difference_update(range(j, j + n))
        columns = "".join(_column(lines, marked, o) for (lines, o), marked in zip(self.sides, own))
        return f'<style>{palette.rules()}{CSS}</style><div class="lk-compare">{columns}</div>'

    def __repr__(self):
        return "\n\n".join("\n".join(lines) for lines, _ in self.sides)


def compare(left, right, *, doc: bool = False) -> SideBySide:
    """Two pieces of library source side by side, what differs marked."""
    return SideBySide(left, right, doc)


def _source(obj, doc: bool) -> str:
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(obj))).rstrip()
    if doc:
        return text
    node = ast.parse(text).body[0]
    first = node.body[0] if isinstance(node, ast.FunctionDef | ast.ClassDef) else node
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        lines = text.splitlines()
        return "\n".join(lines[: first.lineno - 1] + lines[first.end_lineno :])
    return text


def _where(obj) -> str:
    obj = inspect.unwrap(obj)
    return f"{obj.__module__.replace('.', '/')}.py, line {inspect.getsourcelines(obj)[1]}"


def _column(lines: list[str], marked: set[int], obj) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    html = (
        highlight("\n".join(lines), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
        .rstrip("\n")
        .split("\n")
    )
    body = "\n".join(
        f"<mark>{line or ' '}</mark>" if i in marked else line for i, line in enumerate(html)
    )
    name = escape(obj.__name__)
    return (
        f"<figure><figcaption>{name} <small>{escape(_where(obj))}</small></figcaption>"
        '<pre tabindex="0" role="region" aria-label="source of'
        f' {name}"><code>{body}</code></pre></figure>'
    )


CSS = """
.lk-compare { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .75rem; }
.lk-compare figure { margin: 0; min-width: 0; }
.lk-compare figcaption { color: var(--lk-accent); font-weight: 600; padding: .3rem 0; }
.lk-compare small { color: var(--lk-muted); font-weight: 400; }
.lk-compare pre { margin: 0; padding: .7rem .8rem; overflow-x: auto; font-size: .8rem; line-height: 1.55; border-radius: 8px;
  background: var(--lk-panel); color: var(--lk-ink); border: 1px solid var(--lk-line); }
.lk-compare mark { display: inline-block; min-width: 100%; background: var(--lk-wash); color: inherit; box-shadow: -3px 0 0 var(--lk-accent); }
.lk-compare :is(.k, .kn, .kc, .ow) { color: var(--lk-accent); font-weight: 600; }
.lk-compare :is(.s1, .s2, .sd, .si) { color: var(--lk-good); }
.lk-compare :is(.c1, .cm) { color: var(--lk-muted); font-style: italic; }
.lk-compare :is(.mi, .mf) { color: var(--lk-bad); }
"""

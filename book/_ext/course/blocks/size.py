"""`{size-any-model}`: a form that sizes a model on GPUs in the reader's browser, by the formulas of
labkit; inside it one `{size-row} key` for each number, with its title and what it means.
`{size-presets}`: the same numbers of every published model, for one setting, as a table.

The browser runs labkit's own rules, turned into JavaScript (`labkit.formulas.javascript`), on the
same tables of models and GPUs; `size.js` draws what comes out. Both scripts stand behind the form,
so that it is filled before the reader sees it and nothing below it moves.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, fields
from html import escape
from pathlib import Path

from docutils import nodes

from course.block import Block, html, make
from labkit import formulas, hf_sizes, presets, tables
from labkit.config import ModelConfig
from labkit.formulas import javascript
from labkit_labs.common import gpus

SCRIPTS = ("sizes.js", "size.js")
STATIC = Path(__file__).parents[3] / "_static"
START = {"model": "llama3-8b", "gpu": "H100", "gpus": 1, "context": 8192, "users": 16}


def published() -> dict[str, ModelConfig]:
    return {name: c for name, c in presets.items() if not name.startswith("tiny")}


class SizeAnyModel(Block):
    names = ("size-any-model",)

    def to_nodes(self):
        rows = make("div", *self.body(), classes=["sizer-rows"])
        form = [html(knobs()), rows, html(FOOT)]
        attrs = ' autocomplete="off" aria-label="Size a model"'
        box = make("form", *form, classes=["sizer", "boxed", "js-only"], attrs=attrs)
        return [box, size_scripts()]

    @classmethod
    def to_markdown(cls, page, written):
        here = page.book.url(page.docname)
        return f"*On [its page]({here}) this is a form.*\n\n{page.lower(written.content)}"

    @classmethod
    def reads(cls, argument):
        return gpus.TABLE, STATIC / SCRIPTS[1]


class SizeRow(Block):
    """A number of the answer: its title, its value, and folded what it means and how it is made."""

    names = ("size-row",)
    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = True

    def to_nodes(self):
        key, title = keyed(" ".join(self.arguments))
        value = html(f'<output data-size="{key}">–</output>')
        head = make("summary", make("span", nodes.Text(title)), value)
        made = html(f'<div class="sizer-with" data-with="{key}"></div>')
        body = make("div", *self.body(), made, classes=["fold-body"])
        return [make("details", head, body, classes=["sizer-row"])]

    @classmethod
    def to_markdown(cls, page, written):
        return f"**{keyed(written.argument)[1]}.** {page.lower(written.content)}"


class SizePresets(Block):
    names = ("size-presets",)
    has_content = False

    def to_nodes(self):
        return [html(table().html)]

    @classmethod
    def to_markdown(cls, page, written):
        return table().markdown

    @classmethod
    def reads(cls, argument):
        return (gpus.TABLE,)


def keyed(argument: str) -> tuple[str, str]:
    """`ttft_floor Time to the first token` -> key and title."""
    key, _, title = argument.partition(" ")
    if not title.strip():
        raise ValueError(
            f"a row has a key and a title, as `weight_bytes Weights`, not {argument!r}"
        )
    return key, title.strip()


def table() -> tables.Table:
    """Every published model at 8,192 tokens (or all it was made for) in bf16 on one H100."""
    card, rows = gpus.named(START["gpu"]), []
    for name, c in published().items():
        context = min(START["context"], c.max_context)
        made = formulas.sized(
            c, card.ceilings, card.memory_bytes, card.dollars_per_hour, 1, context, 1
        )
        tpot = made["tpot_floor"]
        rows.append(
            {
                "model": name,
                "parameters": formulas.parameters(c) / 1e9,
                "active": formulas.active_parameters(c) / 1e9,
                "weights": formulas.weight_bytes(c) / 1e9,
                "context": context,
                "held": made["cache_held_bytes"] / 1e9,
                "reserved": made["cache_reserved_bytes"] / 1e9,
                "batch": made["largest_batch"],
                "tpot": 1000 * tpot if tpot else None,
            }
        )
    return tables.table(
        rows,
        {
            "model": "model",
            "parameters": "parameters, 10⁹|,.2f",
            "active": "active, 10⁹|,.2f",
            "weights": "weights, GB|,.2f",
            "context": "context",
            "held": "cache held, GB|,.3f",
            "reserved": "reserved, GB|,.3f",
            "batch": "largest batch",
            "tpot": "TPOT alone, ms|,.2f",
        },
    )


# -- the form --------------------------------------------------------------------------------------

FAMILIES = ", ".join(f"<code>{name}</code>" for name in hf_sizes.FAMILIES)
FOOT = """\
<p class="sizer-link"><a href="#">A link to these settings</a>
<button type="button" class="action">Copy the link</button> <span role="status"></span></p>
"""


def knobs() -> str:
    names = {name: name for name in published()}
    dtypes = {name: name for name in formulas.BITS}
    own = {"": "a config.json of your own"}
    return f"""\
<div class="sizer-knobs">
{choice("model", "Model", names | own, START["model"])}
{choice("gpu", "GPU", {name: name for name in gpus.table()["gpus"]}, START["gpu"])}
{number("gpus", "How many GPUs", START["gpus"])}
{choice("dtype", "Weights in", dtypes, "bf16")}
{number("price", "Dollars a GPU-hour", "", step="any", least=0)}
{choice("cache", "Cache in", {"": "as the weights, but 16 bits at least"} | dtypes, "")}
{number("context", "Tokens of context", START["context"], slide=20)}
{number("users", "Users at once", START["users"], slide=12)}
<div class="sizer-own" hidden><label for="size-config">Your <code>config.json</code></label>
<textarea id="size-config" name="config" rows="9" spellcheck="false"
 aria-describedby="size-families"
 placeholder='{{"model_type": "llama", "hidden_size": 4096, …}}'></textarea>
<p id="size-families" class="sizer-hint">Paste all of it. Families that are read: {FAMILIES}.
Nothing leaves this page.</p></div>
</div>
<p class="sizer-error" role="alert"></p>
<p class="sizer-say" role="status"></p>
<div class="sizer-memory"><div class="sizer-bar" aria-hidden="true"></div><ul></ul></div>
"""


def choice(name: str, label: str, options: dict[str, str], chosen: str) -> str:
    listed = "".join(
        f'<option value="{escape(value)}"{" selected" * (value == chosen)}>{escape(shown)}</option>'
        for value, shown in options.items()
    )
    return (
        f'<p><label for="size-{name}">{label}</label>'
        f'<select id="size-{name}" name="{name}">{listed}</select></p>'
    )


def number(
    name: str, label: str, value, step: str = "1", least: int = 1, slide: int | None = None
) -> str:
    """A field; `slide` powers of two can be dragged to as well."""
    slider = (
        f'<input type="range" data-for="{name}" min="0" max="{slide}" step="1"'
        f' aria-label="{label}, by powers of two">'
        if slide
        else ""
    )
    return (
        f'<p><label for="size-{name}">{label}</label><input type="number" inputmode="decimal"'
        f' id="size-{name}" name="{name}" value="{value}" min="{least}" step="{step}">{slider}</p>'
    )


# -- its scripts -----------------------------------------------------------------------------------


class size_scripts(nodes.General, nodes.Element):
    """The form's two scripts, where they stand."""


def visit_scripts(self, node):
    up = "../" * self.builder.current_docname.count("/")
    files = Path(self.builder.outdir) / "_static" / SCRIPTS[0], STATIC / SCRIPTS[1]
    for path in files:
        version = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        self.body.append(f'<script src="{up}_static/{path.name}?v={version}"></script>\n')
    raise nodes.SkipNode


def script() -> str:
    """`formulas`, and `sizing`: the tables they work on."""
    plain = {f.name: f.default for f in fields(ModelConfig) if f.default is not MISSING}
    models = {
        name: {k: v for k, v in asdict(c).items() if k not in plain or v != plain[k]}
        for name, c in published().items()
    }
    cards = {name: asdict(gpus.named(name)) for name in gpus.table()["gpus"]}
    data = {"presets": models, "gpus": cards, "price": gpus.table()["price"]}
    packed = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"{javascript.javascript(hf_sizes)}const sizing = {packed};\n"


def write_script(app):
    if app.builder.format == "html":
        static = Path(app.outdir) / "_static"
        static.mkdir(parents=True, exist_ok=True)
        (static / SCRIPTS[0]).write_text(script(), encoding="utf-8")


def styled(app, pagename, templatename, context, doctree):
    if 'class="sizer ' in (context.get("body") or ""):
        app.add_css_file("size.css")


def setup(app):
    app.add_node(size_scripts, html=(visit_scripts, None))
    app.connect("builder-inited", write_script)
    app.connect("html-page-context", styled, priority=890)

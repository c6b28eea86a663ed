"""A small model that writes on behind the reader's own text, with a cache and without one, side by
side in the page itself.

The page loads the model when it is first asked for; a notebook gets it from its kernel.
"""

from __future__ import annotations

from html import escape

import numpy as np

from labkit.reference import Cache, TinyGPT, softmax
from labkit.widgets import markup
from labkit.widgets.base import Widget, asset
from labkit.widgets.markup import tag
from labkit.widgets.model_file import script, unpack
from labkit.widgets.numbers import significant

TEMPERATURE = 0.7  # of what is drawn, here and in write.js
LOOPS = {"uncached": "no cache", "cached": "KV cache"}
COUNTERS = {
    "forwards": "forwards",
    "keys": "keys computed",
    "reads": "keys read",
    "products": "multiply-adds",
    "ms": "ms a character",
}
# of the sentences that the browser will say: room is kept for it
LONGEST = (
    "Stopped: without a cache it came to 123 characters, with one to 123, and as far as both came"
    " they are different. The last of them took 1234 ms each without a cache and 12 ms with it,"
    " 123 times as long."
)
ASKED = "model"  # what the browser sends to a kernel that has the model


class Writer(Widget):
    """The writer. `model` is what `model_file.pack` made; it stays with Python until a browser
    asks.
    """

    _esm = asset("common.js", "language_model.js", "write.js")

    def __init__(self, model: dict, **traits):
        self.model = model
        super().__init__(**traits)
        self.on_msg(self._answer)

    def _answer(self, widget, content, buffers) -> None:
        if content == ASKED:
            self.send({"model": self.model})


def write(model: dict, *, text: str, title: str, describe: str = "") -> Writer:
    """A writer that begins with `text` and goes on to the end of the model's context.

    ValueError for an empty text, one outside the model's alphabet or one that leaves no room.
    """
    alphabet = model["alphabet"]
    context = model["config"]["max_context"]
    if not text or len(text) >= context or not set(text) <= set(alphabet):
        raise ValueError(
            f"a text to begin with has 1 to {context - 1} characters of {alphabet!r}, not {text!r}"
        )
    twin = unpack(model)
    ids = [alphabet.index(c) for c in text]
    new = context - len(ids)
    written = "".join(alphabet[i] for i in drawn(twin, ids, new))
    work = {loop: count(twin.config, len(ids), new, loop) for loop in LOOPS}
    spec = {
        "text": text,
        "context": context,
        "alphabet": alphabet,
        "file": script(model)[0],
        "counters": list(COUNTERS),
    }
    parts = [
        markup.paragraph(describe, "lk-note"),
        markup.paragraph(f"Shown after {context} characters.", "lk-note lk-shown"),
        tag(
            "div",
            "".join(_stage(words, text, written) for words in LOOPS.values()),
            class_="lk-stages",
        ),
        markup.sentence([[_said(work)], [LONGEST]], 0),
        _meters(work),
    ]
    return Writer(model, still=markup.still("write", title, *parts), spec=spec)


def drawn(model: TinyGPT, prompt: list[int], new: int) -> list[int]:
    """`new` tokens behind a prompt, each drawn by chance, as the browser does it at first: the most
    likely characters of a small model soon go round.
    """
    ids, cache = list(prompt), Cache(model.config.n_layers)
    chance = np.random.default_rng(0)
    for _ in range(new):
        logits = model.forward(ids[cache.length :], cache)[-1]
        shares = softmax(logits / TEMPERATURE)
        ids.append(int(chance.choice(len(shares), p=shares / shares.sum())))
    return ids[len(prompt) :]


def count(config, prompt: int, new: int, loop: str) -> dict[str, int]:
    """What a loop does to write `new` characters behind `prompt` of them: forwards, key vectors
    computed and read, multiply-adds. The browser counts the same while it works.
    """
    c = config
    E, layer_keys = c.head_dim, c.n_layers * c.n_kv_heads
    matrices = c.d_model * ((2 * c.n_heads + 2 * c.n_kv_heads) * E + 3 * c.d_ff)
    work = {"forwards": new, "keys": 0, "reads": 0, "products": new * c.vocab_size * c.d_model}
    for length in range(prompt, prompt + new):
        first = length - 1 if loop == "cached" and length > prompt else 0
        tokens = length - first
        seen = (length * (length + 1) - first * (first + 1)) // 2
        work["keys"] += layer_keys * tokens
        work["reads"] += layer_keys * seen
        work["products"] += c.n_layers * (matrices * tokens + 2 * c.n_heads * E * seen)
    return work


def short(number: float) -> str:
    """A count in at most three digits and k, M or G; the twin of `short` in write.js."""
    if number < 1e4:
        return f"{number:,.0f}"
    digits = significant(number, 3)
    size, prefix = (1e3, "k") if digits < 1e6 else (1e6, "M") if digits < 1e9 else (1e9, "G")
    return f"{digits / size:g} {prefix}"


def _said(work: dict) -> str:
    times = work["uncached"]["products"] / work["cached"]["products"]
    return (
        f"Both write the same characters. Without a cache that takes **{times:.0f} times** the"
        " multiply-adds; your browser says how much longer."
    )


def _stage(words: str, text: str, written: str) -> str:
    body = tag("span", escape(text)) + tag("b", escape(written))
    return tag(
        "div",
        tag("p", tag("b", words), class_="lk-caption") + tag("p", body, class_="lk-written"),
        class_="lk-stage",
    )


def _meters(work: dict) -> str:
    """A row for each counter, a bar for each loop."""

    def cell(name: str, loop: str) -> str:
        full = max(numbers.get(name, 0) for numbers in work.values())
        number = work[loop].get(name)
        words = tag("span", "–" if number is None else short(number))
        bar = tag("i", style=f"--share: {(number or 0) / (full or 1):.4g}")
        return tag("td", tag("div", words + bar, data_counter=name, data_loop=loop))

    rows = [
        tag("tr", tag("th", label, scope="row") + "".join(cell(name, loop) for loop in LOOPS))
        for name, label in COUNTERS.items()
    ]
    head = "".join(tag("th", words, scope="col") for words in LOOPS.values())
    return tag(
        "table",
        tag("thead", tag("tr", tag("td") + head)) + tag("tbody", "".join(rows)),
        class_="lk-meters",
    )

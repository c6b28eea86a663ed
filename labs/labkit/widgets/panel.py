"""The real model under the reader's hands, in Colab and Jupyter.

A page shows what it measured here, and says so.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from html import escape

import ipywidgets as w

from labkit.results import receipt
from labkit.widgets import markup
from labkit.widgets.numbers import as_text

HEAD = ["run", "time to first token", "time per token", "tokens/s"]
CELL = "text-align: left; padding-right: 1.5em"
CACHES = {"static": "KV cache", "none": "no cache"}
NOTE = (
    "This panel runs the model on your machine, so it is alive in Colab and Jupyter only. Open this"
    " chapter there to choose cache, batch, precision and length."
)


class Panel(w.VBox):
    """Controls, a Run button, the generated text and a table of runs.

    `runs` holds what was measured, newest last. `still` is what a page shows in the panel's place.
    """

    def __init__(self, load: Callable, prompt: str, stored: dict[str, str]):
        self._load = load
        self._models = {}  # the one that was run last, by its precision
        self._stored = {label: receipt(expression) for label, expression in stored.items()}
        self.runs = []
        ours = self._ours() if self._stored else ""
        note = markup.paragraph(NOTE, "lk-note")
        self.still = markup.still("panel", "Run the real model", note, ours)

        named = {"style": {"description_width": "7em"}}
        wide = w.Layout(width="44em", max_width="100%")
        narrow = {"layout": w.Layout(width="22em"), **named}
        caches = [(words, kind) for kind, words in CACHES.items()]
        self.prompt = w.Textarea(prompt, description="prompt", layout=wide, **named)
        self.cache = w.Dropdown(description="cache", options=caches, **narrow)
        self.precision = w.Dropdown(
            description="precision", options=["fp32", "bf16", "int8"], **narrow
        )
        self.batch = w.IntSlider(1, description="batch size", min=1, max=8, **narrow)
        self.new = w.IntSlider(24, description="new tokens", min=4, max=128, **narrow)
        self.button = w.Button(description="Run", button_style="primary", icon="play")
        self.status = w.HTML()
        self.reply = w.HTML()
        self.table = w.HTML(self._table())
        self.button.on_click(self._click)
        pairs = [
            [self.cache, self.precision],
            [self.batch, self.new],
            [self.button, self.status],
        ]
        rows = [w.HBox(pair, layout=w.Layout(flex_flow="row wrap")) for pair in pairs]
        children = [self.prompt, *rows, self.reply, self.table]
        super().__init__(children, layout=w.Layout(width="100%"))

    def run(self) -> dict:
        """Generate once with the settings shown, and return what was measured (seconds, tokens per
        second).
        """
        from labkit import bench, decode

        dtype, batch, new = self.precision.value, self.batch.value, self.new.value
        if dtype not in self._models:
            # one at a time: two would not fit a small machine
            self._models = {dtype: self._load(dtype)}
        model, tokenizer = self._models[dtype]
        ids = getattr(tokenizer, "chat", tokenizer.encode)(self.prompt.value)
        decode.check_prompt(model.config, ids, new)
        bench.time_decode(model, [ids], 2, self.cache.value)  # nothing is timed cold
        times = bench.time_decode(model, [ids] * batch, new, self.cache.value)
        label = f"{CACHES[self.cache.value]}, {dtype}, batch {batch}, {len(ids)} + {new} tokens"
        self.runs.append(
            {
                "run": label,
                "first": times.first,
                "each": statistics.median(times.each),
                "tokens_per_second": batch * new / (times.first + sum(times.each)),
                "text": tokenizer.decode(times.tokens[0]),
            }
        )
        return self.runs[-1]

    def _click(self, _):
        self.button.disabled = True
        self.status.value = "running the model on this machine…"
        try:
            text = escape(self.run()["text"])
            self.reply.value = f'<blockquote style="white-space: pre-wrap">{text}</blockquote>'
            self.status.value = ""
            self.table.value = self._table()
        except (ValueError, OSError, RuntimeError) as e:
            # a bad prompt, no model, no memory: one sentence, and the panel lives on
            self.status.value = f"<b>{escape(str(e))}</b>"
        finally:
            self.button.disabled = False

    def _table(self) -> str:
        """The reader's runs, then ours. It stands outside of any card, so it brings its style."""
        table = markup.table(HEAD, [_row(run) for run in self.runs])
        yours = "<p><b>Yours</b></p>" + re.sub(r"<(t[hd])\b", rf'<\1 style="{CELL}"', table)
        ours = "<p><b>Ours</b></p>" + self._ours() if self._stored else ""
        return (yours if self.runs else "") + ours

    def _ours(self) -> str:
        lines = "".join(
            f"<li>{escape(label)}: <b>{escape(r.text)}</b></li>"
            for label, r in self._stored.items()
        )
        # one sentence for each origin, however many of the numbers share it
        origins = dict.fromkeys(line for r in self._stored.values() for line in r.measured)
        return f"<ul>{lines}</ul>" + markup.paragraph(" ".join(origins), "lk-source")

    def _repr_mimebundle_(self, **kwargs):
        # ipywidgets 7 shows itself in another way
        shown = getattr(super(), "_repr_mimebundle_", lambda **kwargs: {})(**kwargs)
        return shown | {"text/html": self.still}


def _row(run: dict) -> list[str]:
    return [
        run["run"],
        as_text(run["first"], "seconds"),
        as_text(run["each"], "seconds"),
        as_text(run["tokens_per_second"]),
    ]


def panel(
    load: Callable | None = None,
    *,
    prompt: str = "Explain what a cache is.",
    stored: dict[str, str] | None = None,
) -> Panel:
    """A live panel.

    `load(precision)` returns (model, tokenizer), by default SmolLM2, whose weights have 8 bits and
    activations 32 under "int8"; nothing is loaded before the first run.

    stored: what to show beside the reader's runs, `{"tokens/s, cached": 'row("…",
    variant="cached")["tokens_per_second"]'}`, each a receipt expression. Raises ValueError for an
    expression that cannot be evaluated.
    """

    def smollm2(precision):
        from labkit import quant, weights

        if precision != "int8":
            return weights.smollm2(precision)
        model, tokenizer = weights.smollm2("fp32")
        return quant.quantize(model, "int8"), tokenizer

    return Panel(load or smollm2, prompt, stored or {})

"""The real model under the reader's hands, in Colab and Jupyter.

A page shows what it measured here, and says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from html import escape

import ipywidgets as w

from labkit.results import receipt
from labkit.widgets.base import paragraph, still, text

HEAD = ["run", "time to first token", "time per token", "tokens/s"]


class Panel(w.VBox):
    """Controls, a Run button, the generated text and a table of runs.

    `runs` holds what was measured, newest last.
    """

    def __init__(self, load: Callable, prompt: str, stored: dict[str, str]):
        self._load, self._models, self.runs = load, {}, []
        self._stored = {label: receipt(expression) for label, expression in stored.items()}
        knob = lambda kind, label, **given: kind(
            description=label,
            style={"description_width": "7em"},
            layout=w.Layout(width="22em"),
            **given,
        )
        self.prompt = w.Textarea(
            prompt,
            description="prompt",
            style={"description_width": "7em"},
            layout=w.Layout(width="44em", max_width="100%"),
        )
        self.cache = knob(
            w.Dropdown, "cache", options=[("KV cache", "static"), ("no cache", "none")]
        )
        self.precision = knob(w.Dropdown, "precision", options=["fp32", "bf16"])
        self.batch = knob(w.IntSlider, "batch size", value=1, min=1, max=8)
        self.new = knob(w.IntSlider, "new tokens", value=24, min=4, max=128)
        self.button = w.Button(description="Run", button_style="primary", icon="play")
        self.status, self.reply, self.table = w.HTML(), w.HTML(), w.HTML(self._table())
        self.button.on_click(self._click)
        rows = [
            w.HBox(row, layout=w.Layout(flex_flow="row wrap"))
            for row in (
                [self.cache, self.precision],
                [self.batch, self.new],
                [self.button, self.status],
            )
        ]
        super().__init__(
            [self.prompt, *rows, self.reply, self.table], layout=w.Layout(width="100%")
        )

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
        label = (
            f"{dict(static='KV cache', none='no cache')[self.cache.value]}, {dtype}, batch {batch},"
            f" {len(ids)} + {new} tokens"
        )
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
            self.reply.value = (
                '<blockquote style="white-space:'
                f' pre-wrap">{escape(self.run()["text"])}</blockquote>'
            )
            self.status.value = ""
            self.table.value = self._table()
        except (ValueError, OSError, RuntimeError) as e:
            # a bad prompt, no model, no memory: one sentence, and the panel lives on
            self.status.value = f"<b>{escape(str(e))}</b>"
        finally:
            self.button.disabled = False

    def _table(self) -> str:
        rows = [
            [
                r["run"],
                text(r["first"], "seconds"),
                text(r["each"], "seconds"),
                text(r["tokens_per_second"]),
            ]
            for r in self.runs
        ]
        cell = '<{0} style="text-align: left; padding-right: 1.5em">{1}</{0}>'
        line = lambda cells, tag: f"<tr>{''.join(cell.format(tag, escape(c)) for c in cells)}</tr>"
        yours = (
            f"<p><b>Yours</b></p><table>{line(HEAD, 'th')}{''.join(line(r, 'td') for r in rows)}</table>"
            if rows
            else ""
        )
        return yours + ("<p><b>Ours</b></p>" + self._ours() if self._stored else "")

    def _ours(self) -> str:
        lines = "".join(
            f"<li>{escape(label)}: <b>{escape(r.text)}</b></li>"
            for label, r in self._stored.items()
        )
        # one sentence for each origin, however many of the numbers share it
        origins = dict.fromkeys(line for r in self._stored.values() for line in r.measured)
        return f"<ul>{lines}</ul>" + paragraph(" ".join(origins), "lk-source")

    def fallback(self) -> str:
        """What a page shows in the panel's place."""
        note = (
            "This panel runs the model on your machine, so it is alive in Colab and Jupyter only."
            " Open this chapter there to choose cache, batch, precision and length."
        )
        return still(
            "panel",
            "Run the real model",
            paragraph(note, "lk-note"),
            self._ours() if self._stored else "",
        )

    def _repr_mimebundle_(self, **kwargs):
        # ipywidgets 7 shows itself in another way
        shown = getattr(super(), "_repr_mimebundle_", lambda **kwargs: {})(**kwargs)
        return shown | {"text/html": self.fallback()}


def panel(
    load: Callable | None = None,
    *,
    prompt: str = "Explain what a cache is.",
    stored: dict[str, str] | None = None,
) -> Panel:
    """A live panel.

    `load(dtype)` returns (model, tokenizer), by default SmolLM2; nothing is loaded before the first
    run.

    stored: what to show beside the reader's runs, `{"tokens/s, cached": 'row("…",
    variant="cached")["tokens_per_second"]'}`, each a receipt expression. Raises ValueError for an
    expression that cannot be evaluated.
    """

    def smollm2(dtype):
        from labkit import weights

        return weights.smollm2(dtype)

    return Panel(load or smollm2, prompt, stored or {})

"""Step through a recorded Trace, or through two side by side.

Each kind of trace has one function below. It turns the steps into a scene: boxes that belong to
steps, what is counted, and a sentence for each step. Page, fallback and tests all draw that scene,
so it is laid out once, here.
"""

from __future__ import annotations

from html import escape
from itertools import accumulate

import traitlets

from labkit.trace import Trace
from labkit.widgets.base import (
    Card,
    numbers,
    paragraph,
    rounded,
    significant,
    source,
    still,
    text,
    weigh,
)

CACHES = {"none": "No cache", "static": "KV cache", "paged": "Paged KV cache"}


class Player(Card):
    """The player. `step` is where the reader is, from 0; with a kernel it can be read and set."""

    _esm = source("common.js", "play.js")
    step = traitlets.Int(0).tag(sync=True)

    def fallback(self) -> str:
        spec, stages, last = self.spec, self.spec["stages"], len(self.spec["says"]) - 1
        pictures = [
            "<div"
            f' class="lk-stage">{paragraph("**" + s["label"] + "** " + s["axes"], "lk-caption")}{drawing(s, last)}</div>'
            for s in stages
        ]
        swatch = lambda kind, tense, words: (
            f'<span><i class="lk-k-{kind}" data-t="{tense}"></i>{escape(words)}</span>'
        )
        legend = "".join(swatch(*entry) for entry in spec["legend"])
        columns = [
            (f"{s['label']}: {label}" if len(stages) > 1 else label, values)
            for s in stages
            for label, values, _ in s["meters"]
        ]
        rows = [
            [str(k + 1), *(text(values[min(k, len(values) - 1)]) for _, values in columns)]
            for k in range(last + 1)
        ]
        note = paragraph(spec["describe"], "lk-note") + paragraph(
            f"Shown after the last of {last + 1} steps.", "lk-note"
        )
        return still(
            "play",
            spec["title"],
            note,
            f'<div class="lk-stages">{"".join(pictures)}</div><p class="lk-legend">{legend}</p>',
            *(paragraph(part, "lk-say") for part in spec["says"][-1]),
            numbers(["step", *(label for label, _ in columns)], rows),
        )


def play(
    trace: Trace,
    *,
    compare: Trace | None = None,
    title: str = "",
    describe: str = "",
    labels: list[str] | None = None,
    max_bytes: int = 300_000,
) -> Player:
    """A player for one trace, or two of the same kind in step. labels: what to call the sides.

    Raises ValueError for a kind that has no view, traces of two kinds, an empty trace, or one too
    heavy for a page.
    """
    traces = [trace] if compare is None else [trace, compare]
    for t in traces:
        if t.kind not in VIEWS:
            raise ValueError(
                f"there is no player for {t.kind!r} traces yet: {', '.join(VIEWS)} can be played"
            )
        if t.kind != trace.kind:
            raise ValueError(
                f"only traces of one kind can be compared, not {trace.kind!r} and {t.kind!r}"
            )
        if not t.steps:
            raise ValueError(f"the {t.kind} trace has no steps to play")
    if labels and len(labels) != len(traces):
        raise ValueError(f"{len(traces)} traces need {len(traces)} labels, not {len(labels)}")
    scenes = [VIEWS[t.kind](t) for t in traces]
    for scene, label in zip(scenes, labels or []):
        scene["label"] = label
    for meters in zip(*(s["meters"] for s in scenes)):  # a counter's bars are drawn to one scale
        full = max(m[2] for m in meters)
        for m in meters:
            m[2] = full
    lead = lambda s: f"**{s['label']}** " if compare or s["named"] else ""
    steps = range(max(len(t.steps) for t in traces))
    says = [
        [lead(s) + (s["says"][k] if k < len(s["says"]) else "has finished.") for s in scenes]
        for k in steps
    ]
    shared = {
        "title": title or f"{trace.kind.capitalize()}, step by step",
        "describe": describe,
        "says": says,
        "text": scenes[0]["text"],
        "legend": scenes[0]["legend"],
    }
    spec = shared | {"stages": [{k: v for k, v in s.items() if k not in shared} for s in scenes]}
    weigh(f"{spec['title']!r}: {len(says):,} steps", spec, max_bytes, "record a shorter run")
    return Player(spec=spec)


def decode_scene(trace: Trace) -> dict:
    """A row for each forward, a column for each token's key: what is computed now, what is read
    back, and the running totals.
    """
    boxes = []
    says = []
    prompt = trace.meta["prompt"]
    columns = len(trace.meta["prompt"]) + len(trace.steps) - 1
    counts = {
        "computed": [s.computed for s in trace.steps],
        "read back": [],
        "stored": [s.written for s in trace.steps],
    }
    for k, s in enumerate(trace.steps):
        # back: keys that earlier forwards stored
        end, back = len(prompt) + k, max(s.read - s.computed, 0)
        counts["read back"].append(back)
        boxes.append([k, "computed", end - s.computed, k, s.computed, 1])
        if back:
            boxes.append([k, "read", end - s.computed - back, k, back, 1])
        fed = f"{len(s.fed)} tokens" if len(s.fed) > 1 else f"one token, “{visible(s.fed[0])}”"
        keys = "key" if s.computed == 1 else "keys"
        says.append(
            f"is fed {fed}: computes **{s.computed}** {keys}, reads **{back}** back, stores"
            f" {s.written}. Next: “{visible(s.token)}”."
        )
    totals = {verb: list(accumulate(values)) for verb, values in counts.items()}
    most = max(values[-1] for values in totals.values())
    return {
        "label": CACHES.get(trace.meta.get("cache", ""), "The loop"),
        "named": True,
        "axes": "one key per token across, one forward per row",
        "cols": columns,
        "rows": len(trace.steps),
        "cells": columns <= 48,
        "mask": False,
        "boxes": boxes,
        "says": says,
        "meters": [[f"keys {verb} so far", values, most] for verb, values in totals.items()],
        "text": (
            [[visible(t), -1] for t in prompt]
            + [[visible(s.token), k] for k, s in enumerate(trace.steps)]
        ),
        "legend": [
            ["computed", "now", "computed now"],
            ["read", "now", "read back now"],
            ["computed", "past", "computed by an earlier forward"],
        ],
    }


def attention_scene(trace: Trace) -> dict:
    """The square of queries and keys in tiles: visited or skipped, the running maximum and sum, and
    what is held on chip.
    """
    keys = max(s.key_tile[1] for s in trace.steps)
    queries = max(s.query_tile[1] for s in trace.steps)
    loaded, tiles, says, readings, kept, begun = [], [], [], [], [], set()
    for k, s in enumerate(trace.steps):
        (q0, q1), (k0, k1) = s.query_tile, s.key_tile
        # counted from 1, as people and the clip do
        queries_now, keys_now = f"{q0 + 1}–{q1}", f"{k0 + 1}–{k1}"
        tiles.append([k, "skipped" if s.skipped else "tile", k0, q0, k1 - k0, q1 - q0])
        factor = None if s.skipped or q0 not in begun else significant(s.change, 2)
        if s.skipped:
            says.append(
                f"Keys {keys_now} lie in the future of queries {queries_now}: the tile is"
                " **skipped**, nothing is loaded."
            )
        else:
            loaded += [[k, "loaded", 0, q0, keys, q1 - q0], [k, "loaded", k0, 0, k1 - k0, queries]]
            rescale = (
                "These are their first keys: there is nothing to rescale."
                if factor is None
                else (
                    "No score is larger than before: nothing is rescaled."
                    if factor >= 1
                    else (
                        "A larger score turned up, so earlier sums are multiplied by as little as"
                        f" **{factor:g}**."
                    )
                )
            )
            says.append(f"Queries {queries_now} meet keys {keys_now}. {rescale}")
            begun.add(q0)
        kept.append(factor)
        readings.append(
            [
                [str(q0 + i + 1), rounded(m), rounded(t)]
                for i, (m, t) in enumerate(zip(s.top, s.total))
            ]
        )
    count = lambda skipped: list(accumulate(int(s.skipped == skipped) for s in trace.steps))
    held = [0 if kind == "skipped" else w * n for _, kind, _, _, w, n in tiles]
    square = queries * keys
    return {
        "label": "Attention, tile by tile",
        "named": False,
        "axes": "keys across, queries down",
        "cols": keys,
        "rows": queries,
        "cells": False,
        "mask": keys == queries and any(s.skipped for s in trace.steps),
        "boxes": loaded + tiles,
        "says": says,
        "meters": [
            ["tiles computed", count(False), len(tiles)],
            ["tiles skipped", count(True), len(tiles)],
            ["earlier sums are multiplied by", kept, 1],
            ["scores held on chip", held, square],
            ["scores in the whole square", [square] * len(tiles), square],
        ],
        "head": ["query", "running max", "running sum"],
        "readings": readings,
        "text": [],
        "legend": [
            ["tile", "now", "this tile"],
            ["loaded", "now", "its queries and keys"],
            ["tile", "past", "done"],
            ["skipped", "past", "skipped"],
        ],
    }


VIEWS = {"decode": decode_scene, "attention": attention_scene}


def drawing(stage: dict, now: int) -> str:
    """A stage as SVG at one step; `play.js` draws the same boxes."""
    tense = lambda k: "past" if k < now else "now" if k == now else "future"
    group = lambda k, kind, x, y, w, n: (
        f'<g class="lk-k-{kind}"'
        f' data-t="{tense(k)}">{"".join(rects(x, y, w, n, stage["cells"]))}</g>'
    )
    groups = "".join(group(*box) for box in stage["boxes"])
    mask = f'<path d="M0 0H{stage["cols"]}V{stage["rows"]}z"/>' if stage["mask"] else ""
    return (
        f'<svg class="lk-scene" style="--ratio: {stage["cols"] / stage["rows"]:.4g}" viewBox="0 0'
        f' {stage["cols"]} {stage["rows"]}" role="img" aria-label="{escape(stage["label"])}:'
        f' {stage["axes"]}">{groups}{mask}</svg>'
    )


def rects(x: int, y: int, w: int, n: int, cells: bool) -> list[str]:
    """One box, or a square for each of its cells, with a little air round it."""
    each = [(x + i, y + j, 1, 1) for j in range(n) for i in range(w)] if cells else [(x, y, w, n)]
    air = 0.08 if cells else 0.03 * min(w, n)
    return [
        f'<rect x="{x + air:g}" y="{y + air:g}" width="{w - 2 * air:g}" height="{n - 2 * air:g}"/>'
        for x, y, w, n in each
    ]


def visible(token: str) -> str:
    """A token's text without its spaces, or a sign for one that is nothing else."""
    return token.strip(" ").replace("\n", "⏎").replace("\t", "⇥") or "␣"

"""Step through a recorded Trace, or through two side by side.

What a trace looks like is laid out by the view of its kind (`views/`); here it gets its transport,
counters and sentences. The browser moves the picture that Python drew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape

import traitlets

from labkit.traces import Trace
from labkit.widgets import markup, views
from labkit.widgets.base import Widget, asset, weigh
from labkit.widgets.markup import tag
from labkit.widgets.numbers import as_text
from labkit.widgets.scene import Meter, Scene, levels, picture, tense


class Player(Widget):
    """The player. `step` is where the reader is, from 0; with a kernel it can be read and set.

    `scenes`: what it shows. `says`: for each step, a sentence for each scene.
    """

    _esm = asset("common.js", "play.js")
    step = traitlets.Int(0).tag(sync=True)

    def __init__(self, scenes: list[Scene], says: list[list[str]], **traits):
        self.scenes = scenes
        self.says = says
        super().__init__(**traits)


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
    scenes = _scenes(traces, labels)
    title = title or f"{trace.kind.capitalize()}, step by step"
    steps = max(len(scene.says) for scene in scenes)
    says = [[_said(scene, k, len(scenes) > 1) for scene in scenes] for k in range(steps)]
    columns = [_column(meter, steps) for scene in scenes for meter in scene.meters]
    spec = {
        "says": [[markup.bold(part) for part in parts] for parts in says],
        "shares": [column.shares for column in columns],
        "readings": [_padded(_readings(s), steps) for s in scenes if s.readings],
        "levels": [_padded(sides, steps) for sides in levels(scenes)],
    }
    still = _still(title, describe, scenes, says, columns)
    weigh(f"{title!r}: {steps:,} steps", [still, spec], max_bytes, "record a shorter run")
    return Player(scenes, says, still=still, spec=spec)


@dataclass(frozen=True)
class Column:
    """A meter step by step: as text, and as the share of its bar that is full."""

    texts: list[str]
    shares: list[float]


def _column(meter: Meter, steps: int) -> Column:
    """A meter keeps its last value when its scene has finished."""
    values = _padded(meter.values, steps)
    full = meter.full or 1
    return Column([as_text(v) for v in values], [round((v or 0) / full, 3) for v in values])


def _scenes(traces: list[Trace], labels: list[str] | None) -> list[Scene]:
    """The traces as scenes, labelled, a meter's bars drawn to one scale."""
    for trace in traces:
        if trace.kind != traces[0].kind:
            raise ValueError(
                "only traces of one kind can be compared, not"
                f" {traces[0].kind!r} and {trace.kind!r}"
            )
        if not trace.steps:
            raise ValueError(f"the {trace.kind} trace has no steps to play")
    if labels and len(labels) != len(traces):
        raise ValueError(f"{len(traces)} traces need {len(traces)} labels, not {len(labels)}")
    scenes = [views.scene(trace) for trace in traces]
    full = [max(meter.full for meter in meters) for meters in zip(*(s.meters for s in scenes))]
    return [
        replace(
            scene,
            label=labels[i] if labels else scene.label,
            meters=[replace(meter, full=most) for meter, most in zip(scene.meters, full)],
        )
        for i, scene in enumerate(scenes)
    ]


def _said(scene: Scene, k: int, compared: bool) -> str:
    lead = f"**{scene.label}** " if compared or scene.named else ""
    return lead + (scene.says[k] if k < len(scene.says) else "has finished.")


def _padded(values: list, length: int) -> list:
    return values + values[-1:] * (length - len(values))


def _readings(scene: Scene) -> list[list[list[str]]]:
    """Tables of equally many rows, so that one can take the place of another."""
    most = max(len(rows) for rows in scene.readings)
    empty = ["–"] + [""] * (len(scene.head) - 1)  # a row's header is never empty
    return [rows + [empty] * (most - len(rows)) for rows in scene.readings]


def _still(
    title: str, describe: str, scenes: list[Scene], says: list[list[str]], columns: list[Column]
) -> str:
    """The card after its last step."""
    last = len(says) - 1
    alone = len(scenes) == 1
    heads = [
        meter.label if alone else f"{scene.label}: {meter.label}"
        for scene in scenes
        for meter in scene.meters
    ]
    steps = [[str(k + 1), *(column.texts[k] for column in columns)] for k in range(last + 1)]
    # one scene of squares has room for its numbers beside it; else they are below
    beside = [_beside(scene) for scene in scenes if scene.readings]
    below = _meters(scenes, columns, last)
    if scenes[0].row is not None:
        below = "".join([below, *beside])
        beside = []
    elif alone:
        beside = [tag("div", "".join([*beside, below]))]
        below = ""
    figures = [_figure(scene, last) for scene in scenes]
    swatches = [(f'class="lk-k-{look}" data-t="{t}"', words) for look, t, words in scenes[0].legend]
    return markup.still(
        "play",
        title,
        markup.paragraph(describe, "lk-note"),
        markup.paragraph(f"Shown after the last of {last + 1} steps.", "lk-note lk-shown"),
        _words(scenes[0], last),
        tag("div", "".join([*figures, *beside]), class_="lk-stages"),
        markup.legend(swatches),
        markup.sentence(says, last),
        below,
        markup.folded(title, ["step", *heads], steps),
    )


def _words(scene: Scene, now: int) -> str:
    """The text as far as it is written."""
    chips = [
        tag("span", escape(word), class_="lk-chip", data_k=k, data_t=tense(k, None, now))
        for word, k in scene.words
    ]
    return tag("p", "".join(chips), class_="lk-text") if chips else ""


def _figure(scene: Scene, now: int) -> str:
    caption = tag("b", escape(scene.label)) + tag("span", escape(scene.axes))
    return tag(
        "div", tag("p", caption, class_="lk-caption") + picture(scene, now), class_="lk-stage"
    )


def _beside(scene: Scene) -> str:
    rows = _readings(scene)[-1]
    return tag("div", markup.table(scene.head, rows), class_="lk-readings")


def _meters(scenes: list[Scene], columns: list[Column], now: int) -> str:
    """Counters, side by side where there are two scenes, each with a bar."""

    def cell(number: int) -> str:
        column = columns[number]
        words = tag("span", escape(column.texts[now]))
        bar = tag("i", style=f"--share: {column.shares[now]:g}")
        return tag("td", tag("div", words + bar, data_column=number))

    each = len(scenes[0].meters)
    rows = [
        tag("th", escape(meter.label), scope="row")
        + "".join(cell(s * each + m) for s in range(len(scenes)))
        for m, meter in enumerate(scenes[0].meters)
    ]
    labels = "".join(tag("th", escape(scene.label), scope="col") for scene in scenes)
    head = tag("thead", tag("tr", tag("td") + labels)) if len(scenes) > 1 else ""
    body = tag("tbody", "".join(tag("tr", row) for row in rows))
    return tag("table", head + body, class_="lk-meters")

"""Online softmax: the square of queries and keys, walked over tile by tile."""

from __future__ import annotations

import math
from itertools import accumulate

from labkit.traces import Trace
from labkit.traces.attention import AttentionStep
from labkit.widgets.numbers import significant
from labkit.widgets.scene import Box, Meter, Scene

MOST_QUERIES = 8  # of a tile, whose running numbers are shown


def scene(trace: Trace) -> Scene:
    """Which tiles are visited and which are skipped, the running maximum and sum, and what is held
    on chip.
    """
    steps = trace.steps
    keys = max(s.key_tile[1] for s in steps)
    queries = max(s.query_tile[1] for s in steps)
    tiles = [_tile(k, s) for k, s in enumerate(steps)]
    loaded = [
        box for k, s in enumerate(steps) if not s.skipped for box in _loaded(k, s, keys, queries)
    ]
    factors = _factors(steps)
    return Scene(
        label="Attention, tile by tile",
        axes="keys across, queries down",
        columns=keys,
        rows=queries,
        boxes=loaded + tiles,  # tiles lie on top
        says=[_say(s, factor) for s, factor in zip(steps, factors)],
        meters=_meters(steps, tiles, factors, keys * queries),
        legend=[
            ("tile", "now", "this tile"),
            ("loaded", "now", "its queries and keys"),
            ("tile", "past", "done"),
            ("skipped", "past", "skipped"),
        ],
        mask=keys == queries and any(s.skipped for s in steps),
        head=["query", "running max", "running sum"],
        readings=[_readings(s) for s in steps],
    )


def _tile(k: int, step: AttentionStep) -> Box:
    (top, bottom), (left, right) = step.query_tile, step.key_tile
    look = "skipped" if step.skipped else "tile"
    return Box(k, look, left, top, right - left, bottom - top)


def _loaded(k: int, step: AttentionStep, keys: int, queries: int) -> list[Box]:
    """The row of its queries and the column of its keys, through the whole square."""
    tile = _tile(k, step)
    return [
        Box(k, "loaded", 0, tile.y, keys, tile.height),
        Box(k, "loaded", tile.x, 0, tile.width, queries),
    ]


def _factors(steps: list[AttentionStep]) -> list[float | None]:
    """What earlier sums of a tile's queries are multiplied by; None where there are none yet."""
    begun = set()
    factors = []
    for step in steps:
        first = step.query_tile[0]
        factors.append(significant(step.change, 2) if first in begun and not step.skipped else None)
        if not step.skipped:
            begun.add(first)
    return factors


def _say(step: AttentionStep, factor: float | None) -> str:
    queries, keys = _span(step.query_tile), _span(step.key_tile)
    if step.skipped:
        return (
            f"Keys {keys} lie in the future of queries {queries}: the tile is **skipped**, nothing"
            " is loaded."
        )
    if factor is None:
        rescale = "These are their first keys: there is nothing to rescale."
    elif factor >= 1:
        rescale = "No score is larger than before: nothing is rescaled."
    else:
        rescale = (
            "A larger score turned up, so earlier sums are multiplied by as little as"
            f" **{factor:g}**."
        )
    return f"Queries {queries} meet keys {keys}. {rescale}"


def _span(tile: list[int]) -> str:
    """Counted from 1, as people and the clip do."""
    return f"{tile[0] + 1}–{tile[1]}"


def _meters(
    steps: list[AttentionStep], tiles: list[Box], factors: list, square: int
) -> list[Meter]:
    computed = list(accumulate(int(not s.skipped) for s in steps))
    skipped = list(accumulate(int(s.skipped) for s in steps))
    held = [0 if s.skipped else tile.width * tile.height for s, tile in zip(steps, tiles)]
    return [
        Meter("tiles computed", computed, len(steps)),
        Meter("tiles skipped", skipped, len(steps)),
        Meter("earlier sums are multiplied by", factors, 1),
        Meter("scores held on chip", held, square),
        Meter("scores in the whole square", [square] * len(steps), square),
    ]


def _readings(step: AttentionStep) -> list[list[str]]:
    """The running numbers of each query of a tile."""
    first = step.query_tile[0]
    rows = [
        [str(first + i + 1), _reading(top), _reading(total)]
        for i, (top, total) in enumerate(zip(step.top, step.total))
    ]
    more = len(rows) - MOST_QUERIES
    return rows[:MOST_QUERIES] + ([[f"and {more} more", "", ""]] if more > 0 else [])


def _reading(value: float | None) -> str:
    if value is None or math.isinf(value):
        return "−∞"
    return f"{value:z.2f}"  # z: no minus before a rounded zero

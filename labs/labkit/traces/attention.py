"""Attention in tiles: the two numbers that each query keeps, tile by tile (online softmax)."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.traces.trace import Trace


@dataclass(frozen=True)
class AttentionStep:
    """One tile of keys seen by one tile of queries."""

    query_tile: list[int]  # first and last query, end excluded
    key_tile: list[int]
    skipped: bool  # wholly behind the causal mask
    top: list[float]  # running maximum of each query
    total: list[float]  # running sum of exponentials
    change: float  # the factor by which earlier work is rescaled, smallest of the tile's queries
    held_floats: int  # numbers kept on chip for this tile


def record_attention(q, k, v, tile: int = 4) -> Trace:
    """Run `labkit.reference.online_attention` on one head, q, k, v [T,E], and record every tile it
    visits, and those that causality lets it skip.
    """
    from labkit.reference import online_attention

    T, E = q.shape
    steps = []

    def span(first: int) -> list[int]:
        return [first, min(first + tile, T)]

    def watch(a, b, top, total, shrink, scores):
        rows, columns = scores.shape
        # two numbers a query, the scores, the output, and the tile's keys and values
        held = 2 * rows + scores.size + (rows + 2 * columns) * E
        kept = top.tolist(), total.tolist()
        steps.append(AttentionStep(span(a), span(b), False, *kept, float(shrink.min()), held))
        # the diagonal is the last tile of these queries: what lies behind it is their future
        if b == a:
            for c in range(a + tile, T, tile):
                steps.append(AttentionStep(span(a), span(c), True, *kept, 1.0, held))

    online_attention(q, k, v, tile, watch)
    meta = {"T": T, "E": E, "tile": tile, "score_matrix_floats": T * T}
    return Trace("attention", "labkit.reference.online_attention", meta, steps)

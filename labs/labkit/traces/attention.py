"""Attention in tiles: the two numbers that each query keeps, tile by tile (online softmax)."""

from __future__ import annotations

import math
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
    """Walk over one head, q, k, v [T,E], as `labkit.reference.online_attention` does, with its own
    parts, and record every tile that is visited, and those that causality lets it skip.
    """
    from labkit.reference import absorb, nothing_yet, tile_scores

    T, E = q.shape
    steps = []

    def span(first: int) -> list[int]:
        return [first, min(first + tile, T)]

    for a in range(0, T, tile):
        state = nothing_yet(len(q[a : a + tile]), E)
        for b in range(0, a + tile, tile):
            scores, before = tile_scores(q, k, a, b, tile), state[0]
            state = top, total, _ = absorb(state, scores, v[b : b + tile])
            rows, columns = scores.shape
            # two numbers a query, the scores, the output, and the tile's keys and values
            held = 2 * rows + scores.size + (rows + 2 * columns) * E
            kept = top.tolist(), total.tolist()
            shrink = math.exp((before - top).min())
            steps.append(AttentionStep(span(a), span(b), False, *kept, shrink, held))
        # what lies behind the diagonal is these queries' future
        for c in range(a + tile, T, tile):
            steps.append(AttentionStep(span(a), span(c), True, *kept, 1.0, held))
    meta = {"T": T, "E": E, "tile": tile, "score_matrix_floats": T * T}
    return Trace("attention", "labkit.reference.online_attention", meta, steps)

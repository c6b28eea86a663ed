"""A rival that needs no training: how likely a character is after the few before it, counted.

Interpolated Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1999): from every count a
little is taken off, and what was taken is shared out by the next shorter context, which counts in
how many *different* contexts a character stood.
"""

from __future__ import annotations

import numpy as np


def bits(train: np.ndarray, held_out: np.ndarray, order: int, vocabulary: int) -> float:
    """Mean bits per character of the held-out ids, each after the order - 1 before it.

    The discount of each length is n1 / (n1 + 2 n2), from how many of its grams were seen once and
    twice.
    """
    base = vocabulary ** np.arange(order)[::-1]
    grams, counts = np.unique(windows(train, order) @ base, return_counts=True)
    levels = [(grams, counts)]
    for length in range(order - 1, 0, -1):
        # one for each different character that it stood behind
        grams, counts = np.unique(levels[0][0] % vocabulary**length, return_counts=True)
        levels.insert(0, (grams, counts))
    asked = windows(held_out, order) @ base
    p = np.full(len(asked), 1 / vocabulary)
    for length, (grams, counts) in enumerate(levels, start=1):
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = once / (once + 2 * twice) if once else 0.5
        contexts, first = np.unique(grams // vocabulary, return_index=True)
        totals = np.add.reduceat(counts, first)
        kinds = np.diff([*first, len(grams)])
        own = asked % vocabulary**length
        seen, at = found(contexts, own // vocabulary)
        known, where = found(grams, own)
        count = np.where(known, counts[where], 0)
        left = (np.maximum(count - discount, 0) + discount * kinds[at] * p) / totals[at]
        p = np.where(seen, left, p)
    return float(-np.log2(p).mean())


def windows(ids: np.ndarray, length: int) -> np.ndarray:
    """Every piece of so many ids: [pieces, length]."""
    return np.lib.stride_tricks.sliding_window_view(np.asarray(ids, np.int64), length)


def found(table: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(is it in the sorted table, where)."""
    at = np.searchsorted(table, asked).clip(max=len(table) - 1)
    return table[at] == asked, at

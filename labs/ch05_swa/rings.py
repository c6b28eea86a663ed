"""A window on a ring in NumPy, and the tiny model whose layers have windows."""

import numpy as np

from labkit import reference
from labkit.reference.attention import attention


class Ring:
    """Keys and values of one layer: position p lies in slot p % slots."""

    def __init__(self, slots, G, E):
        self.keys, self.values = np.zeros((2, slots, G, E))
        self.pos = np.full(slots, -1)  # who lies there: nobody yet

    def write(self, k, v, pos):
        at = pos % len(self.pos)
        self.keys[at], self.values[at], self.pos[at] = k, v, pos

    def attend(self, q, k, v, pos, window):
        self.write(k, v, pos)
        mine = self.keys, self.values
        return attention(q, *mine, pos, self.pos, window)


class SlidingGPT(reference.TinyGPT):
    """The model of `labkit.reference`, whose sliding layers look back a window."""

    def attend(self, x, layer, i, pos, cache):
        self.window = self.config.window_of(i)
        return super().attend(x, layer, i, pos, cache)

    def look(self, q, k, v, pos):
        kpos = np.arange(pos[-1] + 1 - len(k), pos[-1] + 1)
        return attention(q, k, v, pos, kpos, self.window)


def fed(ring, q, k, v, chunks, window):
    """What all tokens get, [T,H,E], fed to a ring in these chunks."""
    pos = np.arange(len(q))
    parts = np.split(pos, np.cumsum(chunks)[:-1])
    return np.concatenate([ring.attend(q[p], k[p], v[p], p, window) for p in parts])


def in_reach(pairs, reach):
    """The share of questions whose key lies within `reach` tokens.

    A text of the recall task is `pairs` times a key and its value, then
    each key once more, in any order.
    """
    key = 2 * np.arange(pairs)
    asked = 2 * pairs + np.arange(pairs)[:, None]
    return float((asked - key < reach).mean())

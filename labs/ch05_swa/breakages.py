"""What can go wrong in a window on a ring, one fault at a time, and which test sees it.

`Layer` is one layer's attention as it should be. Each other class breaks one condition of it, in
the few lines that it overrides.
"""

from itertools import pairwise

import numpy as np

from labkit.reference.attention import attention
from labkit.reference.layers import rope
from labkit_labs.ch05_swa.rings import Ring
from labkit_labs.common import faults

WINDOW, LONGEST = 4, 3
TOKENS = 20
HEADS, KV_HEADS, SIZE = 2, 1, 8
THETA = 1e4
CHUNKS = [3] * 4 + [1] * 8  # a prompt of twelve, then one by one


class Layer:
    """Attention of one sliding layer, whose keys live in a ring."""

    condition = "all as it should be"
    switch = ""
    slots = WINDOW + LONGEST - 1
    sees = WINDOW  # tokens that the mask lets through, the query's own among them

    def __init__(self):
        self.ring = Ring(self.slots, KV_HEADS, SIZE)

    def turn(self, x, pos):
        """Queries or keys, rotated by their position."""
        return rope(x, pos, THETA)

    def where(self, pos):
        """The position that each slot is taken for, once tokens up to pos[-1] are written."""
        return self.ring.pos

    def step(self, q, k, v, pos):
        """New tokens [T,…] at `pos`: written, then they look."""
        self.ring.write(self.turn(k, pos), v, pos)
        ring = self.ring
        q = self.turn(q, pos)
        return attention(q, ring.keys, ring.values, pos, self.where(pos), self.sees)

    def whole(self, q, k, v, pos):
        """The same with all keys at hand, and the same mask."""
        turned = rope(q, pos, THETA), rope(k, pos, THETA)
        return attention(*turned, v, pos, pos, self.sees)


class TooSmall(Layer):
    condition = "capacity"
    switch = "one slot fewer than window + longest step − 1"
    slots = WINDOW + LONGEST - 2


class TurnedBySlot(Layer):
    condition = "positions"
    switch = "RoPE turns a key by its slot"

    def turn(self, x, pos):
        return rope(x, pos % self.slots, THETA)


class NumberedBySlot(Layer):
    condition = "mask"
    switch = "slots count as positions 0, 1, 2, …"

    def where(self, pos):
        return np.where(self.ring.pos < 0, -1, np.arange(self.slots))


class AllOfTheRing(Layer):
    condition = "mask"
    switch = "whatever lies in the ring is seen"
    sees = None

    def whole(self, q, k, v, pos):
        turned = rope(q, pos, THETA), rope(k, pos, THETA)
        return attention(*turned, v, pos, pos, WINDOW)


class OneMore(Layer):
    condition = "window"
    switch = "W + 1 tokens seen: W means those before"
    sees = WINDOW + 1


class OneMoreInStep(OneMore):
    switch = "the same, and a ring of one slot more"
    slots = Layer.slots + 1


FAULTS = (TooSmall, TurnedBySlot, NumberedBySlot, AllOfTheRing, OneMore, OneMoreInStep)


# -- the tests that see them -----------------------------------------------------------------------


def tokens():
    draw = np.random.default_rng(0).standard_normal
    q = draw((TOKENS, HEADS, SIZE))
    k, v = draw((2, TOKENS, KV_HEADS, SIZE))
    return q, k, v, np.arange(TOKENS)


def oracle(q, k, v, pos):
    """Token by token, with a slice for a window: no mask, no ring."""
    q, k = rope(q, pos, THETA), rope(k, pos, THETA)
    out = []
    for t in range(len(q)):
        near = slice(max(0, t - WINDOW + 1), t + 1)
        scores = q[t] @ k[near, 0].T / SIZE**0.5  # [H,S]
        p = np.exp(scores - scores.max(1, keepdims=True))
        out.append(p / p.sum(1, keepdims=True) @ v[near, 0])
    return np.stack(out)


def fed(kind, chunks):
    """What comes out when the first tokens are fed in these chunks."""
    made, given = kind(), tokens()
    edges = np.cumsum([0, *chunks])
    with np.errstate(invalid="ignore"):  # a query that sees nothing at all
        return np.concatenate([made.step(*(x[a:b] for x in given)) for a, b in pairwise(edges)])


def short(kind) -> bool:
    """A text no longer than the window is what all keys at hand give."""
    return near(fed(kind, [3, 1]), kind().whole(*tokens()))


def one_by_one(kind) -> bool:
    """Token by token equals all at once."""
    return near(fed(kind, [1] * TOKENS), kind().whole(*tokens()))


def in_chunks(kind) -> bool:
    """A prompt in chunks, then token by token, equals all at once."""
    return near(fed(kind, CHUNKS), kind().whole(*tokens()))


def as_oracle(kind) -> bool:
    """A prompt in chunks, then token by token, equals the oracle."""
    return near(fed(kind, CHUNKS), oracle(*tokens()))


TESTS = {
    "short": short,
    "one by one = whole": one_by_one,
    "chunks = whole": in_chunks,
    "chunks = oracle": as_oracle,
}


def near(a, b) -> bool:
    """Equal as far as the first of them goes."""
    return bool(np.abs(a - b[: len(a)]).max() < 1e-6)


def symptom(kind) -> str:
    """How many tokens of the text come out wrong, and which is the first."""
    # what is no number is wrong, too
    off = ~(np.abs(fed(kind, CHUNKS) - oracle(*tokens())).max((1, 2)) < 1e-6)
    first = f"{off.sum()} of {TOKENS} tokens wrong, the first is token {off.argmax()}"
    return first if off.any() else "none"


def bench() -> list[dict]:
    """A row for each fault: what it breaks, how, what one sees, and the tests that fail."""
    return faults.bench(FAULTS, TESTS, symptom)

"""What can go wrong in a cached decode, one fault at a time, and which test sees it.

`Server` serves requests one after another, as it should. Each other class breaks one condition of
it, in the few lines that it overrides.
"""

from functools import partial

import numpy as np

from labkit import presets, reference
from labkit.reference.attention import attention
from labkit_labs.common import faults

FIRST, SECOND = list(b"the cat sat"), list(b"a dog ran off")
NEW = 8
OFFSET = 100  # where a stale counter goes on
LONGEST = 112  # positions that a model was made for


class Server:
    """Greedy replies with a cache, new for each request, on random weights from a fixed seed."""

    condition = "all as it should be"
    switch = ""
    config = presets["tiny"]

    def __init__(self):
        self.model = self.build(self.config)
        self.cache = self.empty()

    def build(self, config):
        return reference.TinyGPT(config)

    def empty(self):
        return reference.Cache(self.config.n_layers)

    def begin(self, prompt):
        """The cache of the next request."""
        self.cache = self.empty()

    def position(self) -> int:
        """The position of the next token to be fed."""
        return self.cache.length

    def stream(self, prompt, new):
        """Each new token, once it is chosen."""
        self.begin(prompt)
        feed = list(prompt)
        for _ in range(new):
            logits = self.model.forward(feed, self.cache, start=self.position())
            feed = [int(logits[-1].argmax())]
            yield feed[0]

    def reply(self, prompt, new=NEW) -> list[int]:
        return list(self.stream(prompt, new))


# -- append ----------------------------------------------------------------------------------------


class Forgets(Server):
    condition = "append"
    switch = "new tokens are not stored"

    class Cache(reference.Cache):
        def append(self, layer, k, v):
            kept = self.keys[layer], self.values[layer]
            k, v = super().append(layer, k, v)
            if kept[0] is not None:
                self.keys[layer], self.values[layer] = kept
            return k, v

    def empty(self):
        return self.Cache(self.config.n_layers)


# -- positions -------------------------------------------------------------------------------------


class TooFar(Server):
    condition = "positions"
    switch = "the pointer is one too far after the prompt"

    def position(self):
        return self.cache.length + (self.cache.length > 0)


class StaleLearned(Server):
    condition = "positions"
    switch = f"the counter goes on from {OFFSET}; learned positions"
    config = presets["tiny"].replace(position="learned")

    def position(self):
        return self.cache.length + OFFSET


class StaleRope(Server):
    condition = "positions"
    switch = f"the counter goes on from {OFFSET}; RoPE"

    def position(self):
        return self.cache.length + OFFSET


class StaleSlots(StaleRope):
    switch = f"the counter goes on from {OFFSET}; RoPE, and a mask that counts slots from 0"

    class Model(reference.TinyGPT):
        def look(self, q, k, v, pos):
            return attention(q, k, v, pos, np.arange(len(k)))

    def build(self, config):
        return self.Model(config)


class StaleLong(StaleRope):
    switch = f"the counter goes on from {OFFSET}; RoPE, and {LONGEST} positions at most"

    def position(self):
        if super().position() >= LONGEST:
            raise ValueError(f"position {super().position()}: the model has {LONGEST}")
        return super().position()


# -- the mask --------------------------------------------------------------------------------------


class Unmasked(Server):
    condition = "mask"
    switch = "no mask: the prompt sees its future"

    class Model(reference.TinyGPT):
        def look(self, q, k, v, pos):
            return super().look(q, k, v, np.full_like(pos, pos[-1]))

    def build(self, config):
        return self.Model(config)


class Corner(Server):
    condition = "mask"
    switch = "the triangle starts in the upper left corner"

    class Model(reference.TinyGPT):
        def look(self, q, k, v, pos):
            return attention(q, k, v, np.arange(len(q)), np.arange(len(k)))

    def build(self, config):
        return self.Model(config)


# -- one request, one cache ------------------------------------------------------------------------


class Shared(Server):
    condition = "isolation"
    switch = "no reset between requests"

    def begin(self, prompt):
        pass


class Sticky(Server):
    condition = "isolation"
    switch = "reset only where the prompt was seen before"

    def __init__(self):
        super().__init__()
        self.seen = []

    def begin(self, prompt):
        if prompt in self.seen:
            self.cache = self.empty()
        self.seen.append(prompt)


class PartialReset(Server):
    """One layer of four is cleared."""

    condition = "isolation"
    switch = "only the first layer is reset"
    layer = 0

    def begin(self, prompt):
        self.cache.keys[self.layer] = self.cache.values[self.layer] = None


class PartialResetOfTheLast(PartialReset):
    switch = "only the last layer is reset"
    layer = -1


FAULTS = (
    *(Forgets, TooFar, StaleLearned, StaleRope, StaleSlots, StaleLong),
    *(Unmasked, Corner),
    *(Shared, PartialReset, PartialResetOfTheLast),
)


# -- the tests that see them -----------------------------------------------------------------------


def shapes(kind) -> bool:
    """At every step of two requests, each layer's keys and values are those of the text so far."""
    server, c = kind(), kind.config
    for prompt in (FIRST, SECOND):
        for step, _ in enumerate(server.stream(prompt, NEW)):
            want = (len(prompt) + step, c.n_kv_heads, c.head_dim)
            if any(x.shape != want for x in (*server.cache.keys, *server.cache.values)):
                return False
    return True


def uncached(kind) -> bool:
    """The text is what the naive loop writes."""
    return kind().reply(FIRST) == naive(kind)


def twice(kind) -> bool:
    """The same prompt, asked twice, gets the same text."""
    server = kind()
    return server.reply(FIRST) == server.reply(FIRST)


def alone(kind) -> bool:
    """A second request is answered as if it were the first."""
    server = kind()
    server.reply(FIRST)
    return server.reply(SECOND) == kind().reply(SECOND)


TESTS = {"shapes": shapes, "cached = naive": uncached, "twice the same": twice, "as alone": alone}


def naive(kind) -> list[int]:
    """What a model without a fault writes after the first prompt, with no cache."""
    return reference.naive_loop(reference.TinyGPT(kind.config), FIRST, NEW)


def passes(test, kind) -> bool:
    """Does a server pass a test? One that refuses a request does not."""
    try:
        return test(kind)
    except ValueError:
        return False


def same(text, other) -> int:
    """How many tokens two texts begin with alike."""
    pairs = zip(text, other)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))


def symptom(kind) -> str:
    """Where the text of two requests in a row leaves the right one."""
    server = kind()
    try:
        kept = same(server.reply(FIRST), naive(kind))
    except ValueError:
        return "a request that fits is refused"
    if kept < NEW:
        return f"another text from token {kept + 1} on"
    kept = same(server.reply(SECOND), kind().reply(SECOND))
    if kept < NEW:
        return f"the second request gets another text from token {kept + 1} on"
    return "none: both texts are right"


def bench(kinds=FAULTS) -> list[dict]:
    """A row for each fault: what it breaks, how, what one sees, and the tests that fail."""
    tests = {name: partial(passes, test) for name, test in TESTS.items()}
    return faults.bench(kinds, tests, symptom)

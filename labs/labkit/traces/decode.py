"""Decode loops: what each forward is fed, computes, reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.traces.trace import Trace


@dataclass(frozen=True)
class DecodeStep:
    """One forward of a decode loop."""

    token: str  # the token this forward produced
    fed: list[str]  # the tokens it was given
    computed: int  # keys projected, per layer and head
    read: int  # keys attended to by the last query
    written: int  # keys stored
    held: int  # keys in the cache afterwards


class WatchedCache:
    """A cache that counts what passes through it, and otherwise is the cache it wraps."""

    def __init__(self, cache):
        self.cache = cache
        self.read_slots = 0
        self.written = 0
        self.held = 0

    def write(self, step, *items):
        self.cache.write(step, *items)
        self.written = 0 if self.cache.allocated_bytes == 0 else len(items[0])
        self.held += self.written

    def read(self, step):
        *items, kpos = self.cache.read(step)
        self.read_slots = int((kpos[-1] >= 0).sum())
        return *items, kpos

    def attend(self, *args):
        from labkit.caches import Cache

        return Cache.attend(self, *args)  # what is attended to passes through `read`


def record_decode(
    model,
    prompt: list[int],
    new: int,
    *,
    cache: str = "static",
    decode: Callable[[list[int]], str] | None = None,
) -> Trace:
    """Run a greedy decode loop on one prompt, and record what each forward fed, computed, read and
    wrote (in layer 0).

    cache as in `labkit.generate`; `decode` turns ids into text (default: the numbers).
    """
    from labkit.decode import cached, check_prompt, naive

    prompt = check_prompt(model.config, prompt, new)
    caches = model.caches(cache, 1, len(prompt) + new, longest_step=len(prompt))
    watched = caches[0] = WatchedCache(caches[0])
    loop = naive if cache == "none" else cached

    def word(id: int) -> str:
        return decode([id]) if decode else str(id)

    steps = [
        DecodeStep(
            token=word(tokens[0]),
            fed=[word(id) for id in step.ids.tolist()],
            computed=len(step.ids),
            read=watched.read_slots,
            written=watched.written,
            held=watched.held,
        )
        for step, _, tokens in loop(model, caches, [prompt], new)
    ]
    meta = {
        "cache": cache,
        "prompt": [word(id) for id in prompt],
        "layers": model.config.n_layers,
    }
    return Trace("decode", f"labkit.decode.{loop.__name__}", meta, steps)

"""A window on a ring: which slot each token takes, whom it overwrites, what a query sees, and how
far back the layers together reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.traces.trace import Trace


@dataclass(frozen=True)
class WindowStep:
    """One step of a text, once it is written. A position is a token's place in the text, from 0."""

    fed: list[int]  # the positions of its tokens
    written: list[int]  # the slot that each of them took
    lost: list[int]  # positions that lay there before, and are overwritten
    held: list[int]  # the position in each slot; -1: none yet
    seen: list[int]  # positions that the last token's query looks at
    reach: list[int]  # the first position that it hears of, through 1, 2, … layers


class Watched:
    """A cache that notes what each query looks at, and otherwise is the cache it wraps: what it
    returns, and by which kernel, is that cache's.

    `sight`: the positions that each token of a step looked at. `slot_of`: where a token's key lies,
    found in the buffer, not computed.
    """

    def __init__(self, cache, window: int | None):
        self.cache = cache
        self.window = window
        self.sight: list[list[int]] = []
        self.slot_of: dict[int, int] = {}
        self.held: dict[int, int] = {}

    def write(self, step, *items):
        self.cache.write(step, *items)
        buffer = self.cache.buffers[0]  # [G,slots,E]
        for position, key in zip(step.pos.tolist(), items[0].to(buffer.dtype)):
            alike = (buffer == key.unsqueeze(-2)).all(-1).flatten(0, -2).all(0)  # [slots]
            slots = alike.nonzero().flatten().tolist()
            if len(slots) != 1:
                raise ValueError(
                    f"the key of position {position} lies in {len(slots)} slots, where it must be"
                    " found in one: a longest step was missed, or two keys are equal"
                )
            self.slot_of[position] = slots[0]
            self.held[slots[0]] = position

    def read(self, step):
        *items, kpos = self.cache.read(step)
        self.look(kpos, step)
        return *items, kpos

    def attend(self, q, step, scale, window=None, sinks=None):
        self.look(self.cache.read(step)[-1], step)
        return self.cache.attend(q, step, scale, window, sinks)

    def look(self, kpos, step) -> None:
        """Note what the mask lets each query of the step see: `ops.visible` makes it, as for
        attention.
        """
        import torch

        from labkit.ops import visible

        mask = visible(kpos, step, self.window, torch.float32, 1)[0, 0]  # [T,S]
        self.sight = [kpos[0][row == 0].tolist() for row in mask]


def record_window(
    model,
    tokens: list[int],
    chunks: list[int] | None = None,
    *,
    decode: Callable[[list[int]], str] | None = None,
) -> Trace:
    """Feed a text in these chunks (None = token by token) to a model with sliding layers, whose
    keys live in rings, and record the first ring at every step.

    `decode` turns ids into text (default: the numbers). ValueError where no layer keeps a ring that
    goes round, for chunks that do not sum to the text, and as `labkit.logits` raises it.
    """
    from labkit.caches import RingCache
    from labkit.decode import check_chunks, check_prompt

    tokens = check_prompt(model.config, tokens)
    chunks = check_chunks(tokens, [1] * len(tokens) if chunks is None else chunks)
    caches = model.caches("ring", 1, len(tokens), longest_step=max(chunks))
    rings = [i for i, cache in enumerate(caches) if isinstance(cache, RingCache)]
    if not rings:
        raise ValueError(
            f"no layer keeps a ring that {len(tokens)} tokens in steps of up to {max(chunks)} would"
            " fill: give a model with sliding layers, and a text longer than window + longest step"
            " - 1"
        )
    watched = [
        cache if block.mixer.recurrent else Watched(cache, block.mixer.window)
        for block, cache in zip(model.blocks, caches)
    ]
    ring = caches[rings[0]]
    meta = {
        "words": [decode([id]) if decode else str(id) for id in tokens],
        "window": ring.window,
        "slots": ring.capacity,
        "longest_step": max(chunks),
        "layers": list(model.config.types),
        "token_bytes": ring.allocated_bytes // ring.capacity,  # of one layer
    }
    steps = list(_steps(model, watched, watched[rings[0]], tokens, chunks))
    return Trace("window", "labkit.caches.RingCache", meta, steps)


def _steps(model, caches: list, ring: Watched, tokens: list[int], chunks: list[int]):
    """A `WindowStep` for each chunk that is fed."""
    import torch

    from labkit.step import Step

    heard: list[list[int]] = []  # of every position, after each layer: the first it hears of
    held = [-1] * ring.cache.capacity
    at = 0
    for n in chunks:
        fed = list(range(at, at + n))
        with torch.inference_mode():
            model(Step.of([(0, at, tokens[at : at + n])], model.device), caches)
        heard += [[position] for position in fed]
        for layer, cache in enumerate(caches):
            for i, position in enumerate(fed):
                # a recurrent layer has taken in all that came before
                looked_at = cache.sight[i] if isinstance(cache, Watched) else range(position + 1)
                heard[position].append(min(heard[key][layer] for key in looked_at))
        written = [ring.slot_of[position] for position in fed]
        lost = [held[slot] for slot in written if held[slot] >= 0]
        held = [ring.held.get(slot, -1) for slot in range(len(held))]
        seen = sorted(ring.sight[-1])
        yield WindowStep(fed, written, lost, held, seen, reach=heard[fed[-1]][1:])
        at += n

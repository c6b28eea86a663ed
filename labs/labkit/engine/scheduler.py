"""Who runs in the next step, with how many tokens, in which blocks.

No tensors: a simulator drives the same code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from labkit.engine.blocks import BlockPool
from labkit.engine.prefix import PrefixIndex
from labkit.engine.request import Request


@dataclass(eq=False, slots=True)
class Work:
    """What a step does for one request: it feeds tokens, and checks drafts that follow them."""

    request: Request
    fed: int  # tokens of its own, from `request.done` on
    ends: bool  # they are its last: the step gives a new token
    room: int = 0  # drafts that it may bring: they have blocks
    drafts: Sequence[int] = ()  # for the engine to fill in

    @property
    def tokens(self) -> int:
        """In the step, drafts included."""
        return self.fed + len(self.drafts)

    @property
    def kind(self) -> str:
        """ "prefill", "decode" (its last token alone), or "check" (and drafts)."""
        if self.drafts:
            return "check"
        return "decode" if self.ends and self.fed == 1 else "prefill"


@dataclass(eq=False)
class Plan:
    """The next step."""

    work: list[Work] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)  # blocks, before it: (from, to)
    evicted: list[int] = field(default_factory=list)  # blocks whose kept contents it gave up
    preempted: list[int] = field(default_factory=list)  # requests that were set back
    drafting: float = 0.0  # seconds that its drafts took


class Scheduler:
    """Continuous batching (Yu et al. 2022, Orca) under one budget of tokens per step (Agrawal et
    al. 2024, Sarathi-Serve).

    Decodes come first, then prompts begun, then waiting ones in order of arrival; a prompt that is
    too long is cut into chunks. When blocks run out, the request admitted last gives its own back
    and waits; later it is computed again. `table [max_batch, M]` says which block holds which part
    of which row; longest: the tokens of the longest text, in which its rows end.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        n_blocks: int,
        block_size: int,
        token_budget: int,
        longest: int,
        prefix_cache: bool = True,
    ):
        self.block_size = block_size
        self.token_budget = token_budget
        self.prefix_cache = prefix_cache
        self.index = PrefixIndex(block_size)
        self.pool = BlockPool(n_blocks, self._forget)
        self.evicted: list[int] = []  # of the plan that is being made
        self.table = np.zeros((max_batch, min(n_blocks, self.blocks_for(longest))), dtype=np.int64)
        self.rows = list(range(max_batch))[::-1]  # free rows, lowest on top
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in order of admission
        self.preemptions = 0
        self.hit_tokens = 0

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def schedule(self, drafts: dict[int, int] | None = None) -> Plan:
        """The next step; blocks are reserved for all that it feeds.

        drafts: how many a request that decodes may have, by its id (absent: 0). It gets fewer where
        blocks, the budget or the end of its reply leave less room.
        """
        plan = Plan()
        self.evicted = plan.evicted
        budget = self.token_budget
        decodes = [r for r in self.running if r.decoding]
        prompts = [r for r in self.running if not r.decoding]
        for i, r in enumerate(decodes):
            room = 0
            if drafts:
                # every decode has its token before any has a draft
                spare = budget - (len(decodes) - i)
                room = self._drafts_that_fit(r, min(drafts.get(r.id, 0), spare))
            budget -= self._feed(plan, r, min(1, budget), room)
        for r in prompts:
            budget -= self._feed(plan, r, min(len(r.tokens) - r.done, budget))
        while budget and self.waiting and self.rows and not plan.preempted:
            r = self.waiting[0]
            if not self._admit(r):
                break
            self.waiting.popleft()
            budget -= self._feed(plan, r, min(len(r.tokens) - r.done, budget))
        if plan.preempted:  # some of them after they had been planned for
            plan.work = [w for w in plan.work if w.request.row >= 0]
        return plan

    def advance(self, r: Request, fed: int, new: list[int]) -> None:
        """After the step: `fed` more tokens have their keys and values, and `new` tokens follow."""
        r.done += fed
        r.tokens += new
        if self.prefix_cache and r.done >= (len(r.chain) + 1) * self.block_size:
            self._index_full_blocks(r)
        if new and (new[-1] in r.stop or len(r.tokens) == r.limit):
            self.finish(r, "stop" if new[-1] in r.stop else "length")

    def finish(self, r: Request, reason: str) -> None:
        """End a request, wherever it is."""
        if r.row >= 0:
            self._leave(r)
        else:
            self.waiting.remove(r)
        r.finished = reason

    # -- how -----------------------------------------------------------------------------
    def _forget(self, block: int) -> None:
        self.index.forget(block)
        self.evicted.append(block)

    def _admit(self, r: Request) -> bool:
        """Give `r` a row, and the blocks that hold its beginning already, if all else that it needs
        now can be had.
        """
        found = []
        if self.prefix_cache:
            found = self.index.match(r.tokens)
            if self._on_its_way(r, (len(found) + 1) * self.block_size):
                return False
        need = self.blocks_for(min(len(r.tokens) + 1, r.limit - 1))
        while True:
            # its last token must be fed again, into a copy
            rewrites = len(found) * self.block_size >= len(r.tokens)
            unheld = sum(not self.pool.holders[e.block] for e in found)
            if need - len(found) + rewrites <= self.pool.available - unheld:
                break
            if not rewrites:
                return False
            found.pop()  # without the copy it may fit
        r.row = self.rows.pop()
        r.chain = found
        r.done = min(len(found) * self.block_size, len(r.tokens) - 1)
        for entry in found:
            self._append(r, self.pool.share(entry.block))
        self.hit_tokens += r.done
        self.running.append(r)
        return True

    def _on_its_way(self, r: Request, end: int) -> bool:
        """Somebody is reading the same first `end` tokens now: a little later they can be shared.
        (SGLang waits likewise.)
        """
        return end < len(r.tokens) and any(
            not p.decoding and p.done < end and p.tokens[:end] == r.tokens[:end]
            for p in self.running
        )

    def _drafts_that_fit(self, r: Request, drafts: int) -> int:
        """All of them or none: drafts are a luxury, and nobody is preempted for them."""
        drafts = max(0, min(drafts, r.draftable))
        more = self.blocks_for(len(r.tokens) + drafts) - len(r.blocks)
        return drafts if more <= self.pool.available else 0

    def _feed(self, plan: Plan, r: Request, fed: int, room: int = 0) -> int:
        """Plan `fed` tokens of `r`, and room for drafts; the tokens that this takes of the budget.

        0 if there are none left, or `r` was preempted.
        """
        if not fed or r.row < 0 or not self._reserve(plan, r, fed + room):
            return 0
        plan.work.append(Work(r, fed, r.done + fed == len(r.tokens), room))
        return fed + room

    def _reserve(self, plan: Plan, r: Request, n: int) -> bool:
        """Blocks of its own for the next `n` tokens of `r`.

        False if `r` had to be preempted itself.
        """
        # it would write into a block that others may read: copy on write
        if r.done < len(r.chain) * self.block_size:
            if not self._make_room(plan, r):
                return False
            shared = r.blocks.pop()
            own = self.pool.new()
            self._append(r, own)
            plan.copies.append((shared, own))
            self.pool.release(shared, keep=True)
            r.chain.pop()
        while r.done + n > len(r.blocks) * self.block_size:
            if not self._make_room(plan, r):
                return False
            self._append(r, self.pool.new())
        return True

    def _make_room(self, plan: Plan, r: Request) -> bool:
        """Preempt, the latest first, until a block can be had. False if that came to `r` itself."""
        while not self.pool.available and r.row >= 0:
            victim = self.running[-1]
            self._leave(victim)
            self.waiting.appendleft(victim)
            plan.preempted.append(victim.id)
            self.preemptions += 1
        return r.row >= 0

    def _append(self, r: Request, block: int) -> None:
        self.table[r.row, len(r.blocks)] = block
        r.blocks.append(block)

    def _leave(self, r: Request) -> None:
        """Give back row and blocks, the end first: a text's beginning is worth keeping longer."""
        for i in reversed(range(len(r.blocks))):
            self.pool.release(r.blocks[i], keep=i < len(r.chain))
        self.table[r.row, : len(r.blocks)] = 0
        self.rows.append(r.row)
        self.running.remove(r)
        r.row = -1
        r.blocks = []
        r.chain = []

    def _index_full_blocks(self, r: Request) -> None:
        size = self.block_size
        for i in range(len(r.chain), r.done // size):
            parent = r.chain[-1] if r.chain else None
            tokens = r.tokens[i * size : (i + 1) * size]
            entry = self.index.find(parent, tokens)
            if entry:  # another request computed the same block meanwhile: keep one
                self.pool.release(r.blocks[i], keep=False)
                r.blocks[i] = self.table[r.row, i] = self.pool.share(entry.block)
            else:
                entry = self.index.insert(parent, tokens, r.blocks[i])
            if entry is None:  # its key means another text: from here on this one can't be found
                return
            r.chain.append(entry)

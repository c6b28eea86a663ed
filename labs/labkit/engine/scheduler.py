"""Who runs in the next step, with how many tokens, and in which blocks. No tensors: a simulator drives the same code."""
from __future__ import annotations

from collections import deque

import numpy as np

from labkit.engine.blocks import BlockPool
from labkit.engine.prefix import PrefixIndex
from labkit.engine.request import Request


class Scheduler:
    """Continuous batching (Yu et al. 2022, Orca) under one budget of tokens per step (Agrawal et al. 2023, Sarathi).

    Decodes come first, then prompts begun, then waiting ones in order of arrival; a prompt that is too long is cut into chunks.
    When blocks run out, the request admitted last gives its own back and waits; later it is computed again.
    `table [max_batch, M]` says which block holds which part of which row.
    """

    def __init__(self, max_batch: int, n_blocks: int, block_size: int, token_budget: int, longest: int, prefix_cache: bool = True):
        self.block_size, self.token_budget, self.prefix_cache = block_size, token_budget, prefix_cache
        self.index = PrefixIndex(block_size)
        self.pool = BlockPool(n_blocks, self.index.forget)
        self.table = np.zeros((max_batch, min(n_blocks, -(-longest // block_size))), dtype=np.int64)
        self.rows = list(range(max_batch))[::-1]  # free rows, lowest on top
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in order of admission
        self.copies: list[tuple[int, int]] = []  # blocks to copy before the step runs: (from, to)
        self.preempted: list[int] = []  # in this step
        self.preemptions = self.hit_tokens = 0

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def schedule(self) -> list[tuple[Request, int]]:
        """The next step: requests, and how many tokens each feeds (drafts included). Their blocks are reserved."""
        self.copies, self.preempted, budget, work = [], [], self.token_budget, []
        decoding = [r for r in self.running if len(r.tokens) - r.done == 1]
        for r in decoding + [r for r in self.running if len(r.tokens) - r.done > 1]:
            if budget and r.row >= 0:  # not preempted by one before it
                n = min(len(r.tokens) - r.done + self._drafts(r), budget)
                if self._reserve(r, n):
                    work.append((r, n))
                    budget -= n
        while budget and self.waiting and self.rows and not self.preempted and self._admit(self.waiting[0]):
            r = self.waiting.popleft()
            n = min(len(r.tokens) - r.done, budget)
            self._reserve(r, n)
            work.append((r, n))
            budget -= n
        return [(r, n) for r, n in work if r.row >= 0] if self.preempted else work

    def advance(self, r: Request, fed: int, new: list[int]) -> None:
        """After the step: `fed` more tokens have their keys and values, and `new` tokens follow."""
        r.done += fed
        r.tokens += new
        if self.prefix_cache and r.done >= (len(r.chain) + 1) * self.block_size:
            self._index_full_blocks(r)
        if new and new[-1] in r.stop:
            self.finish(r, "stop")
        elif len(r.tokens) == r.limit:
            self.finish(r, "length")

    def finish(self, r: Request, reason: str) -> None:
        """End a request, wherever it is."""
        if r.row >= 0:
            self._leave(r)
        else:
            self.waiting.remove(r)
        r.finished = reason

    def check(self) -> None:
        """AssertionError if a block is lost or wrongly shared, or the table differs from what the requests hold."""
        self.pool.check([r.blocks for r in self.running], self.index.by_block)
        assert not any(r.blocks for r in self.waiting), "a waiting request holds blocks"
        rows = [r.row for r in self.running]
        assert sorted(rows + self.rows) == list(range(len(self.table))), "a row is lost"
        for r in self.running:
            assert self.table[r.row].tolist() == r.blocks + [0] * (self.table.shape[1] - len(r.blocks)), "the table is stale"
            assert [e.block for e in r.chain] == r.blocks[: len(r.chain)], "an indexed block was swapped"
            writable = r.blocks[self.blocks_for(r.done + 1) - 1 :]
            assert all(self.pool.holders[b] == 1 for b in writable[1:]), "a block to be written is shared"
        assert not self.table[self.rows].any(), "a free row has blocks"

    # -- how ----------------------------------------------------------------------------------------------------
    def _admit(self, r: Request) -> bool:
        """Give `r` a row and the blocks that already hold its beginning, if what else it needs can be had."""
        found = self.index.match(r.tokens) if self.prefix_cache else []
        need = self.blocks_for(min(len(r.tokens) + 1, r.limit - 1))
        while True:
            rewrites = len(found) * self.block_size >= len(r.tokens)  # the last token must be fed again, into a copy
            unheld = sum(not self.pool.holders[e.block] for e in found)
            if need - len(found) + rewrites <= self.pool.available - unheld:
                break
            if not rewrites:
                return False
            found.pop()  # without the copy it may fit
        r.row, r.chain, r.done = self.rows.pop(), found, min(len(found) * self.block_size, len(r.tokens) - 1)
        for entry in found:
            self._append(r, self.pool.share(entry.block))
        self.hit_tokens += r.done
        self.running.append(r)
        return True

    def _drafts(self, r: Request) -> int:
        """Drafts are a luxury: nobody is preempted for them."""
        fits = self.blocks_for(len(r.tokens) + r.drafts) - len(r.blocks) <= self.pool.available
        return r.drafts if r.drafts and fits else 0

    def _reserve(self, r: Request, n: int) -> bool:
        """Blocks of its own for the next `n` tokens of `r`. False if `r` had to be preempted itself."""
        if r.done < len(r.chain) * self.block_size:  # it would write into a block that others may read: copy on write
            shared, own = r.blocks[-1], self._take(r)
            if own is None:
                return False
            self.copies.append((shared, own))
            r.chain.pop()
            self.pool.release(shared, keep=True)
            r.blocks[-1] = self.table[r.row, len(r.blocks) - 1] = own
        while r.done + n > len(r.blocks) * self.block_size:
            own = self._take(r)
            if own is None:
                return False
            self._append(r, own)
        return True

    def _take(self, r: Request) -> int | None:
        while not self.pool.available:
            victim = self.running[-1]
            self._leave(victim)
            victim.done, victim.chain = 0, []
            self.waiting.appendleft(victim)
            self.preempted.append(victim.id)
            self.preemptions += 1
            if victim is r:
                return None
        return self.pool.new()

    def _append(self, r: Request, block: int) -> None:
        self.table[r.row, len(r.blocks)] = block
        r.blocks.append(block)

    def _leave(self, r: Request) -> None:
        """Give back row and blocks, the end of the text first: a beginning is worth keeping longer."""
        for i in reversed(range(len(r.blocks))):
            self.pool.release(r.blocks[i], keep=i < len(r.chain))
        self.table[r.row, : len(r.blocks)] = 0
        self.rows.append(r.row)
        self.running.remove(r)
        r.row, r.blocks = -1, []

    def _index_full_blocks(self, r: Request) -> None:
        size = self.block_size
        for i in range(len(r.chain), r.done // size):
            parent, tokens = r.chain[-1] if r.chain else None, r.tokens[i * size : (i + 1) * size]
            entry = self.index.find(parent, tokens)
            if entry:  # another request computed the same block meanwhile: keep one
                self.pool.release(r.blocks[i], keep=False)
                r.blocks[i] = self.table[r.row, i] = self.pool.share(entry.block)
            else:
                entry = self.index.insert(parent, tokens, r.blocks[i])
            if entry is None:  # the key is taken by another text: this one is not findable from here on
                return
            r.chain.append(entry)

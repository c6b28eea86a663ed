"""Memory in blocks: who holds which, and what may be thrown away (Kwon et al. 2023, PagedAttention)."""
from __future__ import annotations

import heapq
from collections import Counter, OrderedDict


class BlockPool:
    """Blocks 1 to n. Each is *held* by one or more requests, *kept* for its contents by nobody, or *free*.

    Kept blocks are evicted, the least recently used first, when no block is free. Free ones are handed out lowest first, so that
    those in use stay close together. Block 0 belongs to nobody: where a request has no block yet, its table says 0.
    """

    def __init__(self, n: int, forget=lambda block: None):
        self.n, self.forget = n, forget  # `forget(block)` is told that a block's contents are lost
        self.free = list(range(1, n + 1))
        self.holders = [0] * (n + 1)
        self.kept: OrderedDict[int, None] = OrderedDict()  # oldest first

    @property
    def available(self) -> int:
        return len(self.free) + len(self.kept)

    @property
    def used(self) -> int:
        return self.n - self.available

    def new(self) -> int:
        """A block for one holder. IndexError if none is available."""
        if self.free:
            block = heapq.heappop(self.free)
        else:
            block = self.kept.popitem(last=False)[0] if self.kept else [].pop()
            self.forget(block)
        self.holders[block] = 1
        return block

    def share(self, block: int) -> int:
        """One more holder for a block that is held or kept."""
        self.kept.pop(block, None)
        self.holders[block] += 1
        return block

    def release(self, block: int, keep: bool) -> None:
        """One holder less; without any the block is kept for its contents, or free."""
        self.holders[block] -= 1
        if not self.holders[block]:
            if keep:
                self.kept[block] = None
            else:
                heapq.heappush(self.free, block)

    def check(self, held: list[list[int]], known) -> None:
        """AssertionError unless every block is in exactly one state and held as often as the requests' lists `held` say."""
        count = Counter(b for blocks in held for b in blocks)
        assert 0 not in count and all(self.holders[b] == count[b] for b in range(self.n + 1)), "holders are miscounted"
        states = [*self.free, *self.kept, *count]
        assert sorted(states) == list(range(1, self.n + 1)), "a block is lost, or in two states"
        assert set(self.kept) <= set(known) and not set(self.free) & set(known), "the index knows a free block, or not a kept one"

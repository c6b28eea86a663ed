"""Memory in blocks: who holds which, and what may be thrown away (Kwon et al. 2023,
PagedAttention).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict


class BlockPool:
    """Blocks 1 to n.

    Each is *held* by one or more requests, *kept* for its contents by nobody, or *free*.

    Kept blocks are evicted, the least recently used first, when no block is free. Free ones are
    handed out lowest first, so that those in use stay close together. Block 0 belongs to nobody:
    where a request has no block yet, its table says 0.
    """

    def __init__(self, n: int, forget):
        # `forget(block)` hears that a block's contents are lost
        self.n = n
        self.forget = forget
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
        """A block for one holder; some block must be available."""
        if self.free:
            block = heapq.heappop(self.free)
        else:
            block = self.kept.popitem(last=False)[0]
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

"""Keys and values in blocks, of which requests that begin alike share the first."""

from __future__ import annotations

import torch
from torch import Tensor

from labkit.caches import PagedCache, as_slice
from labkit.quant.cache import decode, encode, widened
from labkit.step import Step


class BlockCache(PagedCache):
    """One layer's blocks; block 0 stays zero, and tables point to it where nothing is.

    A read copies whole runs, or nothing.
    """

    def __init__(
        self,
        blocks: int,
        block_size: int,
        table: Tensor,
        items,
        dtype,
        device="cpu",
        window: int | None = None,
    ):
        super().__init__(blocks + 1, block_size, table, items, dtype, device, window)

    def _gather(self, step, columns):
        at = step.once(
            ("places", self.layout, columns.start, columns.stop),
            lambda: self._places(self.table[step.rows, columns]),
        )
        if isinstance(at, slice):
            return [b[None, :, at].transpose(1, 2) for b in self.buffers]
        R = len(step.rows)
        return [
            b.view(-1, self.block_size, b.shape[2])  # [G*blocks,size,E]
            .index_select(0, at[len(b)])
            .view(R, len(b), -1, b.shape[2])  # [R,G,S,E]
            .transpose(1, 2)
            for b in self.buffers
        ]

    def _places(self, blocks: Tensor) -> slice | dict[int, Tensor]:
        """Where blocks [R,M] lie: slots, if they are one request's and side by side.

        Else the runs to copy from a buffer of G heads: by request, head and block.
        """
        size = self.block_size
        if len(blocks) == 1:
            run = as_slice(blocks[0].tolist(), blocks)
            if isinstance(run, slice):
                return slice(run.start * size, run.stop * size)

        def runs(G: int) -> Tensor:
            heads = torch.arange(G, device=blocks.device)[:, None] * self.blocks  # [G,1]
            return (heads + blocks[:, None]).flatten()  # [R,G,M]

        return {G: runs(G) for G in {len(b) for b in self.buffers}}

    def copy(self, source: int, target: int) -> None:
        """Write one block's contents over another's."""
        for b in self.buffers:
            blocks = b.unflatten(-2, (self.blocks, self.block_size))
            blocks[:, target] = blocks[:, source]


class Int8Blocks(BlockCache):
    """Blocks in 8-bit codes, each head's vector with its own scale (see `quant.cache`); read as a
    copy in `dtype`.
    """

    def __init__(
        self,
        blocks: int,
        block_size: int,
        table: Tensor,
        items,
        dtype,
        device="cpu",
        window: int | None = None,
    ):
        super().__init__(blocks, block_size, table, widened(items), torch.int8, device, window)
        self.dtype = dtype

    def write(self, step: Step, *items: Tensor) -> None:
        super().write(step, *map(encode, items))

    def read(self, step: Step) -> tuple[Tensor, ...]:
        *items, kpos = super().read(step)
        return *(decode(x, self.dtype) for x in items), kpos

"""Keys and values in blocks, of which requests that begin alike share the first."""

from __future__ import annotations

import torch
from torch import Tensor

from labkit.caches import PagedCache, as_slice
from labkit.quant.cache import SCALE, decode, encode
from labkit.step import Step


class BlockCache(PagedCache):
    """One layer's blocks; block 0 stays zero, and tables point to it where nothing is.

    `read`, for torch's attention, copies whole runs.
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
        self.layout = (*self.layout, window)

    def read(self, step):
        first, stop = self._span(step)
        return *self._gather(step, first, stop), step.once(
            (*self.layout, "kpos"), lambda: self._kpos(step, first, stop)
        )

    def _gather(self, step, first: int, stop: int) -> list[Tensor]:
        """The blocks in those columns of the table: [R,S,G,E] of each item."""
        at = step.once((*self.layout, "places"), lambda: self._places(step.rows, first, stop))
        if isinstance(at, slice):
            return [b[None, :, at].transpose(1, 2) for b in self.buffers]
        R, S = len(step.rows), (stop - first) * self.block_size
        return [
            b.view(-1, self.block_size, b.shape[2])
            .index_select(0, at[len(b)])
            .view(R, len(b), S, -1)
            .transpose(1, 2)
            for b in self.buffers
        ]

    def _places(self, rows: Tensor, first: int, stop: int) -> slice | dict[int, Tensor]:
        """Slots, if they are one request's and side by side.

        Else the runs to copy from a buffer of G heads: by request, head and block.
        """
        blocks, size = self.table[rows, first:stop], self.block_size  # [R,M]
        if len(blocks) == 1 and isinstance(run := as_slice(blocks[0].tolist(), blocks), slice):
            return slice(run.start * size, run.stop * size)
        return {
            G: (
                torch.arange(G, device=rows.device)[:, None] * self.blocks + blocks[:, None]
            ).flatten()
            for G in {len(b) for b in self.buffers}
        }

    def copy(self, source: int, target: int) -> None:
        for b in self.buffers:
            blocks = b.unflatten(-2, (self.blocks, self.block_size))
            blocks[:, target] = blocks[:, source]

    def _span(self, step: Step) -> tuple[int, int]:
        """The table's columns, first to stop, that the step's requests may look at."""
        stop = -(-max(step.context) // self.block_size)
        # a kernel is built, and kept, per key length: offer it few
        if self.buffers[0].dtype == torch.bfloat16:
            stop = min(-(-stop // 4) * 4, self.table.shape[1])
        return 0 if self.window is None else max(
            0, min(step.first) + 1 - self.window
        ) // self.block_size, stop

    def _kpos(self, step: Step, first: int, stop: int) -> Tensor:
        """Positions of the slots in those columns, -1 where a request is not that long: [R,S]."""
        j = torch.arange(first * self.block_size, stop * self.block_size, device=step.pos.device)
        return torch.where(j <= step.pos[step.last][:, None], j, -1)


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
        super().__init__(
            blocks,
            block_size,
            table,
            [(*item[:-1], item[-1] + SCALE) for item in items],
            torch.int8,
            device,
            window,
        )
        self.dtype = dtype

    def write(self, step, *items):
        super().write(step, *map(encode, items))

    def _gather(self, *args):
        return [decode(x, self.dtype) for x in super()._gather(*args)]

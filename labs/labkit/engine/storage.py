"""Keys and values in blocks, of which requests that begin alike share the first."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from labkit.caches import PagedCache, as_slice
from labkit.ops import attend, fold, unfold, visible
from labkit.quant.cache import SCALE, decode, encode
from labkit.step import Step

CALL = 512  # slots of a request whose reading takes about as long as one more call


class BlockCache(PagedCache):
    """One layer's blocks; block 0 stays zero, and tables point to it where nothing is. `read` copies whole runs of memory, or none."""

    def __init__(self, blocks: int, block_size: int, table: Tensor, items, dtype, device="cpu", window: int | None = None):
        super().__init__(blocks + 1, block_size, table, items, dtype, device, window)
        self.layout = (*self.layout, window)

    def read(self, step, lead: int = 0):
        """As any cache; without the first `lead` blocks of each request."""
        first, stop = self._span(step)
        return *self._gather(step, max(first, lead), stop), step.once((*self.layout, "kpos", lead), lambda: self._kpos(step, lead))

    def _gather(self, step, first: int, stop: int, rows: int | None = None) -> list[Tensor]:
        """The blocks in those columns of the table, of the first `rows` requests: [R,S,G,E] of each item."""
        at = step.once((*self.layout, "places", first, rows), lambda: self._places(step.rows[:rows], first, stop))
        if isinstance(at, slice):
            return [b[None, :, at].transpose(1, 2) for b in self.buffers]
        R, S = len(step.rows[:rows]), (stop - first) * self.block_size
        return [b.view(-1, self.block_size, b.shape[2]).index_select(0, at[len(b)]).view(R, len(b), S, -1).transpose(1, 2) for b in self.buffers]

    def _places(self, rows: Tensor, first: int, stop: int) -> slice | dict[int, Tensor]:
        """Slots, if they are one request's and side by side. Else the runs to copy from a buffer of G heads: by request, head and block."""
        blocks, size = self.table[rows, first:stop], self.block_size  # [R,M]
        if len(blocks) == 1 and isinstance(run := as_slice(blocks[0].tolist(), blocks), slice):
            return slice(run.start * size, run.stop * size)
        return {G: (torch.arange(G, device=rows.device)[:, None] * self.blocks + blocks[:, None]).flatten() for G in {len(b) for b in self.buffers}}

    def copy(self, source: int, target: int) -> None:
        for b in self.buffers:
            blocks = b.unflatten(-2, (self.blocks, self.block_size))
            blocks[:, target] = blocks[:, source]

    def attend(self, q: Tensor, step: Step, scale: float, window: int | None = None, sinks: Tensor | None = None) -> Tensor:
        """`ops.attend` over all that the step's requests hold: q [N,H,E] -> [N,H,Ev].

        Blocks that all of them begin with are read once, for the queries of all (Juravsky et al. 2024, Hydragen). The two parts of
        each softmax are put together by the sums they would have divided by, as in online softmax.
        """
        lead = step.once((*self.layout, "lead"), lambda: self._lead(step)) if sinks is None else 0
        own, weights = [], []
        for part in step.once("pieces", lambda: pieces(step)):
            k, v, kpos = self.read(part, lead)
            k, v = k.to(q.dtype), v.to(q.dtype)
            if not lead:
                own.append(attend(q[part.tokens], k, v, kpos, part, scale, window, sinks))
                continue
            G, H = k.shape[2], q.shape[1]
            mask = part.once((*self.layout, "mask", H // G), lambda: visible(kpos, part, None, q.dtype, H // G))  # noqa: B023
            out, weight = _attend_in_part(fold(q[part.tokens], len(part.rows), G), k, v, mask, scale)
            own.append(unfold(out, H)), weights.append(unfold(weight, H))
        own = torch.cat(own) if len(own) > 1 else own[0]
        if not lead:
            return own
        k, v = (x.to(q.dtype) for x in self._gather(step, 0, lead, 1))
        shared, weight = (unfold(x, q.shape[1]) for x in _attend_in_part(fold(q, 1, k.shape[2]), k, v, None, scale))
        return own.lerp_(shared, (weight - torch.cat(weights)).sigmoid().to(q.dtype))

    def _span(self, step: Step) -> tuple[int, int]:
        """The table's columns, first to stop, that the step's requests may look at."""
        stop = -(-max(step.context) // self.block_size)
        if self.buffers[0].dtype == torch.bfloat16:  # a kernel is built, and kept, per key length: offer it few
            stop = min(-(-stop // 4) * 4, self.table.shape[1])
        return 0 if self.window is None else max(0, min(step.first) + 1 - self.window) // self.block_size, stop

    def _kpos(self, step: Step, lead: int = 0) -> Tensor:
        """Positions of the slots in those columns, -1 where a request is not that long: [R,S]."""
        first, stop = self._span(step)
        j = torch.arange(max(first, lead) * self.block_size, stop * self.block_size, device=step.pos.device)
        return torch.where(j <= step.pos[step.last][:, None], j, -1)

    def _lead(self, step: Step) -> int:
        """How many leading blocks all requests of the step share, every one older than all its queries. 0 where that saves nothing."""
        if len(step.rows) == 1 or self.window is not None or self.table.device.type != "cpu":  # whose kernel tells its sums
            return 0
        table = self.table[step.rows, : min(step.first) // self.block_size]
        return int((table == table[0]).all(0).cumprod(0).sum())


def pieces(step: Step) -> list[Step]:
    """Parts of the step whose requests bring equally many tokens and hold about as many: what is read is padded to the longest."""
    def cut(part: Step) -> list[Step]:
        longest = np.maximum.accumulate(part.context)
        saved = (longest[-1] - longest[:-1]) * np.arange(1, len(longest))  # slots not read, if the part ends after the i-th request
        if not len(saved) or saved.max() < CALL:
            return [part]
        i = int(saved.argmax()) + 1
        return cut(part.cut(0, i)) + cut(part.cut(i, len(longest)))

    return [piece for part in step.parts for piece in cut(part)]


def _attend_in_part(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention of q [R,G,c,E] to some of its keys [R,S,G,E], and the log of what its softmax divided by, [R,G,c,1]."""
    out, log = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale)
    return out, log[..., None]


class Int8Blocks(BlockCache):
    """Blocks in 8-bit codes, each head's vector with its own scale (see `quant.cache`); read as a copy in `dtype`."""

    def __init__(self, blocks: int, block_size: int, table: Tensor, items, dtype, device="cpu", window: int | None = None):
        super().__init__(blocks, block_size, table, [(*item[:-1], item[-1] + SCALE) for item in items], torch.int8, device, window)
        self.dtype = dtype

    def write(self, step, *items):
        super().write(step, *map(encode, items))

    def _gather(self, *args):
        return [decode(x, self.dtype) for x in super()._gather(*args)]

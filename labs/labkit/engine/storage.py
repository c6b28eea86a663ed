"""Keys and values in blocks, attended to where they lie: the queries, which are small, move to the keys, which are not."""
from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from labkit.caches import PagedCache, SlotCache, _positions
from labkit.ops import _mask, attend
from labkit.step import Step


class BlockCache(PagedCache):
    """One layer's blocks `[blocks, ..., block_size, E]` per item; block 0 stays zero, and tables point to it where nothing is.

    `read` gathers a request's blocks, as any paged cache can. For a batch of decodes that copy costs more than attention itself,
    so `attend` scores every block in place with the queries of the request that holds it, and a block that several hold with all
    their queries at once: a shared prefix is read once per step, not once per request (Juravsky et al. 2024, Hydragen).
    """

    def __init__(self, blocks: int, block_size: int, table: Tensor, items, dtype, device="cpu", window: int | None = None):
        SlotCache.__init__(self, block_size, items, dtype, device)
        self.buffers = [b.expand(blocks + 1, *b.shape).contiguous() for b in self.buffers]
        self.blocks, self.block_size, self.table, self.window = blocks + 1, block_size, table, window
        self.layout = ("blocks", id(table), window)

    def write(self, step, *items):
        at = step.once(self.layout[:2], lambda: self._slots(step))
        block, offset = at // self.block_size, at % self.block_size
        for buffer, x in zip(self.buffers, items):
            if x.dim() == 3:  # [N,G,E]
                G = x.shape[1]
                lines = step.once((*self.layout[:2], G), lambda: ((block[:, None] * G + torch.arange(G, device=at.device))  # noqa: B023
                                                                  * self.block_size + offset[:, None]).flatten())
                buffer.view(-1, x.shape[2]).index_copy_(0, lines, x.reshape(-1, x.shape[2]).to(buffer.dtype))
            else:
                buffer[block, ..., offset, :] = x.to(buffer.dtype)

    def read(self, step):
        first, stop = self._span(step)
        blocks = step.once((*self.layout, "read"), lambda: self.table[step.rows, first:stop])  # [R,M]
        views = [b.movedim(0, -3)[..., blocks, :, :].flatten(-3, -2).movedim((-3, -2), (0, 1)) for b in self.buffers]
        return *views, self._kpos(step, first, stop)

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        for source, target in pairs:
            for b in self.buffers:
                b[target] = b[source]

    def attend(self, q: Tensor, part: Step, scale: float, window: int | None = None) -> Tensor:
        """`ops.attend` over what `part`'s requests hold: q [N,H,E] -> [N,H,Ev]."""
        plan = part.once((*self.layout, "plan"), lambda: self._plan(part))
        if plan is None:
            k, v, kpos = self.read(part)
            return attend(q, k.to(q.dtype), v.to(q.dtype), kpos, part, scale, window)
        K, V = self.buffers  # [blocks,G,block,E]
        R, T, G, M, size, hi, lo = len(part.rows), part.T, K.shape[1], plan.M, self.block_size, plan.hi, plan.lo
        share = q.shape[1] // G
        c = share * T  # queries per key head
        mask = part.once((*self.layout, "mask", share), lambda: _mask(plan.kpos, part, window, K.dtype, share))  # [R,1,c,S]
        x = (q * scale).to(K.dtype).view(R, T, G, share, -1).transpose(1, 2).transpose(2, 3).reshape(R, G, c, -1)
        scores = x.new_empty(R, G, c, M, size)
        own = torch.bmm(x.index_select(0, plan.owner).flatten(0, 1), K[:hi].flatten(0, 1).transpose(1, 2))
        scores[:, :, :, lo:] = own.view(hi, -1).index_select(0, plan.block).view(R, M - lo, G, c, size).permute(0, 2, 3, 1, 4)
        for rows, a, b, blocks in plan.shared:
            keys = K.index_select(0, blocks).transpose(0, 1).flatten(1, 2)  # [G,P,E]
            many = x[rows].transpose(0, 1).flatten(1, 2) @ keys.transpose(1, 2)  # [G,R'*c,P]
            scores[rows, :, :, a:b] = many.view(G, -1, c, b - a, size).transpose(0, 1)
        p = scores.flatten(3).add_(mask).softmax(-1).view(R, G, c, M, size)
        own = p[:, :, :, lo:].permute(0, 3, 1, 2, 4).reshape(R * (M - lo), -1).index_select(0, plan.pair).view(hi * G, c, size)
        own = torch.bmm(own, V[:hi].flatten(0, 1)).view(hi, -1).index_select(0, plan.block)
        out = own.view(R, M - lo, G, c, -1).sum(1)
        for rows, a, b, blocks in plan.shared:
            values = V.index_select(0, blocks).transpose(0, 1).flatten(1, 2)
            many = p[rows, :, :, a:b].flatten(3).transpose(0, 1).flatten(1, 2) @ values
            out[rows] += many.view(G, -1, c, values.shape[2]).transpose(0, 1)
        return out.view(R, G, share, T, -1).permute(0, 3, 1, 2, 4).reshape(R * T, q.shape[1], -1).to(q.dtype)

    def _span(self, step: Step) -> tuple[int, int]:
        """The table's columns that the step's requests may look at."""
        stop = -(-max(step.context) // self.block_size)
        if self.buffers[0].dtype == torch.bfloat16:  # a kernel is built, and kept, per key length: offer it few
            stop = min(-(-stop // 4) * 4, self.table.shape[1])
        return 0 if self.window is None else max(0, min(step.first) + 1 - self.window) // self.block_size, stop

    def _kpos(self, step: Step, first: int, stop: int) -> Tensor:
        """Positions of the slots of columns first to stop: -1 where a request is not that long."""
        size = self.block_size
        return step.once((*self.layout, "kpos"), lambda: _positions(step, stop * size)[:, first * size :].contiguous())

    def _plan(self, part: Step) -> SimpleNamespace | None:
        """Which block is scored by whose queries. None where gathering is cheaper: few requests, or few blocks among many.

        owner [hi]: the request that alone holds a block · pair [hi]: where its scores go, as request * columns + column ·
        block [pairs]: the inverse, 0 where a request has no block of its own · shared: (requests, columns a to b, blocks) of each group.
        """
        if len(self.buffers) != 2 or self.buffers[0].dim() != 4:
            return None
        R, (first, stop), size = len(part.rows), self._span(part), self.block_size
        table = self.table[part.rows, first:stop]  # [R,M]
        context = torch.tensor(part.context, device=table.device)
        table = table * (torch.arange(first, stop, device=table.device) * size < context[:, None])  # blocks reserved ahead are not read
        count = torch.bincount(table.flatten(), minlength=self.blocks)
        count[0] = 0
        alone = count[table] == 1
        groups, lo = self._groups(table, count)
        own = torch.where(alone, table, 0)
        hi = min(-(-(int(own.max()) + 1) // 64) * 64, self.blocks)
        if R == 1 or 2 * int(alone.sum()) < hi and not (groups and R * lo > hi):
            return None
        lo = min(lo, stop - first - 1)
        r, m = alone[:, lo:].nonzero(as_tuple=True)
        owner, pair = table.new_zeros(hi), table.new_zeros(hi)
        owner[own[r, m + lo]], pair[own[r, m + lo]] = r, r * (stop - first - lo) + m
        return SimpleNamespace(M=stop - first, hi=hi, lo=lo, owner=owner, pair=pair, block=own[:, lo:].flatten(), shared=groups,
                               kpos=self._kpos(part, first, stop))

    def _groups(self, table: Tensor, count: Tensor) -> tuple[list, int]:
        """Blocks held by the same several requests: (requests, first column, last column + 1, blocks); and the columns all share."""
        groups, holders, lo = [], {}, 0
        R, M = table.shape
        for m in range(M if bool((count > 1).any()) else 0):  # a shared block stands in the same column of all its holders
            column = table[:, m].tolist()
            by_block: dict[int, list[int]] = {}
            for r, b in enumerate(column):
                by_block.setdefault(b, []).append(r)
            many = {b: rows for b, rows in by_block.items() if b and len(rows) > 1}
            if not many:
                break  # what follows differs too
            lo += len(by_block) == 1
            for b, rows in many.items():
                holders.setdefault(tuple(rows), []).append((m, b))
        for rows, blocks in holders.items():
            index = slice(None) if len(rows) == R else torch.tensor(rows, device=table.device)
            groups.append((index, blocks[0][0], blocks[-1][0] + 1, torch.tensor([b for _, b in blocks], device=table.device)))
        return groups, lo

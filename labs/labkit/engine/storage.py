"""Keys and values in blocks, attended to where they lie: the queries, which are small, move to the keys, which are not."""
from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from labkit.caches import PagedCache
from labkit.ops import _mask, attend
from labkit.quant.cache import SCALE, decode, encode
from labkit.step import Step


class BlockCache(PagedCache):
    """One layer's blocks `[blocks, G, block_size, E]` per item; block 0 stays zero, and tables point to it where nothing is.

    `read` gathers a request's blocks. In a batch of decodes that copy costs more than attention itself, so `attend` scores each
    block in place, with the queries of the request that holds it; and a block that several hold with the queries of all of them:
    a shared prefix is read once per step, not once per request (Juravsky et al. 2024, Hydragen).
    """

    def __init__(self, blocks: int, block_size: int, table: Tensor, items, dtype, device="cpu", window: int | None = None):
        self.buffers = [torch.zeros(blocks + 1, *item[:-1], block_size, item[-1], dtype=dtype, device=device) for item in items]
        self.blocks, self.block_size, self.table, self.window = blocks + 1, block_size, table, window
        self.layout = ("blocks", id(table), window)

    def write(self, step, *items):
        for buffer, x in zip(self.buffers, items):
            at = step.once((*self.layout, x.shape[1]), lambda: self._lines(step, x.shape[1]))  # noqa: B023
            buffer.view(-1, x.shape[2]).index_copy_(0, at, x.reshape(-1, x.shape[2]).to(buffer.dtype))

    def read(self, step):
        first, stop = self._span(step)
        blocks = step.once((*self.layout, "read"), lambda: self.table[step.rows, first:stop])  # [R,M]
        views = [b.transpose(0, 1)[:, blocks].flatten(2, 3).movedim(0, 2) for b in self.buffers]  # [R,S,G,E]
        return *views, step.once((*self.layout, "kpos"), lambda: self._kpos(step))

    def copy(self, source: int, target: int) -> None:
        for b in self.buffers:
            b[target] = b[source]

    def attend(self, q: Tensor, part: Step, scale: float, window: int | None = None, sinks: Tensor | None = None) -> Tensor:
        """`ops.attend` over all that the requests of `part` hold: q [N,H,E] -> [N,H,Ev]."""
        plan = part.once((*self.layout, "plan"), lambda: self._plan(part))
        if plan is None or sinks is not None:
            k, v, kpos = self.read(part)
            return attend(q, k.to(q.dtype), v.to(q.dtype), kpos, part, scale, window, *(() if sinks is None else (sinks,)))
        (K, V), R, M, lo, n = self.buffers, len(part.rows), plan.columns, plan.lo, len(plan.owner)
        (N, H, _), (_, G, size, _) = q.shape, K.shape
        share, c = H // G, N // R * (H // G)  # query heads and queries per key head
        mask = part.once((*self.layout, "mask", share), lambda: _mask(self._kpos(part), part, window, K.dtype, share))  # [R,1,c,S]
        x = (q * scale).to(K.dtype).view(R, -1, G, share, q.shape[2]).permute(0, 2, 3, 1, 4).reshape(R, G, c, -1)
        scores = x.new_empty(R, G, c, M, size)
        own = torch.bmm(x.index_select(0, plan.owner).flatten(0, 1), K[plan.where].flatten(0, 1).transpose(1, 2))  # [n*G,c,size]
        scores[:, :, :, lo:] = own.view(n, -1).index_select(0, plan.block).view(R, M - lo, G, c, size).permute(0, 2, 3, 1, 4)
        for rows, columns, blocks in plan.shared:
            keys = K.index_select(0, blocks).transpose(0, 1).flatten(1, 2)  # [G,P,E]
            many = torch.bmm(x[rows].transpose(0, 1).flatten(1, 2), keys.transpose(1, 2))  # [G,R'*c,P]
            scores[rows, :, :, columns] = many.view(G, -1, c, len(blocks), size).transpose(0, 1)
        p = scores.flatten(3).add_(mask).softmax(-1).view(R, G, c, M, size)
        own = p[:, :, :, lo:].permute(0, 3, 1, 2, 4).reshape(R * (M - lo), -1).index_select(0, plan.pair).view(n * G, c, size)
        own = torch.bmm(own, V[plan.where].flatten(0, 1)).view(n, -1).index_select(0, plan.block)  # [R*(M-lo),G*c*Ev]
        out = own.view(R, M - lo, G, c, -1).sum(1)
        for rows, columns, blocks in plan.shared:
            values = V.index_select(0, blocks).transpose(0, 1).flatten(1, 2)  # [G,P,Ev]
            many = torch.bmm(p[rows, :, :, columns].flatten(3).transpose(0, 1).flatten(1, 2), values)
            out[rows] += many.view(G, -1, c, values.shape[2]).transpose(0, 1)
        return out.view(R, G, share, N // R, -1).permute(0, 3, 1, 2, 4).reshape(N, H, -1).to(q.dtype)

    def _lines(self, step: Step, G: int) -> Tensor:
        """Where the step's tokens are written, if a buffer is lines of E: [N*G]."""
        slot, heads = self._slots(step)[:, None], torch.arange(G, device=step.pos.device)
        return ((slot // self.block_size * G + heads) * self.block_size + slot % self.block_size).flatten()

    def _span(self, step: Step) -> tuple[int, int]:
        """The table's columns, first to stop, that the step's requests may look at."""
        stop = -(-max(step.context) // self.block_size)
        if self.buffers[0].dtype == torch.bfloat16:  # a kernel is built, and kept, per key length: offer it few
            stop = min(-(-stop // 4) * 4, self.table.shape[1])
        return 0 if self.window is None else max(0, min(step.first) + 1 - self.window) // self.block_size, stop

    def _kpos(self, step: Step) -> Tensor:
        """Positions of the slots in those columns, -1 where a request is not that long: [R,S]."""
        first, stop = self._span(step)
        j = torch.arange(first * self.block_size, stop * self.block_size, device=step.pos.device)
        return torch.where(j <= step.pos[step.last][:, None], j, -1)

    def _plan(self, part: Step) -> SimpleNamespace | None:
        """Which block meets whose queries. None where gathering is as cheap: one request; or where this is not attention.

        where: the blocks held by one request each, in place as a slice, or copied if they are few among many · owner: that request ·
        pair: where its scores go (request * columns + column) · block: the inverse, 0 if a request has no block of its own there ·
        shared: (requests, columns, blocks) · lo: leading columns that all requests share.
        """
        R, (first, stop) = len(part.rows), self._span(part)
        if R == 1 or len(self.buffers) == 1 or self.table.is_cuda:
            return None
        table = self.table[part.rows, first:stop] * (self._kpos(part)[:, :: self.block_size] >= 0)  # [R,M]; blocks reserved ahead drop out
        holders: dict[tuple, list] = {}
        for column, blocks in enumerate(table.t().tolist()):  # a shared block stands in the same column of all its holders
            rows: dict[int, list] = {}
            for r, b in enumerate(blocks):
                rows.setdefault(b, []).append(r)
            for b, among in rows.items():
                if b and len(among) > 1:
                    holders.setdefault(tuple(among), []).append((column, b))
        lo = min(len(holders.get(tuple(range(R)), ())), stop - first - 1)
        r, m = ((torch.bincount(table.flatten(), minlength=self.blocks)[table] == 1) & (table > 0)).nonzero(as_tuple=True)
        at, size = table[r, m], lambda n: -(-n // 32) * 32  # few sizes: in bf16 each has its own kernel
        n = min(size((int(at.max()) if len(at) else 0) + 1), self.blocks)
        where = slice(n)
        if n > 2 * size(len(at) + 1):
            n = size(len(at) + 1)
            where, at = torch.cat([at.new_zeros(n - len(at)), at]), torch.arange(n - len(at), n)
        owner, pair, block = table.new_zeros(n), table.new_zeros(n), table.new_zeros(R * (stop - first - lo))
        owner[at], pair[at] = r, r * (stop - first - lo) + m - lo
        block[pair[at]] = at
        shared = [(slice(None) if len(rows) == R else torch.tensor(rows), slice(blocks[0][0], blocks[-1][0] + 1),
                   torch.tensor([b for _, b in blocks])) for rows, blocks in holders.items()]
        return SimpleNamespace(columns=stop - first, lo=lo, where=where, owner=owner, pair=pair, block=block, shared=shared)


class Int8Blocks(BlockCache):
    """Blocks in 8-bit codes, each head's vector with its own scale (see `quant.cache`). Read as a copy in `dtype`, never in place."""

    def __init__(self, blocks: int, block_size: int, table: Tensor, items, dtype, device="cpu", window: int | None = None):
        super().__init__(blocks, block_size, table, [(*item[:-1], item[-1] + SCALE) for item in items], torch.int8, device, window)
        self.dtype = dtype

    def write(self, step, *items):
        super().write(step, *map(encode, items))

    def read(self, step):
        *items, kpos = super().read(step)
        return *(decode(x, self.dtype) for x in items), kpos

    def _plan(self, part):
        return None

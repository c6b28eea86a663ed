"""What a decode remembers. A cache is an index map: it says in which slot token `t` of row `r` lives.

    static   slot = r * capacity + t                              one row per request, reserved in full
    paged    slot = table[r, t // block] * block + t % block      blocks handed out on demand, shared by a table
    none     nothing is kept                                      a step sees only its own tokens

Writing is one scatter by slot. Reading is not token by token: static returns a slice without a copy, paged gathers whole
blocks. Every read also returns the *position* of each slot (-1: empty), and one rule in `ops.attend` turns positions into
the mask. That rule covers causality, padding and rejected drafts, so none of them is a case here.

Items are the shapes kept per token: `((G, E), (G, E))` for keys and values. In memory the slots stand before the last axis, so
that a head's keys lie one after another: `[G, slots, E]`. With the heads inside the slots, a decode step of 48 requests spends
more than twice as long in attention, because it reads 256 bytes here and 256 there.
"""
from __future__ import annotations

import torch
from torch import Tensor

from labkit.step import Step


class SlotCache:
    """Flat slots, one buffer `[..., slots, E]` per item `(..., E)`. Subclasses say where a token lives and how to read a row."""

    def __init__(self, slots: int, items, dtype=torch.float32, device="cpu"):
        # zeros, not empty: a masked slot still meets the values with weight 0, and 0 * NaN is NaN
        self.buffers = [torch.zeros(*item[:-1], slots, item[-1], dtype=dtype, device=device) for item in items]

    @property
    def allocated_bytes(self) -> int:
        return sum(b.numel() * b.element_size() for b in self.buffers)

    def write(self, step: Step, *items: Tensor) -> None:
        """Store items `[N, *item]` of the step's tokens. ValueError if a token has no slot."""
        at = step.once(("slots", self.layout), lambda: self._slots(step))
        for buffer, x in zip(self.buffers, items):
            buffer.index_copy_(-2, at, x.movedim(0, -2))

    def read(self, step: Step) -> tuple[Tensor, ...]:
        """All that the step's requests may attend to: items `[R, S, *item]`, then positions `[R, S]` (-1 = empty)."""
        raise TypeError(f"{type(self).__name__} does not say how it is read")

    def _slots(self, step: Step) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say where a token lives")

    def _check(self, step: Step, rows: int, capacity: int) -> None:
        if max(step.context) > capacity:
            raise ValueError(f"a request reaches {max(step.context)} tokens, but a cache row holds {capacity}")
        if not 0 <= min(step.row_list) <= max(step.row_list) < rows:
            raise ValueError(f"the step names cache row {max(step.row_list)}, but the rows are 0 to {rows - 1}")


def _tokens_first(view: Tensor) -> Tensor:
    """[..., R, S, E] as memory has it -> [R, S, ..., E], without a copy."""
    return view.movedim((-3, -2), (0, 1))


def _positions(step: Step, S: int) -> Tensor:
    """Slot j of a row holds position j, if the request is that long. [R,S]"""
    j = torch.arange(S, device=step.pos.device)
    context = step.pos[step.last] + 1
    return torch.where(j < context[:, None], j, -1)


class StaticCache(SlotCache):
    """`rows` requests of up to `capacity` tokens each, reserved up front."""

    def __init__(self, rows: int, capacity: int, items, dtype=torch.float32, device="cpu"):
        super().__init__(rows * capacity, items, dtype, device)
        self.rows, self.capacity, self.layout = rows, capacity, ("static", rows, capacity)

    def _slots(self, step):
        self._check(step, self.rows, self.capacity)
        return step.token_rows * self.capacity + step.pos

    def read(self, step):
        S = max(step.context)
        if self.buffers[0].dtype != torch.float32 and self.buffers[0].device.type == "cpu":
            S = min(-(-S // 64) * 64, self.capacity)  # oneDNN builds, and keeps, a bf16 kernel per key length: offer it few
        rows = step.once("rows", lambda: _as_slice(step.row_list, step.rows))
        views = [_tokens_first(b.unflatten(-2, (self.rows, self.capacity))[..., rows, :S, :]) for b in self.buffers]
        return *views, step.once(("kpos", S), lambda: _positions(step, S))


class PagedCache(SlotCache):
    """Blocks of `block_size` tokens; `table [rows, M]` says which block holds which part of which request.

    All layers of a model share one table, as in vLLM (Kwon et al. 2023, section 4.1).
    """

    def __init__(self, blocks: int, block_size: int, table: Tensor, items, dtype=torch.float32, device="cpu"):
        super().__init__(blocks * block_size, items, dtype, device)
        self.blocks, self.block_size, self.table, self.layout = blocks, block_size, table, ("paged", id(table), block_size)

    def _slots(self, step):
        self._check(step, len(self.table), self.table.shape[1] * self.block_size)
        return self.table[step.token_rows, step.pos // self.block_size] * self.block_size + step.pos % self.block_size

    def read(self, step):
        M = -(-max(step.context) // self.block_size)
        blocks = step.once(("blocks", self.layout), lambda: self.table[step.rows, :M])  # [R,M]
        views = [_tokens_first(b.unflatten(-2, (self.blocks, self.block_size))[..., blocks, :, :].flatten(-3, -2)) for b in self.buffers]
        S = M * self.block_size
        return *views, step.once(("kpos", S), lambda: _positions(step, S))


class NoCache:
    """Keeps nothing past the step: what the naive loop runs on, and what training runs on."""

    allocated_bytes = 0

    def write(self, step, *items):
        self._items = items

    def read(self, step):
        R = len(step.rows)
        views = [x[step.tokens].view(R, step.T, *x.shape[1:]) for x in self._items]
        return *views, step.once("kpos", lambda: step.pos.view(R, step.T))


def _as_slice(rows: list[int], index: Tensor):
    """Neighbouring rows in order are a slice, which reads without a copy; any others must be gathered."""
    lo = rows[0]
    return slice(lo, lo + len(rows)) if rows == list(range(lo, lo + len(rows))) else index


def make_cache(kind: str, items, rows: int, capacity: int, *, table=None, block_size=16, dtype=torch.float32, device="cpu"):
    """One layer's cache of the kind "static", "paged" or "none"."""
    if kind == "static":
        return StaticCache(rows, capacity, items, dtype, device)
    if kind == "paged":
        return PagedCache(int(table.max()) + 1, block_size, table, items, dtype, device)
    if kind == "none":
        return NoCache()
    raise ValueError(f"no cache is called {kind!r}: choose none, static or paged")

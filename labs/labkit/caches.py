"""What a decode remembers.

A cache is an index map: it says in which slot token `t` of row `r` lives.

    static   slot = r * capacity + t                          one row per request, reserved in full
    ring     slot = r * capacity + t % capacity               a sliding layer's: old tokens go
    paged    slot = table[r, t // block] * block + t % block  blocks on demand, shared by a table
    none     nothing is kept                                  a step sees only its own tokens

A layer writes what a step adds, then attends to all that its requests hold. Writing is one scatter
by slot. Attending is in place where there is a kernel for it, which needs no more than the map.
Else the cache is read for torch, and reading is not token by token: static returns a slice without
a copy, paged gathers whole blocks, ring returns its buffer, less what lies before a layer's
`window`. Every read also returns each slot's *position* (below 0: empty), which one rule in
`ops.attend` turns into a mask. The rule covers causality, padding, windows, the ring's wrap and
rejected drafts, so none of them is a case here.

Items are the shapes kept per token: `((G, E), (G, E))` for keys and values, `((1, C + Er),)` for
MLA's latent. In memory a head's slots lie one after another, `[G, slots, E]`: with the heads inside
the slots, attention of 48 requests takes twice as long. A recurrent layer keeps no tokens but a
state: `StateCache` is that one exception, and going back means a snapshot.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

from labkit import ops
from labkit.kernels import attention, lore
from labkit.step import Step


class Cache:
    """What one attention layer remembers of its requests.

    Who wraps a cache subclasses this one and passes on `write`, `read` and `allocated_bytes`.
    """

    @property
    def allocated_bytes(self) -> int:
        return 0

    def write(self, step: Step, *items: Tensor) -> None:
        """Store items `[N, *item]` of the step's tokens. ValueError if a token has no slot."""
        raise TypeError(f"{type(self).__name__} does not say how it is written")

    def read(self, step: Step) -> tuple[Tensor, ...]:
        """All that the step's requests may attend to: items `[R, S, *item]`, then positions `[R,
        S]` (below 0: empty).
        """
        raise TypeError(f"{type(self).__name__} does not say how it is read")

    def attend(
        self,
        q: Tensor,
        step: Step,
        scale: float,
        window: int | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Softmax attention of a step that is written to all that its requests hold.

        q [N,H,E] · sinks [H] -> [N,H,Ev]. Causal, within `window`.
        """
        return step.by_parts(
            lambda part: ops.attend(q[part.tokens], *self.read(part), part, scale, window, sinks)
        )


class SlotCache(Cache):
    """Flat slots, one buffer `[..., slots, E]` per item `(..., E)`.

    Subclasses say where a token lives, and how a row is read.
    """

    layout: tuple  # what makes two caches send a token to the same slot

    def __init__(self, slots: int, items, dtype=torch.float32, device: torch.device | str = "cpu"):
        self.buffers = [_zeros((*item[:-1], slots, item[-1]), dtype, device) for item in items]

    @property
    def allocated_bytes(self) -> int:
        return sum(b.numel() * b.element_size() for b in self.buffers)

    def write(self, step, *items):
        self.check(step)
        at = step.once(("slots", self.layout), lambda: self._slots(step))
        for buffer, x in zip(self.buffers, items):
            buffer.index_copy_(-2, at, x.movedim(0, -2).to(buffer.dtype))

    def attend(self, q, step, scale, window=None, sinks=None):
        # of prompts with nothing before them nothing need be read from the cache
        reads = any(step.first) or not lore.torch_attends_prompts_faster()
        if reads and attention.takes(q, *self.buffers):
            return attention.attend(q, self.in_place(), step, scale, window, sinks)
        return super().attend(q, step, scale, window, sinks)

    @property
    def plain(self) -> bool:
        """It is written and attended to as here, so a kernel may do both by the index map alone."""
        kind = type(self)
        return kind.write is SlotCache.write and kind.attend is SlotCache.attend

    def check(self, step: Step) -> None:
        """ValueError if a token of the step has no slot."""
        raise TypeError(f"{type(self).__name__} does not say where a token lives")

    def _slots(self, step: Step) -> Tensor:
        """The slot of each of the step's tokens, [N]."""
        raise TypeError(f"{type(self).__name__} does not say where a token lives")

    def in_place(self) -> attention.Slots:
        """The index map, for a kernel that walks over the buffers of keys and values."""
        raise TypeError(f"{type(self).__name__} does not say where a token lives")

    def _check(self, step: Step, rows: int, capacity: int) -> None:
        if max(step.context) > capacity:
            raise ValueError(
                f"a request reaches {max(step.context)} tokens, but a cache row holds {capacity}"
            )
        if not 0 <= min(step.row_list) <= max(step.row_list) < rows:
            raise ValueError(
                f"the step names cache row {max(step.row_list)}, but the rows are 0 to {rows - 1}"
            )


def _zeros(shape, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """A buffer, cleared: masked slots meet the values too, with weight 0, and 0 * NaN is NaN.

    On a CPU a page of it takes memory, and time to clear, only once something is written there.
    """
    size = math.prod(shape) * dtype.itemsize
    if size == 0 or torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape)


def _tokens_first(view: Tensor) -> Tensor:
    """[..., R, S, E] as memory has it -> [R, S, ..., E], without a copy."""
    return view.movedim((-3, -2), (0, 1))


def _positions(step: Step, start: int, stop: int) -> Tensor:
    """The positions from `start` to `stop`, -1 where a request is not that long: [R, stop-start].

    Slots in this order hold these positions, in every cache but a ring.
    """

    def make():
        j = torch.arange(start, stop, device=step.pos.device)
        return torch.where(j < _context(step), j, -1)

    return step.once(("kpos", start, stop), make)


def _context(step: Step) -> Tensor:
    return (step.pos[step.last] + 1)[:, None]


def _oldest(step: Step, window: int | None) -> int:
    """The first position that any query of the step may look at."""
    return 0 if window is None else max(0, min(step.first) + 1 - window)


class StaticCache(SlotCache):
    """`rows` requests of up to `capacity` tokens each, reserved up front.

    `window`: what its layer looks back on, None = all.
    """

    def __init__(
        self,
        rows: int,
        capacity: int,
        items,
        dtype=torch.float32,
        device: torch.device | str = "cpu",
        window: int | None = None,
    ):
        super().__init__(rows * capacity, items, dtype, device)
        self.rows = rows
        self.capacity = capacity
        self.window = window
        self.layout = (type(self), rows, capacity)

    def check(self, step):
        self._check(step, self.rows, self.capacity)

    def _slots(self, step):
        return step.token_rows * self.capacity + step.pos

    def in_place(self):
        return attention.Slots.of(*self.buffers, block_size=self.capacity)

    def read(self, step):
        start = _oldest(step, self.window)
        needed = max(step.context) - start
        there = self.capacity - start
        stop = start + lore.keys_to_read(needed, there, self.buffers[0])
        return *self._views(step, start, stop), _positions(step, start, stop)

    def _views(self, step: Step, start: int, stop: int) -> list[Tensor]:
        """Slots `start` to `stop` of the step's rows: [R, stop-start, *item] of each item."""
        rows = step.once("rows", lambda: as_slice(step.row_list, step.rows))
        return [
            _tokens_first(b.unflatten(-2, (self.rows, self.capacity))[..., rows, start:stop, :])
            for b in self.buffers
        ]


class RingCache(StaticCache):
    """Slots that go round: token t overwrites token t - capacity.

    A step writes before it reads, so its last token must not overwrite what its first one still
    looks back on: `capacity >= window + longest_step - 1`, exactly. With `longest_step` 1 a decode
    needs `window` slots, whatever the text.
    """

    def __init__(
        self,
        rows: int,
        capacity: int,
        items,
        dtype=torch.float32,
        device: torch.device | str = "cpu",
        *,
        window: int,
        longest_step: int = 1,
    ):
        self._check_rule(capacity, window, longest_step)
        super().__init__(rows, capacity, items, dtype, device, window)

    @staticmethod
    def _check_rule(capacity: int, window: int, longest_step: int) -> None:
        needed = window + longest_step - 1
        if capacity < needed:
            raise ValueError(
                f"a ring of {capacity} slots can't take steps of {longest_step} tokens with a"
                f" window of {window}: capacity >= window + longest_step - 1 = {needed} is needed"
            )

    def check(self, step):
        self._check_rule(self.capacity, self.window or 0, max(step.lengths))
        self._check(step, self.rows, max(step.context))  # a ring has a slot for every position

    def _slots(self, step):
        return step.token_rows * self.capacity + step.pos % self.capacity

    def read(self, step):
        stop = min(max(step.context), self.capacity)
        kpos = step.once(("ring", self.capacity), lambda: self._newest(step, stop))
        return *self._views(step, 0, stop), kpos

    def _newest(self, step: Step, stop: int) -> Tensor:
        """The newest position that lives in each slot; below 0, none does."""
        newest = _context(step) - 1
        return newest - (newest - torch.arange(stop, device=newest.device)) % self.capacity


class PagedCache(SlotCache):
    """Blocks of `block_size` tokens; `table [rows, M]` says which block holds which part of which
    request.

    All layers of a model share one table, as in vLLM (Kwon et al. 2023, section 4.1).
    """

    def __init__(
        self,
        blocks: int,
        block_size: int,
        table: Tensor,
        items,
        dtype=torch.float32,
        device: torch.device | str = "cpu",
        window: int | None = None,
    ):
        super().__init__(blocks * block_size, items, dtype, device)
        self.blocks = blocks
        self.block_size = block_size
        self.table = table
        self.window = window
        self.layout = ("paged", table, block_size)

    @property
    def capacity(self) -> int:
        """Tokens that a row may reach."""
        return self.table.shape[1] * self.block_size

    def check(self, step):
        self._check(step, len(self.table), self.capacity)

    def _slots(self, step):
        block = self.table[step.token_rows, step.pos // self.block_size]
        return block * self.block_size + step.pos % self.block_size

    def in_place(self):
        return attention.Slots.of(*self.buffers, block_size=self.block_size, table=self.table)

    def read(self, step):
        size = self.block_size
        columns = self._columns(step)
        kpos = _positions(step, columns.start * size, columns.stop * size)
        return *self._gather(step, columns), kpos

    def _columns(self, step: Step) -> slice:
        """The table's columns that the step's requests may look at."""
        size = self.block_size
        first = _oldest(step, self.window) // size
        needed = max(step.context) - first * size
        there = (self.table.shape[1] - first) * size
        read = lore.keys_to_read(needed, there, self.buffers[0])
        return slice(first, first + -(-read // size))

    def _gather(self, step: Step, columns: slice) -> list[Tensor]:
        """The blocks in those columns, put together: [R, S, *item] of each item."""
        blocks = step.once(
            ("blocks", self.layout, columns.start, columns.stop),
            lambda: self.table[step.rows, columns],  # [R,M]
        )
        shape = (self.blocks, self.block_size)
        return [
            _tokens_first(b.unflatten(-2, shape)[..., blocks, :, :].flatten(-3, -2))
            for b in self.buffers
        ]


class NoCache(Cache):
    """Keeps nothing past the step: what the naive loop runs on, and what training runs on."""

    def write(self, step, *items):
        self._items = items

    def read(self, step):
        R = len(step.rows)
        views = [x[step.tokens].view(R, step.T, *x.shape[1:]) for x in self._items]
        return *views, step.once("kpos", lambda: step.pos.view(R, step.T))


def as_slice(rows: list[int], index: Tensor):
    """Neighbouring rows in order are a slice, which reads without a copy; any others must be
    gathered.
    """
    lo = rows[0]
    return slice(lo, lo + len(rows)) if rows == list(range(lo, lo + len(rows))) else index


class StateCache:
    """A recurrent layer's memory: one state per row, as large after a million tokens as after one.

    A request that starts at position 0 starts from zeros. Any other must go on where its row
    stands, because a state can't be rewound: to undo tokens, take a `snapshot` before them,
    `restore` it, and replay those that stay. `items` are the shapes of a row's state; the last is
    kept in fp32, as it is summed up over the whole text.
    """

    def __init__(self, rows: int, items, dtype=torch.float32, device: torch.device | str = "cpu"):
        dtypes = [dtype] * (len(items) - 1) + [torch.float32]
        self.buffers = [
            torch.zeros(rows, *item, dtype=d, device=device) for item, d in zip(items, dtypes)
        ]
        self.length = [0] * rows  # tokens that each row's state has taken in

    allocated_bytes = SlotCache.allocated_bytes

    def read(self, step: Step) -> tuple[Tensor, ...]:
        """The states `[R, *item]` to go on from.

        ValueError if the step does not continue where they stand.
        """
        for row, first in zip(step.row_list, step.first):
            if not 0 <= row < len(self.length):
                raise ValueError(
                    f"the step names cache row {row}, but the rows are 0 to {len(self.length) - 1}"
                )
            if first not in (0, self.length[row]):
                raise ValueError(
                    f"row {row} has taken in {self.length[row]} tokens, so a step can't start at"
                    f" {first}: a recurrent state goes on where it stands; to go back, restore a"
                    " snapshot and replay"
                )
        states = [b[step.rows] for b in self.buffers]
        if 0 in step.first:
            kept = (step.pos[step.cu[:-1].long()] > 0).to(states[0].device)
            states = [torch.where(kept.view(-1, *[1] * (x.dim() - 1)), x, 0) for x in states]
        return tuple(states)

    def write(self, step: Step, *states: Tensor) -> None:
        """Keep the states `[R, *item]` that the step leads to."""
        for buffer, x in zip(self.buffers, states):
            buffer.index_copy_(0, step.rows, x.to(buffer.dtype))
        for row, context in zip(step.row_list, step.context):
            self.length[row] = context

    def snapshot(self, rows: list[int]) -> tuple:
        """A copy of some rows' states, for `restore`."""
        return (
            list(rows),
            [self.length[r] for r in rows],
            [b[list(rows)].clone() for b in self.buffers],
        )

    def restore(self, snapshot: tuple) -> None:
        rows, lengths, states = snapshot
        for buffer, x in zip(self.buffers, states):
            buffer[rows] = x
        for row, n in zip(rows, lengths):
            self.length[row] = n


class NoState(StateCache):
    """Zeros to start from, and nothing kept."""

    def __init__(self, rows: int, items, dtype=torch.float32, device: torch.device | str = "cpu"):
        super().__init__(0, items, dtype, device)

    def read(self, step):
        if any(step.first):
            raise ValueError(
                f"without a cache a step must start at position 0, not {max(step.first)}"
            )
        return tuple(b.new_zeros(len(step.rows), *b.shape[1:]) for b in self.buffers)

    def write(self, step, *states): ...


KINDS = ("none", "static", "paged", "ring")


def make_cache(
    kind: str,
    mixer,
    rows: int,
    capacity: int,
    *,
    table=None,
    block_size=16,
    longest_step=1,
    dtype=torch.float32,
    device: torch.device | str = "cpu",
):
    """The cache of one layer: for what its mixer keeps (`items`), its `window`, and whether it is
    `recurrent`.

    kind: "none", "static" or "paged" (its blocks are those that `table` names), or "ring" for
    sliding layers: others, and rings that would never go round, are static. A recurrent layer has a
    `StateCache`. ValueError for any other kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no cache is called {kind!r}: choose none, static, paged or ring")
    if mixer.recurrent:
        state = NoState if kind == "none" else StateCache
        return state(rows, mixer.items, dtype, device)
    if kind == "none":
        return NoCache()
    if kind == "paged" and table is not None:
        blocks = int(table.max()) + 1
        return PagedCache(blocks, block_size, table, mixer.items, dtype, device, mixer.window)
    ring = 0 if mixer.window is None else mixer.window + longest_step - 1
    if kind == "ring" and mixer.window is not None and ring < capacity:
        return RingCache(
            rows, ring, mixer.items, dtype, device, window=mixer.window, longest_step=longest_step
        )
    return StaticCache(rows, capacity, mixer.items, dtype, device, mixer.window)

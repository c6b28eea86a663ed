"""A step: the tokens that one forward works on, whatever they are.

Tokens of all requests are *packed* back to back, with no padding. A prompt, a chunk of a prompt,
one decoded token and four drafted tokens to verify differ only in how many tokens a request brings
and at which position they start. So the model needs no special case for any of them, and one step
may mix them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Requests(NamedTuple):
    """What a step's tensors say of each request, as numbers of the host: [R] each."""

    rows: list[int]  # its cache row
    first: list[int]  # the position of its first token
    lengths: list[int]  # how many tokens it brings


@dataclass(eq=False)
class Step:
    """N packed tokens of R requests.

    Request r owns tokens `cu[r]:cu[r+1]`, at consecutive positions.

    ids [N] token ids · pos [N] position of each token in its own request · rows [R] cache row of
    each request · cu [R+1] cumulative lengths · known: the same per request, by who has it on the
    host; else it is read back from the device. Raises ValueError when they do not fit together.
    """

    ids: Tensor
    pos: Tensor
    rows: Tensor
    cu: Tensor
    known: InitVar[Requests | None] = None
    start: InitVar[int] = 0  # where this step begins in the step it was cut from

    def __post_init__(self, known: Requests | None, start: int):
        N, R = len(self.ids), len(self.rows)
        if len(self.pos) != N or len(self.cu) != R + 1:
            raise ValueError(
                f"a step of {N} ids and {R} rows needs {N} positions and {R + 1} boundaries, "
                f"not {len(self.pos)} and {len(self.cu)}"
            )
        requests = known or self._read_back()
        self.row_list = requests.rows
        self.first = requests.first
        self.lengths = requests.lengths
        self.tokens = slice(start, start + N)  # where they lie in the step this was cut from
        self._memo = {}

    @classmethod
    def of(cls, requests, device: torch.device | str = "cpu") -> Step:
        """Pack `[(cache row, first position, token ids), …]`."""
        if not requests or not all(len(ids) for _, _, ids in requests):
            raise ValueError(
                "a step needs at least one request, and every request at least one token"
            )
        known = Requests(
            rows=[row for row, _, _ in requests],
            first=[first for _, first, _ in requests],
            lengths=[len(ids) for _, _, ids in requests],
        )
        positions = [range(first, first + n) for first, n in zip(known.first, known.lengths)]

        def as_tensor(numbers) -> Tensor:
            return torch.tensor(numbers, dtype=torch.long, device=device)

        return cls(
            ids=as_tensor([i for _, _, ids in requests for i in ids]),
            pos=as_tensor([p for run in positions for p in run]),
            rows=as_tensor(known.rows),
            cu=as_tensor([0, *accumulate(known.lengths)]),
            known=known,
        )

    def _read_back(self) -> Requests:
        return Requests(
            rows=self.rows.tolist(),
            first=self.pos[self.cu[:-1].long()].tolist(),
            lengths=self.cu.diff().tolist(),
        )

    # -- what follows from these facts, computed when it is first asked for --------------

    @cached_property
    def context(self) -> list[int]:
        """Tokens each request has once this step is written."""
        return [first + n for first, n in zip(self.first, self.lengths)]

    @cached_property
    def token_rows(self) -> Tensor:
        """Cache row of each token, [N]."""
        return self.rows.repeat_interleave(self.cu.diff().long(), output_size=len(self.ids))

    @cached_property
    def last(self) -> Tensor:
        """Packed index of each request's last token, [R]: the logits one samples from."""
        return self.cu[1:].long() - 1

    @property
    def T(self) -> int:
        """Tokens a request brings, when all bring equally many (true of every part)."""
        return self.lengths[0]

    @cached_property
    def parts(self) -> list[Step]:
        """This step, cut where the number of tokens changes: each part is a rectangle [R,T], so it
        needs no padding.
        """
        R = len(self.lengths)
        changes = [r for r in range(1, R) if self.lengths[r] != self.lengths[r - 1]]
        if not changes:
            return [self]
        return [self.cut(i, j) for i, j in pairwise([0, *changes, R])]

    def cut(self, i: int, j: int) -> Step:
        """Requests i to j of this step, and where their tokens lie in it."""
        a = sum(self.lengths[:i])
        b = a + sum(self.lengths[i:j])
        return Step(
            self.ids[a:b],
            self.pos[a:b],
            self.rows[i:j],
            self.cu[i : j + 1] - self.cu[i],
            known=Requests(self.row_list[i:j], self.first[i:j], self.lengths[i:j]),
            start=self.tokens.start + a,
        )

    def by_parts(self, fn: Callable[[Step], Tensor]) -> Tensor:
        """`fn(part)` of every part, [part's N,…], packed again: [N,…]."""
        out = [fn(part) for part in self.parts]
        return out[0] if len(out) == 1 else torch.cat(out)

    def once(self, key, make: Callable):
        """`make()`, computed once per step: masks and slot numbers are the same in every layer.

        A key may hold tensors: it is another key for another tensor, whatever is in it.
        """
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

"""A step: the tokens that one forward works on, whatever they are.

Tokens of all requests are *packed* back to back, with no padding. A prompt, a chunk of a prompt,
one decoded token and four drafted tokens to verify differ only in how many tokens a request brings
and at which position they start. So the model needs no special case for any of them, and one step
may mix them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor


@dataclass(eq=False)
class Step:
    """N packed tokens of R requests.

    Request r owns tokens `cu[r]:cu[r+1]`, at consecutive positions.

    ids [N] token ids · pos [N] position of each token in its own request · rows [R] cache row of
    each request · cu [R+1] cumulative lengths. Raises ValueError when the four do not fit together.
    """

    ids: Tensor
    pos: Tensor
    rows: Tensor
    cu: Tensor

    def __post_init__(self):
        N, R = len(self.ids), len(self.rows)
        if len(self.pos) != N or len(self.cu) != R + 1:
            raise ValueError(
                f"a step of {N} ids and {R} rows needs {N} positions and {R + 1} boundaries, "
                f"not {len(self.pos)} and {len(self.cu)}"
            )
        self.tokens = slice(0, N)  # where this step's tokens lie in the step it was cut from
        self._memo = {}

    @classmethod
    def of(cls, requests, device: torch.device | str = "cpu") -> Step:
        """Pack `[(cache row, first position, token ids), …]`."""
        if not requests or not all(len(ids) for _, _, ids in requests):
            raise ValueError(
                "a step needs at least one request, and every request at least one token"
            )
        lengths = [len(ids) for _, _, ids in requests]
        cu = [0, *accumulate(lengths)]
        as_tensor = lambda xs: torch.tensor(xs, dtype=torch.long, device=device)
        step = cls(
            ids=as_tensor([i for _, _, ids in requests for i in ids]),
            pos=as_tensor(
                [p for (_, first, _), n in zip(requests, lengths) for p in range(first, first + n)]
            ),
            rows=as_tensor([row for row, _, _ in requests]),
            cu=as_tensor(cu),
        )
        # what the host knows already need not be read back from the device
        step.lengths = lengths
        step.first = [f for _, f, _ in requests]
        step.row_list = [r for r, _, _ in requests]
        return step

    # -- the same facts on the host, read once -------------------------------------------
    @cached_property
    def lengths(self) -> list[int]:
        return self.cu.diff().tolist()

    @cached_property
    def first(self) -> list[int]:
        """Position of each request's first token."""
        return self.pos[self.cu[:-1].long()].tolist()

    @cached_property
    def row_list(self) -> list[int]:
        return self.rows.tolist()

    @cached_property
    def context(self) -> list[int]:
        """Tokens each request has once this step is written."""
        return [f + n for f, n in zip(self.first, self.lengths)]

    # -- views ---------------------------------------------------------------------------
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
        cuts = [
            0,
            *(r for r in range(1, len(self.lengths)) if self.lengths[r] != self.lengths[r - 1]),
            len(self.lengths),
        ]
        return [self] if len(cuts) == 2 else [self.cut(i, j) for i, j in pairwise(cuts)]

    def cut(self, i: int, j: int) -> Step:
        """Requests i to j of this step, and where their tokens lie in it."""
        a = sum(self.lengths[:i])
        b = a + sum(self.lengths[i:j])
        part = Step(self.ids[a:b], self.pos[a:b], self.rows[i:j], self.cu[i : j + 1] - self.cu[i])
        part.tokens = slice(self.tokens.start + a, self.tokens.start + b)
        part.lengths = self.lengths[i:j]
        part.first = self.first[i:j]
        part.row_list = self.row_list[i:j]
        return part

    def once(self, key, make):
        """`make()`, computed once per step: masks and slot numbers are the same in every layer."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

"""Keys and values in 8 bits: each head's vector carries its own scale, in the four bytes behind its
codes.

So an 8-bit cache is not another kind of cache. It is any `SlotCache` whose items are E + 4 bytes
wide, with rounding on the way in and multiplying out on the way back. Reading makes a
full-precision copy: what is saved is memory, and on a CPU not time.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from labkit.caches import Cache, make_cache
from labkit.quant.linear import row_codes
from labkit.step import Step

SCALE = 4  # bytes


class Int8Cache(Cache):
    """A cache of `kind` ("static", "paged", …) in 8-bit codes, a scale per token and head; takes
    what `make_cache` takes.
    """

    def __init__(
        self, kind: str, mixer, rows: int, capacity: int, *, dtype=torch.float32, **options
    ):
        wider = SimpleNamespace(
            items=widened(mixer.items), window=mixer.window, recurrent=mixer.recurrent
        )
        self.codes = make_cache(kind, wider, rows, capacity, dtype=torch.int8, **options)
        self.dtype = dtype

    @property
    def allocated_bytes(self) -> int:
        return self.codes.allocated_bytes

    def write(self, step: Step, *items: Tensor) -> None:
        """Round items `[N, *item]` and store them."""
        self.codes.write(step, *map(encode, items))

    def read(self, step: Step) -> tuple[Tensor, ...]:
        """Items `[R, S, *item]` multiplied out, in `dtype`, then positions `[R, S]`."""
        *items, kpos = self.codes.read(step)
        return *(decode(x, self.dtype) for x in items), kpos


def widened(items) -> list[tuple]:
    """The shapes in which items are kept: each vector with room for its scale."""
    return [(*item[:-1], item[-1] + SCALE) for item in items]


def encode(x: Tensor) -> Tensor:
    """[..., E] -> int8 [..., E + 4]: codes in -127 … 127, then the vector's fp32 scale as four
    bytes.
    """
    rows, scale = row_codes(x.reshape(-1, x.shape[-1]).float())
    stored = torch.cat([rows.to(torch.int8), scale.view(torch.int8)], 1)
    return stored.view(*x.shape[:-1], -1)


def decode(stored: Tensor, dtype) -> Tensor:
    """int8 [..., E + 4] -> [..., E]."""
    codes = stored[..., :-SCALE].to(dtype)
    scale = stored[..., -SCALE:].view(torch.float32).to(dtype)
    return codes * scale

"""Where a cache's keys and values lie, for whoever walks over them on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Slots:
    """Where a cache's keys and values lie.

    keys, values [G,slots,E], in blocks of `size` slots. With a table [rows,M], position p of row r
    is in block `table[r, p // size]`; without one it is in block r, which positions go round.
    """

    keys: Tensor
    values: Tensor
    size: int
    table: Tensor | None = None

    def of(self, row: Tensor, position: Tensor) -> Tensor:
        """The slots of these positions of a row."""
        if self.table is None:
            return row * self.size + position % self.size
        return self.table[row, position // self.size] * self.size + position % self.size

"""Linear layers, and how their weights lie in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.kernels import linear as panels
from labkit.kernels import lore
from labkit.kernels.linear import Panels
from labkit.kernels.lore import Blocks, has_bf16

__all__ = ["Linear", "Plain", "can_pack", "has_bf16", "pack"]


class Plain:
    """A weight [out,in], as torch keeps it and every device takes it."""

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if lore.multiplies_better_in_fp32(x):
            bias = None if bias is None else bias.float()
            return F.linear(x.float(), weight.float(), bias).to(x.dtype)
        return F.linear(x, weight, bias)

    def dense(self, weight: Tensor) -> Tensor:
        return weight

    def matrix(self, weight: Tensor, bias: Tensor | None) -> None:
        """No kernel of ours reads it."""


def best_layout(weight: Tensor) -> type[Panels] | type[Blocks] | None:
    """The layout that a CPU likes best for this weight; None where it should stay as it is.

    fp32 goes into panels, for our own kernel. bf16, and fp32 where there is no C compiler, goes
    into oneDNN's blocks.
    """
    if weight.device.type != "cpu" or weight.dim() != 2:
        return None
    if weight.dtype == torch.float32 and not panels.missing():
        return Panels
    return Blocks if lore.has_blocks(weight.dtype) else None


def can_pack(weight: Tensor) -> bool:
    """There is a better layout for this weight than torch's own."""
    return best_layout(weight) is not None


class Linear(nn.Linear):
    """`x @ weight.T + bias`, [N,in] -> [N,out]: nn.Linear that can lay its weight out once as the
    CPU likes it.

    The values stay the same, bit by bit, and so does a state dict. `layout` says how the weight
    lies, and multiplies by it.
    """

    layout: Plain | Panels | Blocks = Plain()

    def __init__(self, d_in: int, d_out: int, bias: bool = False):
        super().__init__(d_in, d_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layout.multiply(x, self.weight, self.bias)

    @property
    def packed(self) -> bool:
        return not isinstance(self.layout, Plain)

    def pack(self) -> None:
        """Lay the weight out as this CPU likes it, if there is such a layout."""
        if self.packed or not (best := best_layout(self.weight)):
            return
        weight = self.weight.detach()
        layout = best(weight)
        self.weight = nn.Parameter(layout.lay(weight), requires_grad=False)
        self.layout = layout

    def dense(self) -> Tensor:
        """The weight [out,in], however it lies."""
        return self.layout.dense(self.weight.detach())

    def matrix(self):
        """How a kernel of ours reads this layer in a team: its address, the `Matrix`, and the
        tensors that must live as long. None where it is torch that multiplies.
        """
        return self.layout.matrix(self.weight.detach(), self.bias)

    def unpack(self) -> None:
        """Back to the ordinary layout."""
        if self.packed:
            self.weight = nn.Parameter(self.dense())
            self.layout = Plain()

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packed:
            destination[f"{prefix}weight"] = self.dense()


def pack(layers: list[Linear]) -> None:
    """Pack layers of one shape.

    oneDNN multiplies one row in three ways (see `lore.Blocks`): the fastest here is measured.
    """
    for layer in layers:
        layer.pack()
    if isinstance(layers[0].layout, Blocks):
        lore.settle(layers)

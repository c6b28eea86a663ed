"""Linear layers, and how their weights lie in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.kernels import linear as panels
from labkit.kernels import lore
from labkit.kernels.linear import InPanels, Panels
from labkit.kernels.lore import Blocks, faster_half, has_bf16

__all__ = ["Linear", "Plain", "can_pack", "faster_half", "has_bf16"]


class Plain:
    """A weight [out,in], as torch keeps it and every device takes it."""

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if lore.multiplies_better_in_fp32(x):
            bias = None if bias is None else bias.float()
            return F.linear(x.float(), weight.float(), bias).to(x.dtype)
        return F.linear(x, weight, bias)

    def matrix(self, weight: Tensor, bias: Tensor | None) -> InPanels | None:
        return None

    def dense(self, weight: Tensor) -> Tensor:
        return weight


def best_layout(weight: Tensor) -> type[Panels] | type[Blocks] | None:
    """The layout that a CPU likes best for this weight; None where it should stay as it is.

    Panels, for our own kernel. Only bf16 that the processor multiplies itself, and what there is no
    C compiler for, goes into oneDNN's blocks.
    """
    if weight.device.type != "cpu" or weight.dim() != 2:
        return None
    own = weight.dtype in panels.FLAGS and not panels.missing(weight.dtype)
    blocks = lore.has_blocks(weight.dtype)
    if own and not (blocks and weight.dtype == torch.bfloat16):
        return Panels
    return Blocks if blocks else None


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

    def matrix(self) -> InPanels | None:
        """What our kernels read of this layer, for those who call them with a team of their own;
        None where it is multiplied in another way.
        """
        return self.layout.matrix(self.weight.detach(), self.bias)

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

    def unpack(self) -> None:
        """Back to the ordinary layout."""
        if self.packed:
            self.weight = nn.Parameter(self.dense())
            self.layout = Plain()

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packed:
            destination[f"{prefix}weight"] = self.dense()

"""Linear layers, and the layouts that CPUs like. Other devices leave their weights as they are."""

from __future__ import annotations

import math
import platform
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import kernels


def can_pack(weight: Tensor) -> bool:
    """There is a layout for this weight: panels for our own kernel, or else oneDNN's blocks, if the
    CPU has arithmetic for its dtype.
    """
    if weight.device.type != "cpu" or weight.dim() != 2:
        return False
    blocks = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return (
        (blocks or not kernels.missing())
        if weight.dtype == torch.float32
        else blocks and weight.dtype == torch.bfloat16 and has_bf16()
    )


def has_bf16() -> bool:
    """The CPU multiplies bf16 itself. Without it, bf16 saves memory but not time."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    return any(
        getattr(torch.cpu, f, lambda: False)()
        for f in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`: [N, in] -> [N, out].

    A weight in oneDNN's blocks goes to oneDNN, any other to `F.linear`.
    """
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and len(x) > 32 and not has_bf16():
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(
            x.dtype
        )
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """nn.Linear that can lay its weight out once as the CPU likes it: the values stay the same, bit
    by bit, and so does a state dict.

    fp32 goes into panels, for the kernel in `kernels/linear.c`. bf16, and fp32 where there is no C
    compiler, goes into the blocks that oneDNN would otherwise make at every call. Then a step of
    one or two rows is a case of its own: `few` says whether it goes through the blocks as they are,
    is `"padded"` to four rows (on AMD's Zen 4 four rows take *less* time than one), or through a
    `"plain"` copy kept beside them (faster on older Intel).
    """

    plain: Tensor | None = None
    few = "packed"

    def __init__(self, d_in: int, d_out: int, bias: bool = False):
        super().__init__(d_in, d_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 3:
            return kernels.linear(x, self.weight, self.bias, self.out_features)
        if len(x) > 2 or self.few == "packed":
            return linear(x, self.weight, self.bias)
        if self.few == "plain" and self.plain is not None:
            return linear(x, self.plain, self.bias)
        return linear(F.pad(x, (0, 0, 0, 4 - len(x))), self.weight, self.bias)[: len(x)]

    @property
    def packed(self) -> bool:
        return self.weight.is_mkldnn or self.weight.dim() == 3

    def pack(self) -> None:
        if self.packed or not can_pack(self.weight):
            return
        weight = self.weight.detach()
        if weight.dtype == torch.float32 and not kernels.missing():
            packed = kernels.to_panels(weight)
        else:
            self.plain, packed = weight, torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def choose(self, few: str) -> None:
        """How a layer in oneDNN's blocks treats one or two rows from now on; the plain copy is
        dropped where it is not used.
        """
        self.few = few
        self.plain = self.plain if few == "plain" else None

    def dense(self) -> Tensor:
        """The weight [out,in], however it lies."""
        if self.weight.dim() == 3:
            return kernels.from_panels(self.weight.detach(), self.out_features)
        return (self.weight.to_dense() if self.weight.is_mkldnn else self.weight).detach()

    def unpack(self) -> None:
        if self.packed:
            self.weight = nn.Parameter(self.dense())
            self.plain = None
            self.few = "packed"

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packed:
            destination[f"{prefix}weight"] = self.dense()


def pack(layers: list[Linear]) -> None:
    """Pack layers of one shape. oneDNN multiplies one row in three ways (see `Linear`): the fastest
    here is measured.
    """
    for layer in layers:
        layer.pack()
    if layers[0].weight.is_mkldnn:
        few = fastest_for_few(layers)
        for layer in layers:
            layer.choose(few)


def fastest_for_few(layers: list[Linear], rounds: int = 4) -> str:
    """How this CPU multiplies one row fastest, over all `layers` in turn: "packed", "padded" or
    "plain" (see `Linear`).

    The ordinary layout must win by 5 %, because it costs the memory of a second copy.
    """
    rows = {
        layer.in_features: torch.ones(1, layer.in_features, dtype=layer.weight.dtype)
        for layer in layers
    }
    best: dict[str, float] = {"packed": math.inf, "padded": math.inf, "plain": math.inf}
    for few in [*best] * rounds:  # interleaved, so that a busy moment hits all
        start = time.perf_counter()
        for layer in layers:
            layer.few = few
            layer(rows[layer.in_features])
        best[few] = min(best[few], time.perf_counter() - start)
    best["plain"] /= 0.95
    return min(best, key=lambda few: best[few])

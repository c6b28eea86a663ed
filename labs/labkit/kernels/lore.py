"""What a CPU likes, in torch's own calls: the same arithmetic, asked for in the way that is fast
there.

Nothing here is needed for a result to be right, so `ops`, `linear` and `caches` can be read without
it.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from torch import Tensor

from labkit.kernels.linear import InPanels, Panels, missing

# -- one row: the calls are what costs ---------------------------------------------------


def norms_in_few_calls(x: Tensor) -> bool:
    """Where `rms_norm` below is faster than torch's."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`ops.rms_norm` in half as many operations as F.rms_norm makes on a CPU."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    # eps + norm^2 / D in one call
    mean = torch.addcmul(_constant(eps), norm, norm, value=1 / x.shape[-1])
    return x * weight * mean.rsqrt()


@cache
def _constant(value: float) -> Tensor:
    with torch.inference_mode(False):  # so that training can use it too
        return torch.tensor([value])


# -- attention: oneDNN builds a kernel for every length of 16-bit keys, and keeps it -----


def keys_to_read(needed: int, there: int, items: Tensor) -> int:
    """How many of a row's `there` slots to read where `needed` would do: one of few lengths."""
    if items.device.type != "cpu" or items.dtype not in (torch.bfloat16, torch.float16):
        return needed
    return min(-(-needed // 64) * 64, there)


def torch_attends_prompts_faster() -> bool:
    """Torch's attention of whole prompts multiplies the masked half too, but by vectors of 16 where
    the processor has them; our kernel's have 8.
    """
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


# -- linear layers: bf16, and oneDNN's blocks --------------------------------------------


def has_bf16() -> bool:
    """The CPU multiplies bf16 itself. Without it, bf16 saves memory but not time."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    return any(
        getattr(torch.cpu, f, lambda: False)()
        for f in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def multiplies_better_in_fp32(x: Tensor) -> bool:
    """Many rows of bf16, on a CPU that must widen them for each product: widen all at once."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and len(x) > 32 and not has_bf16()


def faster_half(device: str = "cpu") -> str:
    """Which 16 bits are faster here: "bf16" where it is multiplied as it is, and "fp16" elsewhere.

    Many rows then take half the time of fp32. For one row both are bytes to read, and equally fast
    in panels; without arithmetic for bf16 they are no faster than fp32 for many, and fp16 keeps
    three bits more of a weight.
    """
    return "bf16" if device != "cpu" or has_bf16() else "fp16"


def has_blocks(dtype: torch.dtype) -> bool:
    """oneDNN has blocks for weights of this dtype, and this CPU arithmetic to go with them."""
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_bf16())


FEW = 16  # rows, for which a weight is read and hardly multiplied


class Blocks:
    """A `Linear`'s weight in the blocks that oneDNN would otherwise make at every call.

    What is read for a few rows goes through panels of our own, kept beside the blocks: twice the
    memory, and without a compiler there are none.
    """

    def __init__(self, weight: Tensor):
        self.few = None if missing(weight.dtype) else Panels(weight)
        self.panels = self.few and self.few.lay(weight)

    def lay(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def matrix(self, weight: Tensor, bias: Tensor | None) -> InPanels | None:
        return self.few and self.few.matrix(self.panels, bias)

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.few and len(x) <= FEW:
            return self.few.multiply(x, self.panels, bias)
        return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")

    def dense(self, weight: Tensor) -> Tensor:
        return weight.to_dense()

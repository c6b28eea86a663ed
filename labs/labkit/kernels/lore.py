"""What a CPU likes, in torch's own calls: the same arithmetic, asked for in the way that is fast
there.

Nothing here is needed for a result to be right, so `ops`, `linear` and `caches` can be read without
it.
"""

from __future__ import annotations

import math
import platform
import time
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

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


def has_blocks(dtype: torch.dtype) -> bool:
    """oneDNN has blocks for weights of this dtype, and this CPU arithmetic to go with them."""
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_bf16())


class Blocks:
    """A `Linear`'s weight in the blocks that oneDNN would otherwise make at every call.

    A step of one or two rows is a case of its own. `few` says whether it goes through the blocks as
    they are ("packed"), is "padded" to four rows (on AMD's Zen 4 four rows take *less* time than
    one), or goes through a "plain" copy kept beside them (faster on older Intel).
    """

    def __init__(self, weight: Tensor):
        self.plain: Tensor | None = weight
        self.few = "packed"

    def lay(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if len(x) > 2 or self.few == "packed":
            return through_blocks(x, weight, bias)
        if self.few == "plain":
            return F.linear(x, self.plain, bias)
        four = F.pad(x, (0, 0, 0, 4 - len(x)))
        return through_blocks(four, weight, bias)[: len(x)]

    def dense(self, weight: Tensor) -> Tensor:
        return weight.to_dense()

    def matrix(self, weight: Tensor, bias: Tensor | None) -> None:
        """No kernel of ours reads it."""

    def choose(self, few: str) -> None:
        """How one or two rows go from now on; the plain copy is dropped where it is not used."""
        self.few = few
        if few != "plain":
            self.plain = None


def through_blocks(x: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, blocks, bias, "none", [], "")


def settle(layers: list) -> None:
    """Choose for all `layers`, whose weights are blocks of one shape, how few rows go."""
    few = fastest_for_few(layers)
    for layer in layers:
        layer.layout.choose(few)


def fastest_for_few(layers: list, rounds: int = 4) -> str:
    """How this CPU multiplies one row fastest, over all `layers` in turn: "packed", "padded" or
    "plain" (see `Blocks`).

    The ordinary layout must win by 5 %, because it costs the memory of a second copy.
    """
    row = torch.ones(1, layers[0].in_features, dtype=layers[0].weight.dtype)
    best = {"packed": math.inf, "padded": math.inf, "plain": math.inf}
    for few in [*best] * rounds:  # interleaved, so that a busy moment hits all
        start = time.perf_counter()
        for layer in layers:
            layer.layout.few = few
            layer(row)
        best[few] = min(best[few], time.perf_counter() - start)
    best["plain"] /= 0.95
    return min(best, key=lambda few: best[few])

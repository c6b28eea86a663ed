"""Linear layers in few bits. Each has the call of `linear.Linear`: x [N,in] -> [N,out].

**Weights** take 8 bits, one scale per output channel, 4 bits, one scale per 32 inputs, or 16 bits
as they are. **Activations** take 8 bits with one scale per row, so that what a request gets does
not depend on who else is in the batch: in whole numbers not even by a last bit. Under 16-bit
weights they stay in fp32, and so do the sums: half the bytes, on processors that multiply no bf16
too.

The processor's 8-bit unit (VNNI) multiplies whole numbers by whole numbers; an 8-bit weight by a
32-bit activation it cannot. So *weight-only* INT8 uses it twice. A row becomes two digits, as in
long multiplication: `x @ w = (high @ w + low @ w / 254) * scale`. That is sixteen bits of
activation at the price of twice the rows, which costs nothing while reading the weights is what
takes time. Processors without VNNI add pairs of products in sixteen bits: they get digits of seven
bits, whose pairs fit.
"""

from __future__ import annotations

import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.kernels.linear import missing, multiply, to_panels
from labkit.quant import packed

TINY = 1e-20  # so that a row of zeros has a scale
GROUP = 32  # inputs that share the scale of a 4-bit weight
DIGITS = {"w8a8": 1, "int8": 2}  # of a row of activations


def channel_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out,in] -> codes [out,in] int8 in -127 … 127 and scale [out] fp32: `weight ~ codes *
    scale`.
    """
    scale = weight.abs().amax(1).clamp_min(TINY) / 127
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def group_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out,in] -> codes [out,in] int8 in -7 … 7 and scale [out,in/32] bf16.

    ValueError if rows do not split into groups.
    """
    if weight.shape[1] % GROUP:
        raise ValueError(f"rows of {weight.shape[1]} inputs do not split into groups of {GROUP}")
    groups = weight.unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(2).clamp_min(TINY) / 7).bfloat16()
    codes = (groups / scale.float()[..., None]).round_().clamp_(-7, 7).to(torch.int8)
    return codes.flatten(1), scale


def row_digits(x: Tensor, digits: int, levels: int = 127) -> tuple[Tensor, Tensor]:
    """x [N,in] -> its `digits` stacked, numbers in -levels … levels yet to be rounded
    [digits*N,in], and each row's scale [N,1].
    """
    scale = x.abs().amax(1, keepdim=True).mul_(1 / levels).clamp_min_(TINY)
    x = x / scale
    if digits == 1:
        return x, scale
    high = x.round()
    return torch.cat([high, x.sub_(high).mul_(2 * levels)]), scale


class Plain:
    """What the fast kernels compute, in floating point: rows [M,in] of -levels … levels, rounded,
    by codes, by the channels' scale.

    Exact while sums stay below 2^24; slow, and right everywhere.
    """

    levels = 127  # the largest digit of a row
    whole = True  # False: activations are taken as they are

    def __init__(self, codes: Tensor, scale: Tensor):
        self.codes = codes
        self.scale = scale

    def __call__(self, rows: Tensor) -> Tensor:
        return F.linear(rows.round(), self.codes.to(rows.dtype)) * self.scale


class Int8Pack(Plain):
    """torch's weight-only kernel: activations in bf16, codes widened on the way.

    For processors without an 8-bit unit. It is slow for many rows: a prompt has its codes widened
    once, and an ordinary product.
    """

    whole = False

    def __call__(self, rows: Tensor) -> Tensor:
        if len(rows) > 16:
            return F.linear(rows, self.codes.to(rows.dtype)).mul_(self.scale)
        return torch._weight_int8pack_mm(rows.bfloat16(), self.codes, self.scale.bfloat16()).float()


class Panels(Plain):
    """Our own kernel (`kernels/linear.c`), for weights only: activations as they are, codes widened
    in registers.
    """

    whole = False

    def __init__(self, codes: Tensor, scale: Tensor):
        self.panels = to_panels(codes)
        self.scale = scale.contiguous()

    def __call__(self, rows: Tensor) -> Tensor:
        return multiply(rows, self.panels, None, len(self.scale), self.scale)


class FBGEMM(Plain):
    """FBGEMM's packed weight: rounding, product and scale in one call.

    Fastest where the processor has VNNI.
    """

    def __init__(self, codes: Tensor, scale: Tensor):
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        zeros = torch.zeros(len(scale), dtype=torch.long)
        with warnings.catch_warnings():
            # a later torch will not have it; then `kernels` leaves it out
            warnings.simplefilter("ignore")
            weight = torch._make_per_channel_quantized_tensor(codes, scale.double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(weight, None)
        torch.backends.quantized.engine = before

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, 1.0, self.levels + 1, self.packed
        )


class FBGEMM7(FBGEMM):
    """The same with digits of seven bits: 127 * 127 * 2 fits sixteen bits, so that nothing
    saturates without VNNI.
    """

    levels = 63


KERNELS = {
    "triton": packed.Packed,
    "panels": Panels,
    "fbgemm": FBGEMM,
    "fbgemm7": FBGEMM7,
    "int8pack": Int8Pack,
    "plain": Plain,
}


@functools.cache
def kernel_names(kind: str, device: str = "cpu") -> list[str]:
    """The kernels that run here and are right, in order of preference.

    Right also on numbers so large that a 16-bit sum of two products overflows: without VNNI,
    processors add pairs in 16 bits and saturate, wrong in silence, so it is tried out.
    """
    if kind == "int4":
        there = {
            "triton": not packed.missing(device, 4),
            "int4pack": device == "cpu" and hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"),
        }
        return [name for name in there if there[name]] + ["plain"]
    if kind == "fp16":
        there = {
            "panels": not missing(torch.float16),
            "fbgemm": "fbgemm" in torch.backends.quantized.supported_engines,
        }
        return [name for name in there if there[name] and device == "cpu"] + ["plain"]
    right = [name for name in KERNELS if _is_right(name, device)]
    if kind != "int8":  # activations are rounded as well
        right = [name for name in right if KERNELS[name].whole]
    if "fbgemm" in right and "fbgemm7" in right:  # seven bits are for processors without VNNI
        right.remove("fbgemm7")
    return right


def _is_right(name: str, device: str) -> bool:
    """The kernel runs here, and gives what `Plain` gives at the ends of the range."""
    kernel = KERNELS[name]
    if kernel is Panels and (device != "cpu" or missing(torch.int8)):
        return False
    if kernel is packed.Packed and packed.missing(device):
        return False
    codes = torch.full((64, 64), 127, dtype=torch.int8, device=device)
    codes[1::2] = -127
    scale = torch.ones(64, device=device)
    rows = torch.full((32, 64), float(kernel.levels), device=device)
    try:
        got = kernel(codes, scale)(rows)
    except (RuntimeError, AttributeError):  # not in this torch, or not for this device
        return False
    return torch.allclose(got, Plain(codes, scale)(rows), rtol=0 if kernel.whole else 1e-2)


class FewBits(nn.Module):
    """What the layers below share: sizes, bias, and that a dtype comes out as it went in."""

    def __init__(self, layer: nn.Linear, kind: str, kernel: str):
        super().__init__()
        self.in_features = layer.in_features
        self.out_features = layer.out_features
        self.bias = layer.bias
        self.kind = kind
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        y = self.multiply(x.float()).to(x.dtype)
        return y if self.bias is None else y + self.bias


class Int8Linear(FewBits):
    """INT8 weights; activations of one digit ("w8a8") or two ("int8", close to exact).

    A byte a weight, four more a channel.
    """

    def __init__(self, layer: nn.Linear, weight: Tensor, kind: str, kernel: str):
        super().__init__(layer, kind, kernel)
        codes, scale = channel_codes(weight.float())
        if kernel == "triton" and not packed.fits(layer.in_features, layer.out_features, 8):
            self.kernel = "plain"
        self.matmul = KERNELS[self.kernel](codes, scale)
        self.matrix = getattr(self.matmul, "matrix", None)
        self.nbytes = codes.nbytes + scale.nbytes

    def multiply(self, x: Tensor) -> Tensor:
        if not self.matmul.whole:
            return self.matmul(x)
        rows, scale = row_digits(x, DIGITS[self.kind], self.matmul.levels)
        y = self.matmul(rows)
        if len(y) > len(x):  # the second digit counts less
            y = torch.add(y[: len(x)], y[len(x) :], alpha=0.5 / self.matmul.levels)
        return y.mul_(scale)


class Int4Linear(FewBits):
    """INT4 weights in groups of 32 with a 16-bit scale: 4.5 bits a weight.

    Activations are rounded to bf16. torch's kernel wants a zero beside every scale, which makes 5
    bits in its memory, and outputs in sixteens.
    """

    def __init__(self, layer: nn.Linear, weight: Tensor, kind: str, kernel: str):
        super().__init__(layer, kind, kernel if layer.out_features % 16 == 0 else "plain")
        if kernel == "triton" and not packed.fits(layer.in_features, layer.out_features, 4):
            self.kernel = "plain"
        codes, scale = group_codes(weight.float())
        self.nbytes = codes.numel() // 2 + scale.nbytes
        if self.kernel == "triton":
            self.matmul = packed.Packed(codes, scale, 4)
            self.matrix = self.matmul.matrix
        elif self.kernel == "int4pack":
            self.codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int() + 8, 1)
            self.scale = torch.stack([scale.T, torch.zeros_like(scale.T)], 2).contiguous()
        else:
            # two to a byte
            self.codes = codes[:, ::2] + 8 | codes[:, 1::2] + 8 << 4
            self.scale = scale

    def multiply(self, x: Tensor) -> Tensor:
        if self.kernel == "triton":
            return self.matmul(x)
        x = x.bfloat16()
        if self.kernel == "int4pack":
            multiply_int4 = torch.ops.aten._weight_int4pack_mm_for_cpu
            return multiply_int4(x, self.codes, GROUP, self.scale).float()
        codes = torch.stack([self.codes & 15, self.codes >> 4 & 15], 2)  # [out,in/2,2]
        codes = codes.view(self.out_features, -1, GROUP) - 8
        weight = (codes * self.scale[..., None]).flatten(1)
        return F.linear(x.float(), weight.float()).bfloat16().float()


class FP16Linear(FewBits):
    """FP16 weights, widened on the way into products and sums in fp32, by our own kernel or
    FBGEMM's (Khudia et al. 2021).

    Weights beyond 65,504 are cut there.
    """

    def __init__(self, layer: nn.Linear, weight: Tensor, kind: str, kernel: str):
        super().__init__(layer, kind, kernel)
        half = weight.float().clamp(-65504, 65504).half()
        self.nbytes = half.nbytes
        if kernel == "panels":
            self.weight = to_panels(half)
        elif kernel == "fbgemm":
            self.weight = torch.ops.quantized.linear_prepack_fp16(half.float(), None)
        else:
            self.weight = half

    def multiply(self, x: Tensor) -> Tensor:
        if self.kernel == "panels":
            return multiply(x, self.weight, None, self.out_features)
        if self.kernel == "fbgemm":
            return torch.ops.quantized.linear_dynamic_fp16.default(x, self.weight)
        return F.linear(x, self.weight.float())


KINDS = {"fp16": FP16Linear, "int8": Int8Linear, "w8a8": Int8Linear, "int4": Int4Linear}


class FewBitsEmbedding(nn.Module):
    """A table of rows in 16 bits, or in 8 with a scale each, which is named `weight` for those who
    ask it for dtype and device.
    """

    kernel = "lookup"

    def __init__(self, table: nn.Embedding, kind: str):
        super().__init__()
        self.in_features = table.num_embeddings
        self.out_features = table.embedding_dim
        self.kind = "fp16" if kind == "fp16" else "int8"
        rows = table.weight.detach().float()
        if kind == "fp16":
            codes = rows.half()
            scale = torch.ones_like(rows[:, 0])
        else:
            codes, scale = channel_codes(rows)
        self.register_buffer("codes", codes)
        self.register_buffer("weight", scale[:, None].to(table.weight.dtype))
        self.nbytes = codes.nbytes + scale.nbytes

    def forward(self, ids: Tensor) -> Tensor:
        return self.codes[ids] * self.weight[ids]

"""Linear layers in few bits. Each has the call of `linear.Linear`: x [N,in] -> [N,out].

**Weights** take 16 bits as they are; 8 bits with a scale for each output; or 4 bits with a scale
for every 32 inputs, and where the kind ends in "min" a minimum too: 16 values from there on, not
from -8 scales on.

**Activations** come and go in fp32 or the model's dtype, and under 16-bit weights they stay as they
are. Under fewer bits they are rounded as well, to whole numbers with a scale of their own: one for
each row, or under 4-bit weights for every 32 inputs. A sum of products is then a sum of whole
numbers, which has no order. So what a request gets does not depend on who else is in the batch, not
even by a last bit. How many bits they are rounded to is what the names of kinds tell:

* "int8", "int4", "int4min": as many as their sums have room for in 32 bits, 13 and more. It is the
  weights that are quantised.
* "w8a8", "w4a8", "w4a8min": 8. A processor multiplies twice as many of those at once.

One user waits for weights to be read, and 8 or 4 bits of them are a half and a quarter of 16.
Many wait for products, and the narrower the whole numbers, the more of them fit into a register.

The kernels that do so are our own (`kernels/whole.c`). Beside them stands `plain`, in torch: the
weights multiplied out, the activations rounded and multiplied out, and `F.linear` of the two. It
runs on every device and says what the others compute. On a GPU "int8" and "int4" have kernels in
Triton (`packed`), whose activations are bf16.
"""

from __future__ import annotations

import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.kernels.linear import (
    InPanels,
    from_nibbles,
    from_panels,
    missing,
    to_nibbles,
    to_panels,
)
from labkit.quant.packed import Packed, fits
from labkit.quant.packed import missing as missing_on_gpu

TINY = 1e-20  # so that a row of zeros has a scale
GROUP = 32  # inputs that share the scale of a 4-bit weight


# -- numbers to codes --------------------------------------------------------------------


def channel_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out,in] -> codes [out,in] int8 in -127 … 127 and scale [out] fp32: `weight ~ codes *
    scale`.
    """
    scale = weight.abs().amax(1).clamp_min(TINY) / 127
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def group_codes(weight: Tensor, minimum: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """weight [out,in] -> codes [out,in] uint8 in 0 … 15, scale and minimum [out,in/32] fp16:
    `weight ~ codes * scale + minimum`.

    Without a minimum of their own, groups start at -8 scales, and the largest |weight| of a group
    gets that code, whatever its sign: so the scale may be negative. ValueError if rows do not split
    into groups.
    """
    if weight.shape[1] % GROUP:
        raise ValueError(f"rows of {weight.shape[1]} inputs do not split into groups of {GROUP}")
    groups = weight.unflatten(1, (-1, GROUP))
    if minimum:
        low, high = groups.aminmax(dim=2)
        scale, low = ((high - low) / 15).half(), low.half()
    else:
        largest = groups.gather(2, groups.abs().argmax(2, keepdim=True)).squeeze(2)
        scale = (largest / -8).half()
        low = scale * -8
    step = torch.where(scale == 0, 1, scale.float())[..., None]
    codes = ((groups - low.float()[..., None]) / step).round_().clamp_(0, 15)
    return codes.to(torch.uint8).flatten(1), scale, low


def group_values(codes: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    """The weight [out,in] fp32 that `group_codes` stands for."""
    groups = codes.unflatten(1, (-1, GROUP)) * scale.float()[..., None]
    return (groups + minimum.float()[..., None]).flatten(1)


def row_codes(x: Tensor, levels: int = 127) -> tuple[Tensor, Tensor]:
    """x [...,in] fp32 -> whole numbers [...,in] in -levels … levels, still in fp32, and what one is
    worth, [...,1].
    """
    worth = x.abs().amax(-1, keepdim=True).mul_(1 / levels).clamp_min_(TINY)
    return (x * worth.reciprocal()).round_(), worth


def most_levels(d_in: int) -> int:
    """The largest whole number for activations whose products with 8-bit weights, so many of them,
    sum up to 32 bits at most.
    """
    return min((2**31 - 1) // (127 * d_in), 32767)


# -- layers ------------------------------------------------------------------------------


class FewBits(nn.Module):
    """What the layers below share: sizes, bias, and that a dtype comes out as it went in.

    A layer keeps its codes as its kernel wants them: in "panels", or "plain". `nbytes` counts what
    the format needs.
    """

    nbytes: int
    packed = None  # what a kernel of torch's, or one for GPUs, multiplies by

    def __init__(self, layer: nn.Linear, weight: Tensor, kind: str, kernel: str):
        super().__init__()
        self.out_features, self.in_features = self.shape = tuple(weight.shape)
        self.bias = layer.bias
        self.kind = kind
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        if matrix := self.matrix():
            return matrix.multiply(x)
        y = self.multiply(x.float())
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    def matrix(self) -> InPanels | None:
        """What our kernels read of this layer, as `linear.Linear.matrix` has it; None where it is
        multiplied in another way.
        """
        raise NotImplementedError

    def dense(self) -> Tensor:
        """The weight [out,in] fp32 that is multiplied by."""
        raise NotImplementedError

    def rounded(self, x: Tensor) -> Tensor:
        """x [N,in] fp32 as it is multiplied."""
        return x

    def multiply(self, x: Tensor) -> Tensor:
        """x [N,in] fp32 -> [N,out] fp32, without the bias: by a GPU's kernel, or the plain way."""
        if isinstance(self.packed, Packed):
            return self.packed(x)
        return F.linear(self.rounded(x), self.dense())


class FP16Linear(FewBits):
    """FP16 weights, widened on the way into products and sums in fp32; where there is no compiler,
    by FBGEMM (Khudia et al. 2021).

    Weights beyond 65,504 are cut there.
    """

    def __init__(self, layer: nn.Linear, weight: Tensor, kind: str, kernel: str):
        super().__init__(layer, weight, kind, kernel)
        half = weight.float().clamp(-65504, 65504).half()
        self.nbytes = half.nbytes
        if kernel == "fbgemm":
            self.packed = torch.ops.quantized.linear_prepack_fp16(half.float(), None)
        else:
            self.weight = to_panels(half) if kernel == "panels" else half

    def matrix(self) -> InPanels | None:
        if self.kernel == "panels":
            return InPanels.of(torch.float16, self.shape, self.weight, bias=self.bias)

    def dense(self) -> Tensor:
        if self.kernel == "fbgemm":
            return torch.ops.quantized.linear_unpack_fp16(self.packed)[0]
        half = from_panels(self.weight, *self.shape) if self.kernel == "panels" else self.weight
        return half.float()

    def multiply(self, x: Tensor) -> Tensor:
        if self.kernel == "fbgemm":
            return torch.ops.quantized.linear_dynamic_fp16.default(x, self.packed)
        return super().multiply(x)


class Int8Linear(FewBits):
    """INT8 weights: a byte each, and four more an output.

    Where there is no compiler, FBGEMM multiplies 8 bits by 8 bits if the processor can (VNNI), and
    torch's weight-only kernel 8 bits by bf16.
    """

    def __init__(self, layer: nn.Linear, weight: Tensor, kind: str, kernel: str):
        super().__init__(layer, weight, kind, kernel)
        self.levels = 127 if kind == "w8a8" else most_levels(self.in_features)
        codes, self.scale = channel_codes(weight.float())
        self.nbytes = codes.nbytes + self.scale.nbytes
        if kernel == "panels":
            self.panels = to_panels(codes, PANELS[kind])
        elif kernel == "triton" and fits(self.in_features, self.out_features, 8):
            self.packed = Packed(codes, self.scale, 8)
        else:
            self.plain = codes
        if kernel == "fbgemm":
            self.packed = fbgemm(codes, self.scale)

    def codes(self) -> Tensor:
        """[out,in] int8, -127 … 127."""
        if isinstance(self.packed, Packed):
            return self.packed.matrix.numbers()
        return from_panels(self.panels, *self.shape) if self.kernel == "panels" else self.plain

    def matrix(self) -> InPanels | None:
        if self.kernel == "panels":
            kind = PANELS[self.kind]
            return InPanels.of(kind, self.shape, self.panels, scale=self.scale, bias=self.bias)

    def dense(self) -> Tensor:
        return self.codes() * self.scale[:, None]

    def rounded(self, x: Tensor) -> Tensor:
        codes, worth = row_codes(x, self.levels)
        return codes * worth

    def multiply(self, x: Tensor) -> Tensor:
        if self.kernel == "fbgemm":
            codes, worth = row_codes(x)
            return worth * torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
                codes, 1.0, 128, self.packed
            )
        if self.kernel == "int8pack" and len(x) <= 16:  # many rows, it takes one by one
            scale = self.scale.bfloat16()
            return torch._weight_int8pack_mm(x.bfloat16(), self.plain, scale).float()
        return super().multiply(x)


def fbgemm(codes: Tensor, scale: Tensor):
    """An 8-bit weight as FBGEMM packs it."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    zeros = torch.zeros(len(scale), dtype=torch.long)
    with warnings.catch_warnings():
        # a later torch will not have it; then `kernel_names` leaves it out
        warnings.simplefilter("ignore")
        weight = torch._make_per_channel_quantized_tensor(codes, scale.double(), zeros, 0)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    torch.backends.quantized.engine = before
    return packed


class Int4Linear(FewBits):
    """INT4 weights in groups of 32 with a 16-bit scale, 4.5 bits a weight, or with a 16-bit minimum
    too, 5 bits.

    Inputs come in groups of 32, or it is a ValueError.
    """

    def __init__(self, layer: nn.Linear, weight: Tensor, kind: str, kernel: str):
        super().__init__(layer, weight, kind, kernel)
        self.levels = 127 if "a8" in kind else 32767
        codes, self.scale, self.minimum = group_codes(weight.float(), kind.endswith("min"))
        self.nbytes = codes.numel() // 2 + self.scale.nbytes
        if kind.endswith("min"):
            self.nbytes += self.minimum.nbytes
        if kernel == "panels":
            self.panels = to_nibbles(codes)
            self.scale, self.minimum = (to_panels(s, "w4") for s in (self.scale, self.minimum))
        elif kernel == "triton" and fits(self.in_features, self.out_features, 4):
            self.packed = Packed(codes.to(torch.int8) - 8, self.scale.bfloat16(), 4)
            self.scale = self.scale.bfloat16().half()  # as it is multiplied by
            self.minimum = self.scale * -8
        else:
            self.plain = codes[:, ::2] | codes[:, 1::2] << 4  # two to a byte

    def codes(self) -> Tensor:
        """[out,in] uint8, 0 … 15."""
        if isinstance(self.packed, Packed):
            return (self.packed.matrix.numbers() + 8).to(torch.uint8)
        if self.kernel == "panels":
            return from_nibbles(self.panels, *self.shape)
        return torch.stack([self.plain & 15, self.plain >> 4], 2).flatten(1)

    def matrix(self) -> InPanels | None:
        if self.kernel == "panels":
            return InPanels.of(
                PANELS[self.kind],
                self.shape,
                self.panels,
                scale=self.scale,
                bias=self.bias,
                minimum=self.minimum if self.kind.endswith("min") else None,
            )

    def dense(self) -> Tensor:
        scale, minimum = self.scale, self.minimum
        if self.kernel == "panels":
            groups = self.out_features, self.in_features // GROUP
            scale, minimum = from_panels(scale, *groups), from_panels(minimum, *groups)
        return group_values(self.codes(), scale, minimum)

    def rounded(self, x: Tensor) -> Tensor:
        codes, worth = row_codes(x.unflatten(1, (-1, GROUP)), self.levels)
        return (codes * worth).flatten(1)


KINDS = {
    "fp16": FP16Linear,
    "int8": Int8Linear,
    "w8a8": Int8Linear,
    "int4": Int4Linear,
    "int4min": Int4Linear,
    "w4a8": Int4Linear,
    "w4a8min": Int4Linear,
}
# which of `kernels.linear.FLAGS` reads them
PANELS = {
    "fp16": torch.float16,
    "int8": "w8",
    "w8a8": "w8a8",
    "int4": "w4",
    "int4min": "w4",
    "w4a8": "w4a8",
    "w4a8min": "w4a8",
}
# kernels in Triton, and how many bits their weights have
ON_GPU = {"int8": 8, "int4": 4}
# where there is no C compiler: of torch, for some processors
OTHERS = {"fp16": ("fbgemm",), "int8": ("int8pack",), "w8a8": ("fbgemm",)}


@functools.cache
def kernel_names(kind: str, device: str = "cpu") -> list[str]:
    """The kernels that run here and are right, the fastest first.

    Right also on numbers so large that a 16-bit sum of two products overflows: without VNNI, some
    processors add pairs in 16 bits and saturate, wrong in silence, so it is tried out.
    """
    if device == "cpu":
        names = ["panels"] if not missing(PANELS[kind]) else []
        names += OTHERS.get(kind, ())
    else:
        names = ["triton"] if kind in ON_GPU and not missing_on_gpu(device, ON_GPU[kind]) else []
    return [name for name in names if _is_right(kind, name, device)] + ["plain"]


def _is_right(kind: str, kernel: str, device: str) -> bool:
    """The kernel runs here, and gives what "plain" gives at the ends of the range."""
    with torch.device(device):
        layer = nn.Linear(128, 64, bias=False, dtype=torch.float32)
        weight = torch.full((64, 128), 127.0)
        weight[1::2] = -127.0
        weight[:, ::GROUP] *= -1  # the other end of a group
        rows = torch.full((32, 128), 127.0)
        rows[1::2] = -127.0
    try:
        got, want = (KINDS[kind](layer, weight, kind, name)(rows) for name in (kernel, "plain"))
    except (RuntimeError, AttributeError):  # not in this torch, or not for this processor
        return False
    return torch.allclose(got, want, rtol=1e-2 if kernel in ("int8pack", "triton") else 1e-5)


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

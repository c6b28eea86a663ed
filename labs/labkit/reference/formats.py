"""Number formats as a ruler: each is a short list of values, and a rule for
the scale that stretches the list over the weights.

A block of weights shares one scale. What is stored per weight is the position
on the ruler; what is computed with is `scale * value`. So every format here
is three facts: its values, its block, its scale.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


def float_values(exponent_bits, mantissa_bits, bias, reserved=0):
    """All finite values of a small float, ascending.

    `reserved`: how many of its largest codes mean infinity or NaN.
    """
    code = np.arange(2 ** (exponent_bits + mantissa_bits) - reserved)
    exponent = code >> mantissa_bits
    fraction = code % 2**mantissa_bits / 2**mantissa_bits
    values = np.where(
        exponent == 0,
        fraction * 2.0 ** (1 - bias),
        (1 + fraction) * 2.0 ** (exponent - bias),
    )
    return np.concatenate([-values[:0:-1], values])  # -0 is 0


def normal_float_values(offset=0.9677083):
    """NF4: 16 quantiles of the normal distribution, 0 among them, stretched
    to [-1, 1] (Dettmers et al. 2023, appendix E).
    """
    quantiles = lambda n: [
        NormalDist().inv_cdf(p) for p in np.linspace(offset, 0.5, n)[:-1]
    ]
    values = np.array([-q for q in quantiles(8)] + [0.0] + quantiles(9)[::-1])
    return values / values.max()


# symmetric: the code -128 (or -8) is not used
INT8, INT4 = np.arange(-127.0, 128), np.arange(-7.0, 8)
NF4 = normal_float_values()
# FP8 with one NaN and no infinity: largest 448 (Micikevicius et al. 2022)
E4M3 = float_values(4, 3, bias=7, reserved=1)
# FP8 with infinities: largest 57,344
E5M2 = float_values(5, 2, bias=15, reserved=4)
# FP4: 0 .5 1 1.5 2 3 4 6 (OCP Microscaling v1.0, section 5.3.3)
E2M1 = float_values(2, 1, bias=1)


def nearest(x, values):
    """Each x rounded to the nearest of `values` (ascending, 0 among them),
    ties to the even code; beyond the ends it is clipped.
    """
    above = np.searchsorted(values, x).clip(1, len(values) - 1)
    low, high = values[above - 1], values[above]
    even = (above - np.searchsorted(values, 0.0)) % 2 == 0
    return np.where(
        (x - low > high - x) | ((x - low == high - x) & even), high, low
    )


def largest_scale(top, values):
    """The block's largest number lands on the ruler's end."""
    return top / values[-1]


def power_scale(top, values):
    """MX: a power of two, so that the scale is 8 bits of exponent and
    multiplying by it is exact (OCP Microscaling v1.0, 6.3).
    """
    return 2.0 ** (
        np.floor(np.log2(top)) - np.floor(np.log2(values[-1]))
    ).clip(-127, 127)


def two_level_scale(top, values):
    """NVFP4: an E4M3 scale per block, and one fp32 scale over all that puts
    the largest of them at 448 (NVIDIA 2025).
    """
    whole = top.max() / (values[-1] * E4M3[-1])
    return (
        np.maximum(nearest(top / values[-1] / whole, E4M3), E4M3[E4M3 > 0][0])
        * whole
    )


def double_quantised_scale(top, values, group=256):
    """NF4's second level: the scales, less their mean, are themselves
    quantised to 8 bits in groups of 256 (Dettmers et al. 2023, 3).
    """
    flat, mean = top.ravel(), top.mean()
    padded = np.pad(flat - mean, (0, -len(flat) % group)).reshape(-1, group)
    step = np.abs(padded).max(axis=1, keepdims=True).clip(1e-30) / E4M3[-1]
    return (nearest(padded / step, E4M3) * step).ravel()[: len(flat)].reshape(
        top.shape
    ) + mean


@dataclass(frozen=True)
class Format:
    """`values` a weight may take, `bits` to store which; `block` weights
    share a scale of `scale_bits` (block None: a whole row).
    """

    values: np.ndarray
    bits: int
    block: int | None
    scale_bits: float
    scale: object = largest_scale

    def __call__(self, w):
        """w [out, in] as the format would keep it: rounded, and multiplied
        out again. ValueError if rows do not split into blocks.
        """
        block = self.block or w.shape[-1]
        if w.shape[-1] % block:
            raise ValueError(
                f"rows of {w.shape[-1]} do not split into blocks of {block}"
            )
        blocks = w.reshape(-1, block).astype(np.float64)
        scale = self.scale(
            np.abs(blocks).max(axis=1, keepdims=True).clip(1e-30), self.values
        )
        return (nearest(blocks / scale, self.values) * scale).reshape(w.shape)

    def bits_per_weight(self, columns):
        """Scales included, for rows of so many columns."""
        return self.bits + self.scale_bits / (self.block or columns)


FORMATS = {
    "int8": Format(INT8, 8, None, 32),
    "fp8 e4m3": Format(E4M3, 8, None, 32),
    "fp8 e5m2": Format(E5M2, 8, None, 32),
    "int4 per row": Format(INT4, 4, None, 32),
    "int4": Format(INT4, 4, 32, 16),
    "nf4": Format(NF4, 4, 64, 32),
    "nf4 twice": Format(NF4, 4, 64, 8 + 32 / 256, double_quantised_scale),
    "mxfp4": Format(E2M1, 4, 32, 8, power_scale),
    "nvfp4": Format(E2M1, 4, 16, 8, two_level_scale),
}

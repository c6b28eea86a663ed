"""Scale and zero point: whole numbers that stand for real ones, over a
tensor, a row or a group; and what the rounding costs.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quantised:
    """`scale * (codes - zero)` stands for the original; codes [groups, size],
    scale and zero [groups, 1].
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    shape: tuple

    def dequantise(self):
        return (self.scale * (self.codes - self.zero)).reshape(self.shape)


def quantise(x, bits=8, group=None, symmetric=True):
    """Round x to whole numbers of `bits` bits (Jacob et al. 2018, eq. 1).

    group None: one scale for the tensor · "row": one per row, which for
    weights [out, in] is per output channel · a number: one for so many
    neighbours in a row. Symmetric: zero stays 0 and codes run from
    -(2^(bits-1)-1); otherwise smallest and largest take the ends of 0 …
    2^bits-1, and a zero point says which code means 0.
    """
    size = {None: x.size, "row": x.shape[-1]}.get(group, group)
    if x.shape[-1] % size and group is not None:
        raise ValueError(
            f"rows of {x.shape[-1]} do not split into groups of {size}"
        )
    groups = x.reshape(-1, size).astype(np.float64)
    if symmetric:
        low, high = -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
        scale = np.abs(groups).max(axis=1, keepdims=True).clip(1e-30) / high
        zero = np.zeros_like(scale)
    else:
        low, high = 0, 2**bits - 1
        # 0 must have a code
        bottom = groups.min(axis=1, keepdims=True).clip(max=0)
        top = groups.max(axis=1, keepdims=True).clip(min=0)
        scale = (top - bottom).clip(1e-30) / high
        zero = np.round(-bottom / scale)
    return Quantised(
        np.clip(np.round(groups / scale) + zero, low, high),
        scale,
        zero,
        x.shape,
    )


def int8_linear(x, w, per_row=True):
    """x [N,in] @ w.T [in,out] in whole numbers: weights scaled per output
    channel, activations per row of x or all alike.

    One large number in x sets the scale of everything that shares it; per
    row, that is its own token only.
    """
    a = quantise(x, group="row" if per_row else None)
    b = quantise(w, group="row")
    # exact: what the processor's 8-bit unit sums up
    whole = a.codes.reshape(x.shape) @ b.codes.reshape(w.shape).T
    return whole * a.scale * b.scale.T


def errors(x, approximation):
    """How far off: root mean square relative to x's own, the same in decibels
    (6 dB are one bit), largest, and cosine.
    """
    gap = x - approximation
    relative = np.sqrt((gap**2).mean() / (x**2).mean())
    cosine = (x * approximation).sum() / np.sqrt(
        (x**2).sum() * (approximation**2).sum()
    )
    return {
        "relative": float(relative),
        "decibels": float(-20 * np.log10(max(relative, 1e-30))),
        "largest": float(np.abs(gap).max()),
        "cosine": float(cosine),
    }

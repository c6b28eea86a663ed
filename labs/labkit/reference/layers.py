"""What a token does on its own."""

import numpy as np


def softmax(x):
    """Positive numbers that sum to 1 along the last axis; the maximum is
    taken out first, so that exp cannot overflow.
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x):
    """x times its own sigmoid."""
    return x / (1 + np.exp(-x))


def rms_norm(x, weight, eps):
    """Scale each row of x [T,D] to root-mean-square 1, then by `weight` [D]
    (Zhang & Sennrich 2019).
    """
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight


def swiglu(x, gate_up, down):
    """down(silu(gate(x)) * up(x)): x [T,D], gate_up [2F,D], down [D,F] ->
    [T,D] (Shazeer 2020).
    """
    gate, up = np.split(x @ gate_up.T, 2, axis=-1)  # [T,F] each
    return (silu(gate) * up) @ down.T


def rope(x, pos, theta):
    """Rotate each head of x [T,h,E] by angles that grow with the token's
    position (Su et al. 2021).

    Number i of a head turns together with number i + E/2; slow pairs remember
    far positions, fast pairs near ones.
    """
    E = x.shape[-1]
    # [T,1,E/2]
    angle = pos[:, None, None] * theta ** -(np.arange(0, E, 2) / E)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate(
        [a * cos - b * sin, b * cos + a * sin], axis=-1
    ).astype(x.dtype)

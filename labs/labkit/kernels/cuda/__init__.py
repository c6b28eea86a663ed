"""Kernels of our own in Triton, for NVIDIA's GPUs, each beside the naive torch code that it equals.

    matrix       a weight in 16, 8 or 4 bits, as the kernels read it
    linear       few rows by such a matrix, with norm, gating and residual in the same launch
    attention    one token a request: rotate, write to the cache, attend, merge, in one launch
    norm         the residual stream, and its RMSNorm
    gate         `act(gate) * up`
    delta        one token of the gated delta rule
    slots        where a cache's keys and values lie      heads    what a layer does with them
    launch       what every launch shares

A decode step reads every weight once and computes almost nothing, so its floor is `bytes /
bandwidth`. At small batches *launches* keep it from there: a norm, a rotation or an addition takes
2 to 6 microseconds in which the memory idles. So what is small moves into the kernels that read
something large anyway.

Under TRITON_INTERPRET=1 the same kernels run in NumPy, on tensors of a CPU, to check their
arithmetic where there is no GPU. Triton is loaded by the modules that hold kernels, not by this
one, nor by `matrix`, `slots` and `heads`.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

# tensor cores for bf16, and cp.async; 4 bits use an instruction of the next generation but one
OLDEST = (8, 0)
OLDEST_FOR_4_BITS = (9, 0)


def interpreted() -> bool:
    """The kernels run in NumPy: TRITON_INTERPRET=1 was set before Triton was first imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def missing(device: torch.device | str = "cuda", bits: int = 16) -> str:
    """Why these kernels can't run there; empty if they can. bits: of the weights."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if interpreted():
        return ""
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        return "Triton's kernels run on a GPU"
    oldest = OLDEST_FOR_4_BITS if bits == 4 else OLDEST
    capability = torch.cuda.get_device_capability(device)
    if capability < oldest:
        have, need = (".".join(map(str, version)) for version in (capability, oldest))
        return f"this GPU has compute capability {have}, and the kernels need {need}"
    return ""

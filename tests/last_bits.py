"""A pytest plugin, `-p tests.last_bits`: torch's results end in other last bits than they do here.

Another processor, another BLAS or another number of threads adds the same terms in another order.
What comes out then differs by a few units in the last place: differently for each shape, since the
order is chosen by shape, and the same way every time. That is what this plugin does, for machines
that we do not have. Seeds (LAST_BITS=1, 2, ...) are other machines. What must be exact is left as
it is: whole numbers, and what was infinite or not a number.

Our own kernels are not torch's functions, so they should be off (LABKIT_KERNELS=off).
"""

import os
import zlib
from functools import cache

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

SEED = int(os.environ.get("LAST_BITS", "1"))
# a row of their outputs errs by a part of its largest number, for terms cancel
SUMS = {
    "linear",
    "_linear_pointwise",
    "matmul",
    "__matmul__",
    "__rmatmul__",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "einsum",
    "conv1d",
    "scaled_dot_product_attention",
}
# each output errs by a part of itself; torch sums `cumsum` in fp64, so it is not among them
EACH = {
    "softmax",
    "log_softmax",
    "logsumexp",
    "cross_entropy",
    "exp",
    "sigmoid",
    "silu",
    "gelu",
    "softplus",
    "cos",
    "sin",
    "vector_norm",
    "mean",
    "rms_norm",
    "layer_norm",
    "rsqrt",
    "addcmul",
}
FLIPPED = 0.03  # share of 16-bit results that are rounded to the number beside


@cache
def noise(name: str, shape: torch.Size) -> Tensor:
    """Numbers in -1 ... 1, always the same for one function and shape."""
    seed = zlib.crc32(repr((SEED, name, tuple(shape))).encode())
    # of a large shape, one row for all
    drawn = shape if shape.numel() < 2**16 else shape[-1:]
    return torch.empty(drawn).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))


def other(name: str, y: Tensor) -> Tensor:
    """y, as a machine with another order of sums would have it."""
    exact = y.detach()
    if not exact.isfinite().all() or torch.equal(exact, exact.round()):
        return y
    u = noise(name, y.shape)
    if y.dtype != torch.float32:
        flips = (u.abs() > 1 - FLIPPED) * u.sign()
        return (y.float() * (1 + flips * torch.finfo(y.dtype).eps)).to(y.dtype)
    size = exact.abs()
    if name in SUMS:
        size = size.amax(-1, keepdim=True)
    return y + u * size * torch.finfo(torch.float32).eps


class LastBits(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        y = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").removesuffix(".default")
        if name not in SUMS and name not in EACH:
            return y
        if not isinstance(y, Tensor) or y.device.type != "cpu" or not y.numel():
            return y
        if y.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return y
        with torch._C.DisableTorchFunction():
            return other(name, y)


def pytest_configure(config):
    LastBits().__enter__()

"""Kernels of our own, in C for CPUs and in Triton for GPUs, each beside the torch code that it
equals.

    build        the C compiler, what it made, and why it could not
    attention    attention over a cache that is read in place · attention.c · twin: `ops.attend`
    linear       products with a weight in panels · linear.c, for 32 and 16 bits · twin: `F.linear`
                 · whole.c, for 8 and 4 bits · twins: `quant.linear`
    lore         what else a CPU likes, in torch's own calls
    cuda/        those in Triton

Where there is no compiler, no Triton, or the arithmetic does not fit, the callers take torch's way,
with the same result. `labkit doctor` says which.
"""

from labkit.kernels.build import compiler, missing

__all__ = ["compiler", "missing"]

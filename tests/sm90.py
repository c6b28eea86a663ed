"""Compile every kernel in Triton for an H100, on a machine that has none.

`python tests/sm90.py`: a line for each launch; an exception for one that the compiler refuses. With
`few`, each kernel once or twice. The calls are those of a decode step, on a CPU's tensors: what
they would launch is compiled instead.
"""

import sys
import time

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TYPES = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int16: "*i16",
}


def compiled(kernel: JITFunction, *args, grid=None, warmup=False, num_warps=4, **named):
    """In place of a launch: what it would run, for compute capability 9.0."""
    options = {"num_warps": num_warps}
    options |= {k: named.pop(k) for k in ("num_stages", "launch_pdl") if k in named}
    given = dict(zip(kernel.arg_names, args)) | named
    constants, signature, aligned = {}, {}, {}
    for i, p in enumerate(kernel.params):
        value = given[p.name]
        if p.is_constexpr:
            signature[p.name] = "constexpr"
            constants[(i,)] = value
        elif isinstance(value, torch.Tensor):
            signature[p.name] = TYPES[value.dtype]
            aligned[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[p.name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(kernel, signature, constants, aligned)
    start = time.perf_counter()
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    shared = made.metadata.shared
    print(f"{kernel.__name__:10} {shared:6} bytes shared, {time.perf_counter() - start:.1f} s")
    # what one processor of an H100 has
    assert shared <= 232_448, f"{kernel.__name__} wants {shared} bytes of shared memory"
    assert len(made.asm["cubin"])


def attends(R, G, E, dtype, table=None, **more):
    """A step of R requests on heads of E numbers."""
    from labkit.kernels.cuda import attention
    from labkit.kernels.cuda.heads import Heads
    from labkit.kernels.cuda.slots import Slots

    weight = torch.ones(E, dtype=dtype)
    angles = torch.zeros(9, E)
    heads = Heads(4 * G, G, E, 0.1, angles, q_norm=weight, k_norm=weight, **more)
    kept = torch.zeros(G, 64, E, dtype=dtype)
    qkv, at = torch.zeros(R, 6 * G * E, dtype=dtype), torch.zeros(R, dtype=torch.long)
    scratch = attention.Scratch.of(R, heads, "cpu")
    attention.attend(qkv, heads, Slots(kept, kept, 16, table), at, at, scratch, early=True)


def main(few: bool) -> None:
    from labkit.kernels.cuda import delta, gate, linear, norm
    from labkit.kernels.cuda.matrix import Matrix, pack

    JITFunction.run = compiled
    bf16 = {"dtype": torch.bfloat16}

    def matrix(bits):
        if bits == 16:
            return Matrix(torch.zeros(256, 4096, **bf16))
        codes = torch.zeros(256, 4096, dtype=torch.int8)
        return pack(codes, torch.ones(256) if bits == 8 else torch.ones(256, 128, **bf16), bits)

    for bits in (16, 8, 4):
        for rows in (1,) if few else (1, 8, 16):
            x, weight = torch.zeros(rows, 4096, **bf16), torch.ones(4096, **bf16)
            linear.linear(x, matrix(bits), weight, gate="swiglu", early=True)
    table = torch.zeros(8, 4, dtype=torch.long)
    attends(8, 8, 64, torch.bfloat16, table, window=64, sinks=torch.zeros(16, **bf16))
    if not few:
        linear.linear(torch.zeros(64, 4096, **bf16), matrix(8))
        linear.linear(torch.zeros(1, 4096, **bf16), matrix(16), add=torch.zeros(1, 256, **bf16))
        linear.linear(torch.zeros(2, 4096), Matrix(torch.zeros(256, 4096)))
        for dtype in (torch.bfloat16, torch.float32):
            attends(1, 8, 128, dtype)
            attends(64, 4, 256, dtype)
    x, weight = torch.zeros(3, 4096, **bf16), torch.ones(4096, **bf16)
    norm.add_norm(x, x, weight, 1e-5, early=True)
    gate.gated(x, "geglu", early=True)
    state = torch.zeros(1, 2, 128, 128)
    q, g = torch.zeros(1, 2, 128), torch.zeros(1, 2)
    delta.step(q, q, q, g, g, state, torch.zeros(1, dtype=torch.long))
    print("every kernel compiles")


if __name__ == "__main__":
    main("few" in sys.argv)

"""A few rows by a matrix: [add +] [act(gate) * up of] (RMSNorm(x) @ W.T), in one launch.

**One row, 16 or 8 bits: the vector kernel.** Weights come as words of 32 bits, and stay words until
they are multiplied: so they are *under way* in registers while others are multiplied, where 16-bit
numbers would be unpacked, and waited for, at once. The norm commutes with the product: each program
sums the squares of x while it multiplies, and divides at the end.

**2 to 16 rows, and 4 bits: the tile kernel.** Its products are tiles of the tensor cores. A norm
would be repeated for every row by every program, so it has its own launch there. 4 bits by
arithmetic take five to seven instructions a weight; by tensor cores three.

The numbers in `tiling_for` are those that were best, or within 8 % of it, for each matrix of an 8B
Llama on an H100.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labkit.kernels.cuda.gate import activated, gated_naive
from labkit.kernels.cuda.launch import INTERPRET, overlapping, words
from labkit.kernels.cuda.matrix import Matrix
from labkit.kernels.cuda.norm import add_norm

MOST_ROWS = 64  # beyond 16 a library's product is better in 16 bits; of few bits it has none


def linear_naive(
    x: Tensor,
    w: Matrix,
    norm: Tensor | None = None,
    eps: float = 1e-5,
    add: Tensor | None = None,
    gate: str = "",
) -> Tensor:
    """x [R,K] -> fp32 [R,N], or [R,N/2] where the matrix is gate over up, of `gate.KINDS`."""
    x = x.float()
    if norm is not None:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * norm.float()
    y = x @ w.dense().float().T
    if gate:
        y = gated_naive(y, gate)
    return y if add is None else add.float() + y


@dataclass(frozen=True)
class Tiling:
    """How a matrix is cut: a program's tile of outputs and of stored numbers (words in the vector
    kernel), its warps, and tiles under way.
    """

    outputs: int
    numbers: int
    warps: int = 4
    stages: int = 1
    dot: bool = False  # by tensor cores
    parts: int = 0  # of K in a tile, by tensor cores only; 0 = one for each warp


def tiling_for(bits: int, rows: int, dtype: torch.dtype = torch.bfloat16) -> Tiling:
    """One tiling a format."""
    if rows == 1 and bits > 4 and dtype == torch.bfloat16:
        return Tiling(4, 1024, 8) if bits == 16 else Tiling(4, 512, 4)
    if dtype == torch.float32:
        return Tiling(16, 32, 4, 2, dot=True)
    if rows > 16:
        # wide tiles of x: fewer of them fit beside each other
        return Tiling(32, 32, 4, 2, dot=True)
    return {
        16: Tiling(16, 128, 4, 3, dot=True),
        8: Tiling(16, 64, 4, 4, dot=True),
        4: Tiling(32, 32, 4, 4, dot=True),
    }[bits]


def takes(w: Matrix, rows: int, gate: str = "") -> bool:
    """Whether `linear` can cut such a matrix for so many rows."""
    outputs, inputs = w.shape
    tiling = tiling_for(w.bits, rows, w.codes.dtype if w.bits == 16 else torch.bfloat16)
    whole = outputs // (2 if gate else 1) % tiling.outputs == 0
    return whole and rows <= MOST_ROWS and inputs % 4 == 0


# -- one row ---------------------------------------------------------------------------------------


@triton.jit
def _half(word, h: tl.constexpr):
    """The h-th of two bf16 in a word: a bf16 is the upper half of an fp32."""
    if h == 0:
        bits = word << 16
    else:
        bits = word & -65536
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _wide(word, i: tl.constexpr, h: tl.constexpr, BITS: tl.constexpr):
    """The i-th code, less half its range, of the h-th number in a word, in fp32.

    Nothing is converted: with a code in its lowest bits, 0x4B000000 *is* the float 2^23 + code, and
    one subtraction leaves the code.
    """
    if BITS == 16:
        value = _half(word, h)
    else:
        if INTERPRET:
            laid = word >> (16 * h + 8 * i) & 255 | 0x4B000000
        else:
            # one instruction takes the code's byte and three of the constant
            laid = tl.inline_asm_elementwise(
                f"prmt.b32 $0, $1, 0x4B000000, {0x7540 + 2 * h + i};",
                "=r,r",
                [word],
                tl.int32,
                True,
                1,
            )
        value = laid.to(tl.float32, bitcast=True) - 8388736.0
    return value


@triton.jit
def _vector(
    x,
    w,
    scale,
    norm,
    add,
    y,
    eps,
    N,
    K: tl.constexpr,
    BITS: tl.constexpr,
    NORM: tl.constexpr,
    ADD: tl.constexpr,
    GATE: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """BN outputs a program; x, w and norm are words of two neighbouring 16-bit numbers.

    A thread multiplies four words at a time and sums in registers. The next tile of weights is
    always under way; the first is fetched before the kernel in front has finished, as weights
    depend on nothing.
    """
    Q: tl.constexpr = 16 // BITS
    ROW: tl.constexpr = K // (2 * Q)  # words in a row
    GATED: tl.constexpr = GATE != ""
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    at = rows[:, None] * ROW + k[None]
    first = (k < ROW)[None]
    if EARLY:
        gdc_launch_dependents()
    tile = tl.load(w + at, mask=first, other=0, eviction_policy="evict_first")  # [BN,BK]
    if GATED:
        tile_up = tl.load(w + N * ROW + at, mask=first, other=0, eviction_policy="evict_first")
    if EARLY:
        gdc_wait()
    total = tl.zeros([BN, BK // 4], tl.float32)
    total_up = tl.zeros([BN, BK // 4], tl.float32)
    square = tl.zeros([BK // 4], tl.float32)
    for k0 in range(0, ROW, BK):
        inside = k0 + k < ROW
        ahead = (k0 + BK + k < ROW)[None]
        now = tile
        now_up = tile
        if GATED:
            now_up = tile_up
        if BK < ROW:
            next = w + at + (k0 + BK)
            tile = tl.load(next, mask=ahead, other=0, eviction_policy="evict_first")
            if GATED:
                next += N * ROW
                tile_up = tl.load(next, mask=ahead, other=0, eviction_policy="evict_first")
        for i in tl.static_range(Q):
            pair = tl.load(x + i * ROW + k0 + k, mask=inside, other=0)
            if NORM:
                pair_norm = tl.load(norm + i * ROW + k0 + k, mask=inside, other=0)
            for h in tl.static_range(2):
                a = _half(pair, h)
                if NORM:
                    square += tl.sum(tl.reshape(a * a, [BK // 4, 4]), 1)
                    a *= _half(pair_norm, h)
                product = _wide(now, i, h, BITS) * a[None]
                total += tl.sum(tl.reshape(product, [BN, BK // 4, 4]), 2)
                if GATED:
                    product = _wide(now_up, i, h, BITS) * a[None]
                    total_up += tl.sum(tl.reshape(product, [BN, BK // 4, 4]), 2)
    out = tl.sum(total, 1)  # [BN]
    up = tl.sum(total_up, 1)
    if BITS == 8:
        out *= tl.load(scale + rows)
        if GATED:
            up *= tl.load(scale + N + rows)
    if NORM:
        inverse = tl.rsqrt(tl.sum(square, 0) / K + eps)
        out *= inverse
        up *= inverse
    if GATED:
        out = activated(out, up, GATE)
    if ADD:
        out += tl.load(add + rows).to(tl.float32)
    tl.store(y + rows, out.to(y.dtype.element_ty))


# -- a few rows ------------------------------------------------------------------------------------


@triton.jit
def _narrow(tile, i: tl.constexpr, dtype: tl.constexpr, BITS: tl.constexpr):
    """The i-th codes of a tile, less half their range; two neighbours at a time.

    8 bits go by way of fp32, as in `_wide`. 4 bits do the same over the bf16 128.
    """
    if INTERPRET:
        value = ((tile >> BITS * i & 2**BITS - 1) - 2 ** (BITS - 1)).to(dtype)
    elif BITS == 4:
        value = tl.inline_asm_elementwise(
            f"{{.reg .b32 t, c; shr.b32 t, $1, {4 * i};"
            " lop3.b32 t, t, 0x000F000F, 0x43004300, 0xEA;"
            " mov.b32 c, 0x43084308; sub.bf16x2 $0, t, c;}",
            "=r,r",
            [tile],
            tl.bfloat16,
            True,
            2,
        )
    else:
        value = tl.inline_asm_elementwise(
            "{.reg .b32 s, t; .reg .f32 f, g;"
            f" prmt.b32 s, $1, 0x4B000000, {0x7540 + i};"
            f" prmt.b32 t, $1, 0x4B000000, {0x7542 + i};"
            " mov.b32 f, s; mov.b32 g, t;"
            " add.f32 f, f, 0fCB000080; add.f32 g, g, 0fCB000080;"
            " cvt.rn.bf16x2.f32 $0, g, f;}",
            "=r,r",
            [tile],
            tl.bfloat16,
            True,
            2,
        )
    return value


@triton.jit
def _scales(scale, rows, k0, K: tl.constexpr, BITS: tl.constexpr, S: tl.constexpr):
    """In 4 bits a part of a tile is one group: the scales of the four groups that a number's codes
    are of, [S,BN] twice, two bf16 in a word.
    """
    if BITS == 4:
        group = k0 // 32 + tl.arange(0, S)[:, None]
        at = scale + rows[None] * (K // 64) + group * 2
        inside = group < K // 128
        pairs = (tl.load(at, mask=inside, other=0), tl.load(at + 1, mask=inside, other=0))
    else:
        pairs = (0, 0)
    return pairs


@triton.jit
def _weights(tile, scales, i: tl.constexpr, dtype: tl.constexpr, BITS: tl.constexpr):
    """The i-th weights of a tile [S,BN,BK]; those of 8 bits are scaled at the end."""
    if BITS == 16:
        values = tile
    elif BITS == 8:
        values = _narrow(tile, i, dtype, BITS)
    else:
        # as part of the product's operand, scales are fetched ahead with the rest
        scale = _half(scales[i // 2], i % 2).to(dtype)[:, :, None]
        values = _narrow(tile, i, dtype, BITS) * scale
    return values


@triton.jit
def _tile(
    x,
    w,
    scale,
    add,
    y,
    R,
    N,
    K: tl.constexpr,
    BITS: tl.constexpr,
    ADD: tl.constexpr,
    GATE: tl.constexpr,
    S: tl.constexpr,
    BR: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """BN outputs of up to BR rows a program, as products [BN,BK] @ [BK,BR].

    Few rows leave few programs, so a tile has S parts along K, one or two for each warp; their sums
    are added at the end. The next kernel may start only after the loop: earlier, its programs would
    pile up where there is room, and slow those that share a processor with them.
    """
    Q: tl.constexpr = 16 // BITS
    ROW: tl.constexpr = K // Q  # numbers in a row
    GATED: tl.constexpr = GATE != ""
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    r = tl.arange(0, BR)
    k = tl.arange(0, S)[:, None] * BK + tl.arange(0, BK)[None]  # [S,BK]
    if EARLY:
        gdc_wait()
    total = tl.zeros([S, BN, BR], tl.float32)
    total_up = tl.zeros([S, BN, BR], tl.float32)
    for k0 in range(0, ROW, S * BK):
        inside = k0 + k < ROW
        at = w + rows[None, :, None] * ROW + (k0 + k)[:, None]
        mask = inside[:, None]
        tile = tl.load(at, mask=mask, other=0, eviction_policy="evict_first")  # [S,BN,BK]
        if GATED:
            at += N * ROW
            tile_up = tl.load(at, mask=mask, other=0, eviction_policy="evict_first")
            scales_up = _scales(scale, N + rows, k0, K, BITS, S)
        scales = _scales(scale, rows, k0, K, BITS, S)
        for i in tl.static_range(Q):
            here = x + r[None, None] * K + (i * ROW + k0 + k)[:, :, None]
            mask_x = (r < R)[None, None] & inside[:, :, None]
            a = tl.load(here, mask=mask_x, other=0)  # x.T [S,BK,BR]
            weights = _weights(tile, scales, i, a.dtype, BITS)
            total = tl.dot(weights, a, total, input_precision="ieee")
            if GATED:
                weights = _weights(tile_up, scales_up, i, a.dtype, BITS)
                total_up = tl.dot(weights, a, total_up, input_precision="ieee")
    if EARLY:
        gdc_launch_dependents()
    out = tl.sum(total, 0)  # [BN,BR]
    up = tl.sum(total_up, 0)
    if BITS == 8:
        out *= tl.load(scale + rows)[:, None]
        if GATED:
            up *= tl.load(scale + N + rows)[:, None]
    if GATED:
        out = activated(out, up, GATE)
    at = r[None] * N + rows[:, None]
    live = (r < R)[None]
    if ADD:
        out += tl.load(add + at, mask=live, other=0).to(tl.float32)
    tl.store(y + at, out.to(y.dtype.element_ty), mask=live)


# -- both ------------------------------------------------------------------------------------------


def linear(
    x: Tensor,
    w: Matrix,
    norm: Tensor | None = None,
    eps: float = 1e-5,
    add: Tensor | None = None,
    gate: str = "",
    *,
    out: Tensor | None = None,
    tiling: Tiling | None = None,
    early: bool = False,
) -> Tensor:
    """`linear_naive`, in x's dtype. x [R,K] · norm [K] · add [R,N] -> [R,N], or [R,N/2] of gate
    over up.

    `add` may be overwritten by passing it as `out`. early: see `launch.overlapping`. Few bits want
    x in bf16. ValueError for a tiling that does not divide the outputs.
    """
    R, K = x.shape
    N = w.shape[0] // (2 if gate else 1)
    tiling = tiling or tiling_for(w.bits, R, x.dtype)
    if N % tiling.outputs or (not tiling.dot and (R > 1 or w.bits == 4)):
        raise ValueError(f"{tiling} can't cut {N} outputs of {w.bits} bits for {R} rows")
    if tiling.dot and norm is not None:
        x = add_norm(x, None, norm, eps, early)
        norm = None
    y = torch.empty(R, N, dtype=x.dtype, device=x.device) if out is None else out
    # what is absent is a pointer that is never followed
    scale = x if w.scale is None else words(w.scale) if w.bits == 4 else w.scale
    added = x if add is None else add
    options = {
        "K": K,
        "BITS": w.bits,
        "ADD": add is not None,
        "GATE": gate,
        "BN": tiling.outputs,
        "BK": tiling.numbers,
        "num_warps": tiling.warps,
        "num_stages": tiling.stages,
        **overlapping(early),
    }
    grid = (N // tiling.outputs,)
    if tiling.dot:
        parts = tiling.parts or tiling.warps
        tall = max(8, triton.next_power_of_2(R))
        _tile[grid](x, w.codes, scale, added, y, R, N, S=parts, BR=tall, **options)
    else:
        x = words(x)
        weight = x if norm is None else words(norm)
        normed = norm is not None
        _vector[grid](x, words(w.codes), scale, weight, added, y, eps, N, NORM=normed, **options)
    return y

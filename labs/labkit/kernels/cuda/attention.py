"""Attention of one token a request over a cache that is read where it lies, in one launch: rotate
query and key, write key and value to their slot, attend, merge.

Few requests would leave most of a GPU idle, so a request's tokens are split among several programs
(Flash-Decoding; Dao et al. 2023). The program that holds the newest token writes it and then reads
it like any other; the last program to finish merges the splits. How many splits there are is fixed,
how long they are follows from the positions at run time: one captured launch serves every context.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labkit.kernels.cuda.heads import Heads
from labkit.kernels.cuda.launch import overlapping
from labkit.kernels.cuda.slots import Slots

EVERYTHING = 2**30  # a window that hides nothing
PROGRAMS = 256  # two for each processor of a large GPU
MOST_SPLITS = 32
MERGED_AT_ONCE = 2**15  # numbers that one program holds while it merges


@dataclass(frozen=True, eq=False)
class Scratch:
    """Where splits leave what they found; `done` counts those that have, and returns to 0.

    Layers share it, as they run one after another; two streams must not.
    """

    part: Tensor  # [R,H,splits,E]
    stat: Tensor  # [R,H,splits,2]: the largest score, and the sum of weights
    done: Tensor  # [R,G]

    @classmethod
    def of(cls, R: int, heads: Heads, device: torch.device | str) -> Scratch:
        """For up to R requests in one launch, and any fewer."""
        splits = max(splits_for(r, heads) * r for r in range(1, R + 1))
        return cls(
            torch.empty(heads.H * splits * heads.E, device=device),
            torch.empty(heads.H * splits * 2, device=device),
            torch.zeros(R * heads.G, dtype=torch.int32, device=device),
        )


def splits_for(R: int, heads: Heads) -> int:
    """Into how many parts the tokens of each of R requests are split: a power of 2."""
    shared = triton.next_power_of_2(heads.H // heads.G)
    most = min(MOST_SPLITS, PROGRAMS // (R * heads.G), MERGED_AT_ONCE // (shared * heads.E))
    return 1 << max(0, most.bit_length() - 1)


def takes(head_dim: int) -> bool:
    """Whether `attend` can: head sizes are powers of 2."""
    return head_dim in (16, 32, 64, 128, 256)


# -- the naive twin --------------------------------------------------------------------------------


def rotate_and_write_naive(
    qkv: Tensor, heads: Heads, slots: Slots, rows: Tensor, pos: Tensor
) -> Tensor:
    """Normalise and rotate q and k, write k and v to their slots: qkv [R,>=(H+2G)*E] -> q [R,H,E].

    rows [R]: of the cache. pos [R]: of each request's token; -1 is padding, which writes nothing.
    """
    H, G, E = heads.H, heads.G, heads.E
    x = qkv[:, : (H + 2 * G) * E].reshape(len(qkv), -1, E).float()
    q = x[:, :H]
    k = x[:, H : H + G]
    v = x[:, H + G :]
    if heads.q_norm is not None and heads.k_norm is not None:
        q, k = (
            part * torch.rsqrt(part.pow(2).mean(-1, keepdim=True) + heads.eps) * weight.float()
            for part, weight in ((q, heads.q_norm), (k, heads.k_norm))
        )
    dim = heads.angles.shape[1]
    cos, sin = heads.angles[pos.clamp_min(0)][:, None].chunk(2, -1)

    def rotated(part: Tensor) -> Tensor:
        a, b, rest = part.split([dim // 2, dim // 2, E - dim], -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1).to(qkv.dtype)

    q, k = rotated(q), rotated(k)
    for r in range(len(qkv)):
        if pos[r] >= 0:
            slot = slots.of(rows[r], pos[r])
            slots.keys[:, slot] = k[r].to(slots.keys.dtype)
            slots.values[:, slot] = v[r].to(slots.values.dtype)
    return q


def attend_naive(qkv: Tensor, heads: Heads, slots: Slots, rows: Tensor, pos: Tensor) -> Tensor:
    """The same, and each request's attention to all that it may look at: fp32 [R,H*E]."""
    q = rotate_and_write_naive(qkv, heads, slots, rows, pos).float()
    out = torch.zeros_like(q)
    for r in range(len(q)):
        now = int(pos[r])
        if now < 0:
            continue
        oldest = max(0, now + 1 - (heads.window or EVERYTHING))
        at = slots.of(rows[r], torch.arange(oldest, now + 1, device=q.device))
        k, v = (
            buffer[:, at].float().repeat_interleave(heads.H // heads.G, 0)  # [H,S,E]
            for buffer in (slots.keys, slots.values)
        )
        scores = q[r, :, None] @ k.mT * heads.scale  # [H,1,S]
        if heads.sinks is not None:
            # one more score, whose value is nothing
            scores = torch.cat([scores, heads.sinks.float().view(-1, 1, 1)], -1)
        out[r] = (scores.softmax(-1)[..., : len(at)] @ v)[:, 0]
    return out.flatten(1)


# -- the kernel ------------------------------------------------------------------------------------


@triton.jit
def _rotated(
    row,
    first,
    count,
    angle,
    weight,
    eps,
    HEADS: tl.constexpr,
    E: tl.constexpr,
    DIM: tl.constexpr,
    NORM: tl.constexpr,
):
    """Heads `first` to `first + count` of a row of qkv, normalised and rotated: [HEADS,E] fp32.

    Dimension e of a pair becomes `x[e] cos -+ x[partner] sin`; those beyond DIM stay.
    """
    h = tl.arange(0, HEADS)[:, None]
    e = tl.arange(0, E)[None]
    at = row + (first + h) * E
    x = tl.load(at + e, mask=h < count, other=0).to(tl.float32)
    if NORM:
        inverse = tl.rsqrt(tl.sum(x * x, 1) / E + eps)[:, None]
        x *= inverse * tl.load(weight + e).to(tl.float32)
    if DIM > 0:
        HALF: tl.constexpr = DIM // 2
        partner = tl.where(e < HALF, e + HALF, e - HALF)
        turns = e < DIM
        y = tl.load(at + partner, mask=(h < count) & turns, other=0).to(tl.float32)
        if NORM:
            y *= inverse * tl.load(weight + partner, mask=turns, other=0).to(tl.float32)
        pair = tl.where(e < HALF, e, e - HALF)
        cos = tl.load(angle + pair, mask=turns, other=1)
        sin = tl.load(angle + HALF + pair, mask=turns, other=0)
        x = x * cos + y * tl.where(e < HALF, -sin, sin)
    return x


@triton.jit
def _slot(table, row, t, columns, mask, SIZE: tl.constexpr, PAGED: tl.constexpr):
    if PAGED:
        block = tl.load(table + row * columns + t // SIZE, mask=mask, other=0)
    else:
        block = row
    return block * SIZE + t % SIZE


@triton.jit
def _merge(
    part,
    stat,
    out,
    sinks,
    pair,
    live,
    H: tl.constexpr,
    SHARE: tl.constexpr,
    E: tl.constexpr,
    SPLITS: tl.constexpr,
    HEADS: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Weigh the splits of one request and key head by their share of the softmax, and add them."""
    h = tl.arange(0, HEADS)[:, None]
    split = tl.arange(0, SPLITS)[None]
    e = tl.arange(0, E)
    head = pair * SHARE + h
    at = head * SPLITS + split
    there = (h < SHARE) & (split < live)  # [HEADS,SPLITS]
    # other programs wrote these: past this processor's own cache
    top = tl.load(stat + at * 2, mask=there, other=-1e30, cache_modifier=".cg")
    weight = tl.load(stat + at * 2 + 1, mask=there, other=0, cache_modifier=".cg")
    values = part + at[:, :, None] * E + e[None, None]
    total = tl.load(values, mask=there[:, :, None], other=0, cache_modifier=".cg")
    highest = tl.max(top, 1)
    if SINKS:
        highest = tl.maximum(highest, _sink(sinks, head, h < SHARE, H))
    share = tl.exp2(top - highest[:, None])
    weight = tl.sum(share * weight, 1)
    if SINKS:
        weight += tl.exp2(_sink(sinks, head, h < SHARE, H) - highest)
    total = tl.sum(total * share[:, :, None], 1) / weight[:, None]
    tl.store(out + head * E + e[None], total.to(out.dtype.element_ty), mask=h < SHARE)


@triton.jit
def _sink(sinks, head, mask, H: tl.constexpr):
    """The sinks of heads [n,1], as scores to the base 2: [n]."""
    sink = tl.load(sinks + head % H, mask=mask, other=-1e30).to(tl.float32)
    return tl.sum(sink * 1.4426950408889634, 1)


@triton.jit
def _attend(
    qkv,
    keys,
    values,
    table,
    rows,
    pos,
    angles,
    q_norm,
    k_norm,
    sinks,
    out,
    part,
    stat,
    done,
    eps,
    scale,
    window,
    width,
    slots,
    columns,
    H: tl.constexpr,
    G: tl.constexpr,
    E: tl.constexpr,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    PAGED: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
    MERGED: tl.constexpr,
    NORM: tl.constexpr,
    SINKS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One program for each request, key head and split; it serves the H/G queries that share the
    head, filled up to the HEADS that a tensor core takes.
    """
    r = tl.program_id(0)
    g = tl.program_id(1)
    split = tl.program_id(2)
    SHARE: tl.constexpr = H // G
    h = tl.arange(0, HEADS)[:, None]
    e = tl.arange(0, E)
    if EARLY:
        gdc_launch_dependents()
    now = tl.load(pos + r)
    row = tl.load(rows + r)
    context = now + 1
    oldest = tl.maximum(context - window, 0)
    seen = context - oldest
    share = tl.maximum(tl.cdiv(tl.cdiv(seen, TILE), SPLITS), 1) * TILE  # tokens of a split
    live = tl.cdiv(seen, share)
    start = oldest + split * share
    stop = tl.minimum(start + share, context)
    mine = qkv + r * width
    angle = angles + tl.maximum(now, 0) * DIM
    if EARLY:
        gdc_wait()  # all above is the same in the whole step
    if start < stop:
        if stop == context:
            slot = _slot(table, row, now, columns, now >= 0, SIZE, PAGED)
            at = (g * slots + slot) * E + e[None]
            k = _rotated(mine, H + g, 1, angle, k_norm, eps, 1, E, DIM, NORM)
            v = tl.load(mine + (H + G + g) * E + e[None])
            # rounded as torch rounds them: to the projection's dtype, then to the cache's
            tl.store(keys + at, k.to(qkv.dtype.element_ty).to(keys.dtype.element_ty))
            tl.store(values + at, v.to(values.dtype.element_ty))
            tl.debug_barrier()  # what this program wrote, it reads below
        q = _rotated(mine, g * SHARE, SHARE, angle, q_norm, eps, HEADS, E, DIM, NORM)
        q = q.to(qkv.dtype.element_ty)
        top = tl.full([HEADS], -float("inf"), tl.float32)
        weight = tl.zeros([HEADS], tl.float32)
        total = tl.zeros([HEADS, E], tl.float32)
        for t0 in range(start, stop, TILE):
            t = t0 + tl.arange(0, TILE)
            there = t < stop
            at = (g * slots + _slot(table, row, t, columns, there, SIZE, PAGED)) * E
            k = tl.load(keys + at[None] + e[:, None], mask=there[None], other=0)  # [E,TILE]
            v = tl.load(values + at[:, None] + e[None], mask=there[:, None], other=0)  # [TILE,E]
            score = tl.dot(q, k.to(q.dtype), input_precision="ieee")
            score *= scale * 1.4426950408889634  # powers of 2 are what the chip computes
            score = tl.where(there[None], score, -float("inf"))
            new = tl.maximum(top, tl.max(score, 1))
            p = tl.exp2(score - new[:, None])
            fade = tl.exp2(top - new)
            top = new
            weight = weight * fade + tl.sum(p, 1)
            v = v.to(q.dtype)
            total = tl.dot(p.to(q.dtype), v, total * fade[:, None], input_precision="ieee")
        head = (r * G + g) * SHARE + h  # [HEADS,1] of R*H
        if SPLITS == 1:
            if SINKS:
                sink = _sink(sinks, head, h < SHARE, H)
                new = tl.maximum(top, sink)
                fade = tl.exp2(top - new)
                weight = weight * fade + tl.exp2(sink - new)
                total *= fade[:, None]
            total /= weight[:, None]
            to = out + head * E + e[None]
            tl.store(to, total.to(out.dtype.element_ty), mask=h < SHARE)
        else:
            at = head * SPLITS + split
            tl.store(part + at * E + e[None], total, mask=h < SHARE)
            tl.store(stat + at * 2, top[:, None], mask=h < SHARE)
            tl.store(stat + at * 2 + 1, weight[:, None], mask=h < SHARE)
            tl.debug_barrier()  # all of this program's results are out before it says so
            pair = r * G + g
            if tl.atomic_add(done + pair, 1, sem="acq_rel") == live - 1:
                tl.store(done + pair, 0)
                _merge(part, stat, out, sinks, pair, live, H, SHARE, E, SPLITS, MERGED, SINKS)


def attend(
    qkv: Tensor,
    heads: Heads,
    slots: Slots,
    rows: Tensor,
    pos: Tensor,
    scratch: Scratch,
    *,
    splits: int | None = None,
    tile: int | None = None,
    early: bool = False,
) -> Tensor:
    """`attend_naive`, in qkv's dtype: [R,>=(H+2G)*E] -> [R,H*E].

    rows [R], pos [R]: whole numbers; a request at -1 is padding, and its result is undefined.
    splits, tile: see `splits_for`; None = what was best on an H100. early: see
    `launch.overlapping`.
    """
    H, G, E = heads.H, heads.G, heads.E
    R = len(qkv)
    out = torch.empty(R, H * E, dtype=qkv.dtype, device=qkv.device)
    normed = heads.q_norm is not None
    splits = splits or splits_for(R, heads)
    # a processor's own memory holds two tiles of keys and two of values
    tile = tile or (64 if E * qkv.element_size() <= 256 else 32)
    paged = slots.table is not None
    shared = triton.next_power_of_2(H // G)
    _attend[(R, G, splits)](
        qkv,
        slots.keys,
        slots.values,
        slots.table if paged else rows,  # what is absent is a pointer that is never followed
        rows,
        pos,
        heads.angles,
        heads.q_norm if normed else qkv,
        heads.k_norm if normed else qkv,
        qkv if heads.sinks is None else heads.sinks,
        out,
        scratch.part,
        scratch.stat,
        scratch.done,
        heads.eps,
        heads.scale,
        heads.window or EVERYTHING,
        qkv.stride(0),
        slots.keys.shape[1],
        slots.table.shape[1] if paged else 0,
        H=H,
        G=G,
        E=E,
        DIM=heads.angles.shape[1],
        SIZE=slots.size,
        PAGED=paged,
        SPLITS=splits,
        TILE=tile,
        HEADS=max(16, shared),
        MERGED=shared,
        NORM=normed,
        SINKS=heads.sinks is not None,
        num_warps=4,
        num_stages=2,
        **overlapping(early),
    )
    return out

"""Kernels in Triton equal the naive torch code beside them.

Without a GPU they run in Triton's interpreter, whose tensor cores take fp32 only; on a GPU
(`make gpu`) the same tests run in bf16.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from labkit.kernels import cuda
from labkit.kernels.cuda import attention, delta, gate, norm
from labkit.kernels.cuda import linear as few_rows
from labkit.kernels.cuda.heads import Heads
from labkit.kernels.cuda.linear import Tiling
from labkit.kernels.cuda.matrix import Matrix, pack
from labkit.kernels.cuda.slots import Slots
from labkit.mixers.delta import recurrent
from labkit.quant.linear import channel_codes, group_codes

pytestmark = [
    # of heads and requests that are none
    pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered"),
    *([] if cuda.interpreted() else [pytest.mark.cuda]),
]
DEVICE, DTYPE = ("cpu", torch.float32) if cuda.interpreted() else ("cuda", torch.bfloat16)
# rounding to bf16 is 4e-3; in fp32 only the order of sums differs
GATE = 1e-5 if cuda.interpreted() else 8e-3
ATTEND = 1e-5 if cuda.interpreted() else 1.2e-2  # weights are rounded too

EPS = 0.1  # of norms: so large that one who forgets it is seen


def gap(got, want):
    """||got - want|| / ||want||."""
    return ((got.float() - want.float()).norm() / want.float().norm()).item()


def normal(*shape, seed=0, scale=1.0, dtype=DTYPE):
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale
    return drawn.to(DEVICE, dtype)


def matrix(outputs, inputs, bits, dtype):
    weight = normal(outputs, inputs, seed=1, scale=inputs**-0.5, dtype=dtype)
    if bits == 16:
        # behind the last row lies what must not be read
        behind = torch.full_like(weight[:1], float("nan")).expand(8, -1)
        return Matrix(torch.cat([weight, behind])[:outputs])
    codes = channel_codes(weight.float()) if bits == 8 else centred_codes(weight.float())
    return pack(*codes, bits)


def centred_codes(weight):
    """4-bit codes [N,K] -8 … 7 and their scale [N,K/32] bf16."""
    codes, scale, _ = group_codes(weight)
    return codes.to(torch.int8) - 8, scale.bfloat16()


# -- matrices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
def test_packed_codes_unpack_to_themselves(bits):
    weight = normal(6, 256, dtype=torch.float32)
    if bits == 8:
        codes, scale = channel_codes(weight)
        want = codes * scale[:, None]
    else:
        codes, scale = centred_codes(weight)
        want = codes * scale.float().repeat_interleave(32, 1)
    packed = pack(codes, scale, bits)
    assert torch.equal(packed.dense(), want)
    assert packed.shape == (6, 256) and packed.nbytes == 6 * 256 * bits // 8 + scale.nbytes


def test_rows_that_do_not_split_are_refused():
    with pytest.raises(ValueError, match="rows of 96 inputs do not split into 4 runs of groups"):
        pack(torch.zeros(2, 96, dtype=torch.int8), torch.ones(2, 3).bfloat16(), 4)


# -- linear ----------------------------------------------------------------------------------------

KINDS = {
    "norm": {"norm": True},
    "add": {"add": True},
    "norm, gated": {"norm": True, "gate": "swiglu"},
}
# fp32 in the interpreter's tensor cores; a GPU has what `tiling_for` says, too
VECTOR = [Tiling(4, 32), Tiling(8, 1024, 8)]
TILES = [Tiling(16, 32, 4, 3, dot=True, parts=8), Tiling(32, 32, 2, 3, dot=True)]


def check_linear(R, outputs, inputs, bits, tiling, *, norm=False, add=False, gate=""):
    dtype = DTYPE if tiling.dot else torch.bfloat16
    x = normal(R, inputs, seed=2, dtype=dtype)
    w = matrix(outputs * (2 if gate else 1), inputs, bits, dtype)
    weight = 1 + normal(inputs, seed=3, scale=0.2, dtype=dtype) if norm else None
    extra = normal(R, outputs, seed=4, dtype=dtype) if add else None
    # fp32 comes out, so that the vector kernel's sums are seen unrounded; NaN where none is written
    out = torch.full((R, outputs), float("nan"), dtype=torch.float32, device=DEVICE)
    got = few_rows.linear(x, w, weight, EPS, extra, gate, out=out, tiling=tiling)
    want = few_rows.linear_naive(x, w, weight, EPS, extra, gate)
    assert gap(got, want) < (GATE if tiling.dot else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [16, 8])
def test_one_row_by_a_matrix(bits, kind):
    for tiling in VECTOR:
        check_linear(1, 32, 208, bits, tiling, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_few_rows_by_a_matrix(bits, kind):
    inputs = 384 if bits == 4 else 208  # more than a tile, and no whole number of them
    check_linear(3, 64, inputs, bits, TILES[0], **KINDS[kind])
    check_linear(9, 32, inputs, bits, TILES[1], **KINDS[kind])


def test_the_residual_may_be_added_to_in_place():
    x, w, add = normal(2, 64), matrix(32, 64, 16, DTYPE), normal(2, 32, seed=5)
    want = few_rows.linear_naive(x, w, add=add)
    got = few_rows.linear(x, w, add=add, out=add, tiling=TILES[0])
    assert got is add and gap(add, want) < GATE


def test_every_format_has_a_tiling_that_takes_it():
    for bits in (16, 8, 4):
        w = matrix(64, 128, bits, DTYPE)
        for rows in (1, 2, 16):
            assert few_rows.takes(w, rows)
            x = normal(rows, 128)
            # the vector kernel is for bf16; of fp32, whole numbers are tiles too
            if bits != 8 or rows > 1 or not cuda.interpreted():
                assert gap(few_rows.linear(x, w), few_rows.linear_naive(x, w)) < GATE
        assert not few_rows.takes(w, few_rows.MOST_ROWS + 1)
    odd = matrix(24, 128, 16, DTYPE)
    assert not few_rows.takes(odd, 2)
    with pytest.raises(ValueError, match="can't cut 24 outputs of 16 bits for 2 rows"):
        few_rows.linear(normal(2, 128), odd)


# -- attention -------------------------------------------------------------------------------------


def angles(positions, dim, theta=1e4):
    frequencies = theta ** -(torch.arange(0, dim, 2) / max(dim, 1))
    turned = torch.arange(positions)[:, None] * frequencies
    return torch.cat([turned.cos(), turned.sin()], 1).to(DEVICE)


def a_cache(kind, rows, G, E, capacity, size=4):
    """Full of noise, so that what must not be read is seen; pages in random order."""
    table, slots = None, rows * capacity
    if kind == "paged":
        columns = -(-capacity // size)
        order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(0))
        table, slots = order.view(rows, columns).to(DEVICE), rows * columns * size
    keys, values = (normal(G, slots, E, seed=seed) for seed in (6, 7))
    return Slots(keys, values, capacity if table is None else size, table)


LAYERS = {  # H, G, E, rotated, and what the layer adds
    "plain": (6, 2, 32, 32, {}),
    "multi-head": (2, 2, 16, 16, {}),
    "norms": (4, 1, 16, 16, {"normed": True}),
    "partly rotated": (4, 2, 32, 8, {"normed": True}),
    "not rotated": (4, 2, 16, 0, {}),
    "window": (6, 2, 32, 32, {"window": 19}),
    "sinks": (4, 2, 16, 16, {"sunk": True}),
    "window, sinks": (4, 2, 16, 16, {"sunk": True, "window": 19}),
}


CASES = [
    *[(layer, "paged", 4) for layer in LAYERS],
    *[(layer, "static", 1) for layer in ("plain", "partly rotated", "window, sinks")],
    ("window", "ring", 1),
    ("window, sinks", "ring", 4),
]


@pytest.mark.parametrize("layer,kind,splits", CASES)
def test_attention(layer, kind, splits):
    """Requests of many lengths, in rows out of order, one of them padding; a second time writes the
    same, and the count of finished splits is 0 again.
    """
    H, G, E, dim, adds = LAYERS[layer]
    window = adds.get("window")
    normed = "normed" in adds
    weights = [1 + normal(E, seed=s, scale=0.2) if normed else None for s in (8, 9)]
    sinks = normal(H, seed=10) if "sunk" in adds else None
    heads = Heads(H, G, E, 0.3, angles(64, dim), window, *weights, EPS, sinks)
    slots = a_cache(kind, 3, G, E, window if kind == "ring" else 48)
    theirs = Slots(slots.keys.clone(), slots.values.clone(), slots.size, slots.table)
    rows = torch.tensor([2, 0, 1], device=DEVICE)
    pos = torch.tensor([40, -1, 16], device=DEVICE)
    qkv = normal(3, (H + 2 * G) * E + 8, seed=11)  # what lies behind them is passed over
    want = attention.attend_naive(qkv, heads, theirs, rows, pos)
    scratch = attention.Scratch.of(3, heads, DEVICE)
    live = pos >= 0
    for _ in range(2 if layer == "plain" else 1):
        got = attention.attend(qkv, heads, slots, rows, pos, scratch, splits=splits, tile=16)
        assert gap(got[live], want[live]) < ATTEND
        assert gap(slots.keys, theirs.keys) < GATE and torch.equal(slots.values, theirs.values)
        assert not scratch.done.any()


def test_splits_follow_the_number_of_requests():
    heads = Heads(32, 8, 128, 0.1, angles(1, 128))
    found = {R: attention.splits_for(R, heads) for R in (1, 2, 8, 9, 64, 500)}
    assert found == {1: 32, 2: 16, 8: 4, 9: 2, 64: 1, 500: 1}
    many = Heads(64, 1, 256, 0.1, angles(1, 256))
    assert attention.splits_for(1, many) == 2  # more could not be merged at once
    scratch = attention.Scratch.of(9, heads, DEVICE)
    assert len(scratch.part) == 32 * 128 * max(
        R * attention.splits_for(R, heads) for R in range(1, 10)
    )


def test_head_sizes_that_it_takes():
    assert [E for E in (8, 16, 48, 64, 80, 128, 256, 512) if attention.takes(E)] == [
        16,
        64,
        128,
        256,
    ]


# -- the small ones --------------------------------------------------------------------------------


@pytest.mark.parametrize("added", [False, True])
def test_norm(added):
    x, weight = normal(3, 100), 1 + normal(100, seed=1, scale=0.2)
    delta = normal(3, 100, seed=2) if added else None
    stream, want = norm.add_norm_naive(x, delta, weight, EPS)
    assert gap(norm.add_norm(x, delta, weight, EPS), want) < GATE
    assert torch.equal(x, stream)


@pytest.mark.parametrize("kind", gate.KINDS)
def test_gate(kind):
    x = normal(3, 2 * 1100, scale=4)
    assert gap(gate.gated(x, kind), gate.gated_naive(x, kind)) < GATE


def test_the_delta_rule_of_one_token():
    R, Hv, dk, dv = 3, 2, 24, 40
    wide = {"dtype": torch.float32}
    q, k, v = (normal(R, Hv, n, seed=i, scale=0.3, **wide) for i, n in enumerate((dk, dk, dv)))
    g, beta = -normal(R, Hv, seed=3, **wide).abs(), normal(R, Hv, seed=4, **wide).sigmoid()
    state = normal(4, Hv, dk, dv, seed=5, **wide)
    rows = torch.tensor([3, -1, 0], device=DEVICE)
    mine, theirs = state.clone(), state.clone()
    got, want = (
        delta.step(q, k, v, g, beta, mine, rows),
        delta.step_naive(q, k, v, g, beta, theirs, rows),
    )
    live = rows >= 0
    assert gap(got[live], want[live]) < 1e-5 and gap(mine, theirs) < 1e-5
    assert torch.equal(mine[1:3], state[1:3])
    # and it is the rule that the mixer has
    out, S = recurrent(*(t[live, None] for t in (q, k, v, g, beta)), state[rows[live]])
    assert gap(want[live], out[:, 0]) < 1e-5 and gap(theirs[rows[live]], S) < 1e-5


# -- without a GPU, for one ------------------------------------------------------------------------


@pytest.mark.skipif(not cuda.interpreted(), reason="a GPU has compiled them by now")
def test_every_kernel_compiles_for_a_gpu_that_is_not_here():
    from triton import knobs

    if knobs.nvidia.ptxas is None:
        pytest.skip("there is no ptxas here")
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", here / "sm90.py", "few"],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "every kernel compiles" in done.stdout, done.stderr[-2000:]

"""Formats are their published tables, rounding is torch's, and scales do what the papers say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.mxfp4 import FP4_VALUES

from labkit import reference
from labkit.reference import formats

FLOAT8 = {"E4M3": torch.float8_e4m3fn, "E5M2": torch.float8_e5m2}
# QLoRA, appendix E
NF4 = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


@pytest.mark.parametrize("name", FLOAT8)
def test_fp8_is_torchs_table(name):
    every_code = torch.arange(256, dtype=torch.uint8).view(FLOAT8[name]).float().numpy()
    assert np.array_equal(np.unique(every_code[np.isfinite(every_code)]), getattr(formats, name))


@pytest.mark.parametrize("name", FLOAT8)
def test_fp8_rounds_as_torch_does(name):
    values = getattr(formats, name)
    draw = np.random.default_rng(0)
    x = draw.standard_normal(50_000) * 10 ** draw.uniform(-7, 3, 50_000)
    # the middles too: ties go to the even code
    x = np.concatenate([x, (values[1:] + values[:-1]) / 2]).astype(np.float32)
    x = x[np.abs(x) <= values[-1]]
    want = torch.from_numpy(x).to(FLOAT8[name]).float().numpy()
    assert np.array_equal(formats.nearest(x.astype(float), values), want)
    assert formats.nearest(np.array([1e9, -1e9]), values).tolist() == [values[-1], values[0]]


def test_four_bit_tables_are_the_published_ones():
    assert np.allclose(formats.NF4, NF4, atol=4e-6)
    # transformers', for gpt-oss
    assert sorted({v + 0.0 for v in FP4_VALUES}) == formats.E2M1.tolist()
    assert formats.E4M3[-1] == 448 and formats.E5M2[-1] == 57344


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(reference.FORMATS)), st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_every_format_keeps_a_value_within_half_a_step(name, seed, size):
    """And what it has kept it keeps again, unless its scales are themselves rounded."""
    w = np.random.default_rng(seed).standard_normal((3, 256)) * size
    once = reference.FORMATS[name](w)
    assert reference.errors(w, once)["relative"] < {8: 0.07, 4: 0.2}[reference.FORMATS[name].bits]
    if "twice" not in name and name not in ("nvfp4", "mxfp4"):
        assert np.allclose(reference.FORMATS[name](once), once, rtol=1e-9, atol=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=1, max_size=20))
def test_nearest_is_nearest(x):
    x = np.array(x)
    assert np.array_equal(
        np.abs(formats.nearest(x, formats.E2M1) - x), np.abs(formats.E2M1 - x[:, None]).min(axis=1)
    )


def test_block_scales():
    w = np.zeros((1, 32))
    w[0, :2] = [7.0, 0.6]
    # scale 2^(2-2): 7 is clipped to the largest, as in OCP 6.3
    assert np.array_equal(reference.FORMATS["mxfp4"](w)[0, :2], [6.0, 0.5])
    w[0, 0] = 8.0
    # scale 2: 0.6 / 2 = 0.3 rounds to 0.5
    assert np.array_equal(reference.FORMATS["mxfp4"](w)[0, :2], [8.0, 1.0])
    two = reference.FORMATS["nvfp4"](
        np.concatenate([np.full((1, 16), 6.0), np.full((1, 16), 6 / 448)], axis=1)
    )
    # block scales 448 and 1 of a common 1/448
    assert np.allclose(two, [[6.0] * 16 + [6 / 448] * 16])
    assert (
        reference.FORMATS["nf4 twice"].bits_per_weight(4096)
        == 4 + 8 / 64 + 32 / (64 * 256)
        == 4.126953125
    )
    assert [reference.FORMATS[n].bits_per_weight(4096) for n in ("int4", "mxfp4", "nvfp4")] == [
        4.5,
        4.25,
        4.5,
    ]
    with pytest.raises(ValueError, match="rows of 33 do not split into blocks of 32"):
        reference.FORMATS["int4"](np.ones((2, 33)))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_quantise_equals_torchs_fake_quantisation(bits, symmetric):
    w = np.random.default_rng(bits).standard_normal((16, 64)) + 0.5
    ours = reference.quantise(w, bits, group="row", symmetric=symmetric)
    low, high = (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    theirs = torch.fake_quantize_per_channel_affine(
        torch.tensor(w).float(),
        torch.tensor(ours.scale[:, 0]).float(),
        torch.tensor(ours.zero[:, 0]).float().int(),
        0,
        low,
        high,
    )
    assert np.abs(ours.dequantise() - theirs.numpy()).max() < 1e-5 * np.abs(w).max()
    assert (
        np.abs(ours.dequantise() - w).max()
        <= ours.scale.max() * (0.5 if symmetric else 1.0) + 1e-12
    )


def test_nf4s_second_level_costs_next_to_nothing():
    w = np.random.default_rng(3).standard_normal((64, 4096)) * 0.02
    once, twice = (
        reference.errors(w, reference.FORMATS[n](w))["relative"] for n in ("nf4", "nf4 twice")
    )
    assert once < twice < 1.005 * once


def test_smaller_groups_round_closer():
    w = np.random.default_rng(1).standard_normal((8, 256)) * np.exp(
        np.random.default_rng(2).standard_normal((8, 256))
    )
    errors = [
        reference.errors(w, reference.quantise(w, 4, g).dequantise())["relative"]
        for g in (None, "row", 64, 16)
    ]
    assert errors == sorted(errors, reverse=True) and errors[3] < errors[0] / 2
    with pytest.raises(ValueError, match="do not split into groups of 48"):
        reference.quantise(w, 4, 48)


def test_a_bit_is_six_decibels():
    x = np.random.default_rng(0).uniform(-1, 1, (1, 200_000))
    a, b = (
        reference.errors(x, reference.quantise(x, bits).dequantise())["decibels"] for bits in (8, 9)
    )
    assert b - a == pytest.approx(6.02, abs=0.1)


def test_one_large_number_costs_its_own_row_only():
    x, w = np.random.default_rng(0).standard_normal((2, 6, 64)).astype(np.float32)
    x[2, 5] = 3000.0
    others = [0, 1, 3, 4, 5]
    gap = {
        per_row: np.abs(reference.int8_linear(x, w, per_row) - x @ w.T)[others].max()
        for per_row in (True, False)
    }
    assert gap[True] < 0.3 < 5 < gap[False]

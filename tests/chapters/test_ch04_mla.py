"""Chapter 04: the ways cost what the formulas say, cross there, and break as the page says."""

import math

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from labkit import presets, results
from labkit.mixers import MLA
from labkit_labs.ch04_mla import absorbed, breakages, crossover
from labkit_labs.common import layer
from tests.cases import quick_rows


@pytest.mark.parametrize("path", ["absorbed", "reprojected"])
def test_the_costs_of_both_latent_paths_are_those_that_torch_counts(path):
    mixer, config = layer.make(presets["tiny-mla"]), presets["tiny-mla"]
    mixer.path = path
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer.decoder(mixer, 50)()
    projections = 2 * (mixer.down.weight.numel() + mixer.out.weight.numel())
    assert counter.get_total_flops() == projections + absorbed.costs(config, 50)[path]


def test_a_latent_layer_keeps_576_numbers_a_token():
    row = quick_rows("CH04-ABSORBED")[0]
    assert row["latent_bytes"] == row["context"] * (512 + 64) * 4
    assert row["v3_bytes"] == row["context"] * (512 + 64) * 61 * 2 and row[
        "v3_saving"
    ] == pytest.approx(128 * (128 + 64 + 128) / 576)


# -- the crossing --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["absorbed", "re-projected", "kept heads"])
@pytest.mark.parametrize("new", [1, 7])
def test_the_costs_of_several_new_tokens_are_those_that_torch_counts(way, new):
    mixer, config = layer.make(presets["tiny-mla"]), presets["tiny-mla"]
    fn = crossover.attentions(mixer, new, 50, "cpu")[way]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        fn()
    assert counter.get_total_flops() == crossover.costs(config, new, 50)[way]


@pytest.mark.parametrize("context", [200, 2048, 100_000])
def test_at_the_crossing_both_ways_cost_the_same(context):
    c = presets["deepseek-v3"]
    at = crossover.crossing(c, context)
    costs = crossover.costs(c, at, context)
    assert costs["absorbed"] == pytest.approx(costs["re-projected"])
    fewer, more = (crossover.costs(c, at + d, context) for d in (-1, 1))
    assert fewer["absorbed"] < fewer["re-projected"] and more["absorbed"] > more["re-projected"]


def test_labkits_own_choice_follows_the_same_sum():
    """`MLA.absorbs` decides at the crossing of an endless context."""
    mixer = MLA(absorbed.LITE)
    at = crossover.crossing(absorbed.LITE)
    assert at == pytest.approx(512 * 256 / 768)
    assert mixer.absorbs(int(at), 10_000) and not mixer.absorbs(int(at) + 1, 10_000)
    assert not mixer.absorbs(100, 100), "a prompt from its start is re-projected"


def test_a_measured_crossing_lies_between_two_counts():
    assert crossover.measured_crossing({1: 9.0, 100: 2.0, 200: 0.5}) == pytest.approx(2**0.5 * 100)
    assert math.isnan(crossover.measured_crossing({1: 9.0, 100: 2.0}))
    assert math.isnan(crossover.measured_crossing({1: 0.5, 100: 0.2}))


def test_the_clocks_cross_where_the_measured_speeds_say_and_not_before_the_flops():
    """The page says both."""
    for r in results.load("ch04/crossover")["rows"]:
        assert r["derived"] < r["measured"] < 512
        assert r["by_seconds"] == pytest.approx(r["measured"], rel=0.25)


def test_a_crossing_by_seconds_is_making_over_saving():
    rows = [
        {"new": new, "way": way, "median": median}
        for new, times in {1: (1.0, 11.0, 1.0), 5: (9.0, 9.0, 9.0), 10: (5.0, 13.0, 3.0)}.items()
        for way, median in zip(crossover.WAYS, times)
    ]
    assert crossover.crossing_by_seconds(rows) == pytest.approx(10 / ((5 - 3) / 10))
    slower = [r | {"median": 9.0} if r["way"] == "kept heads" else r for r in rows]
    assert math.isnan(crossover.crossing_by_seconds(slower))


# -- what breaks a latent layer ------------------------------------------------------------


def test_an_unbroken_layer_passes_every_test():
    made = breakages.Layer()
    assert all(test(made) for test in breakages.TESTS.values())
    assert breakages.symptom(made) == "none"


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (breakages.Scale, "ways agree, all = oracle"),
        (breakages.Blunt, "all = oracle"),
        (breakages.OnePairing, "ways agree, all = oracle"),
        (breakages.BothPairings, "all = oracle"),
        (breakages.Restarts, "cached = whole"),
        (breakages.Order, "ways agree, token 0 = oracle, all = oracle"),
        (breakages.ValuesFirst, "token 0 = oracle, all = oracle"),
        (breakages.NoNorm, "token 0 = oracle, all = oracle"),
    ],
)
def test_each_fault_is_seen_by_the_tests_the_page_names(fault, seen):
    row = next(r for r in breakages.bench() if r["switch"] == fault.switch)
    assert row["seen by"] == seen and "off from token" in row["symptom"]


def test_one_token_passes_as_many_faults_as_the_page_says():
    rows = breakages.bench()
    passed = [r for r in rows if "token 0 = oracle" not in r["seen by"]]
    assert (len(passed), len(rows)) == (5, 8)


def test_neighbours_reordered_are_halves():
    """`adjacent_rope` against a rotation written out pair by pair."""
    x, pos = np.random.default_rng(0).standard_normal((5, 2, 8)), np.arange(5)
    angle = pos[:, None] * 1e4 ** -(np.arange(0, 8, 2) / 8)
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    want = np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)
    assert np.allclose(breakages.adjacent_rope(x, pos, 1e4), want)

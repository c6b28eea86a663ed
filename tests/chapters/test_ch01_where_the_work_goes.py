"""Chapter 01: the components add up, the bench of protocols catches each broken rule, a launch is
counted, and the page's numbers follow from its sizes.
"""

import json
import sys
from functools import partial

import pytest
import torch

from animations.scenes.ch01_where_the_work_goes import WeightsStream
from labkit import formulas, presets, results
from labkit.kernels import compiler
from labkit_labs.ch01_where_the_work_goes import flops, launch, protocols, roofline, template
from labkit_labs.common import gpus
from tests.cases import report


@pytest.mark.parametrize("name", [*flops.MODELS, "gemma3-27b", "qwen3-next-80b-a3b"])
@pytest.mark.parametrize("context", [1000, 5000, 2**20])
def test_components_add_up_to_the_formula(name, context):
    row = flops.by_component(name, context)
    assert row["flops"] == row["formula"] and sum(
        row[f"share_{part}"] for part in ("projections", "attention", "ffn", "head")
    ) == pytest.approx(1)


@pytest.mark.parametrize("name", ["smollm2-135m", "llama3-8b", "deepseek-v3"])
def test_the_table_of_parts_holds_every_parameter_and_every_flop(name):
    rows = flops.parts_of(name, 1024)
    assert sum(r["parameters"] for r in rows) == formulas.parameters(presets[name])
    assert sum(r["flops"] for r in rows) == formulas.decode_flops(presets[name], 1024)
    if not presets[name].tie_embeddings:
        assert next(r for r in rows if r["part"] == "embedding")["flops"] == 0


# -- protocols -----------------------------------------------------------------------------------


def test_the_right_protocol_finds_the_truth_and_passes_every_test():
    _, multiple = protocols.Protocol().reports()
    assert multiple == pytest.approx(protocols.TRUTH, rel=protocols.NEAR)
    assert all(test(protocols.Protocol()) for test in protocols.TESTS.values())


@pytest.mark.parametrize("kind", protocols.FAULTS, ids=lambda kind: kind.rule)
def test_each_broken_rule_misleads_and_only_its_own_test_sees_it(kind):
    milliseconds, multiple = kind().reports()
    right, _ = protocols.Protocol().reports()
    off = max(abs(multiple / protocols.TRUTH - 1), abs(milliseconds / right - 1))
    assert off > 3 * protocols.NEAR
    assert [name for name, test in protocols.TESTS.items() if not test(kind())] == [kind.rule]


# -- the roofline --------------------------------------------------------------------------------


def test_a_steps_floor_is_the_longer_of_its_two_times():
    best = formulas.Hardware("a machine", 100.0, 10.0)
    config = presets["tiny"]
    row = roofline.of_step(config, ("decode", 4, 64), [(1.0, 0.5), (1.0, 0.5)], best)
    work = 4 * formulas.decode_flops(config, 64)
    read = formulas.decode_bytes(config, 64, 4, "fp32")
    assert row["floor"] == pytest.approx(max(work / 100, read / 10))
    assert row["busy"] == 0.5 and row["limit"] == "memory"
    assert row["of_floor"] == pytest.approx(max(row["mfu"], row["mbu"]))


def test_in_16_bits_a_step_does_as_many_flops_a_weights_byte_as_it_has_requests():
    config = presets["llama3-8b"]
    weights = formulas.decode_bytes(config, 0, 1)
    matrices = formulas.decode_flops(config, 0)
    assert matrices / weights == pytest.approx(1, rel=1e-3)


def test_attention_does_two_flops_a_byte_for_each_query_head_of_a_group():
    config = presets["llama3-8b"]
    at = lambda context: (
        formulas.attention_flops(config, 1, context),
        formulas.kv_cache_bytes(config, context),
    )
    work, read = at(8000)
    assert work / read == config.n_heads / config.n_kv_heads


# -- launches ------------------------------------------------------------------------------------


counts = pytest.mark.skipif(
    "tests.last_bits" in sys.modules, reason="the plugin calls torch beside every sum"
)


@counts
def test_what_leaves_python_is_counted():
    x = torch.zeros(4, 4)
    with torch.inference_mode():
        assert launch.calls_of(lambda: None, "cpu") == 0
        assert launch.calls_of(lambda: (x.add_(1), None)[1], "cpu") == 1
        assert launch.calls_of(lambda: ([x.add_(1) for _ in range(5)], None)[1], "cpu") == 5
        # a product is one request, whatever torch makes of it inside
        assert launch.calls_of(lambda: (torch.nn.functional.linear(x, x), None)[1], "cpu") == 1


@counts
def test_a_captured_step_asks_as_often_for_thirty_layers_as_for_four():
    asked = {}
    with torch.inference_mode():
        for name in ("tiny", launch.DEEP):
            model = launch.load(name, "cpu")
            rows = launch.both_ways(name, model, 1, 1.0, 2, "cpu")
            asked[name] = [row["calls"] for row in rows]
            assert rows[0]["gap"] < 1e-3
    if compiler():
        assert asked["tiny"][1] == asked[launch.DEEP][1] < 20
    layers = {"tiny": 4, launch.DEEP: 30}
    each = (asked[launch.DEEP][0] - asked["tiny"][0]) / (layers[launch.DEEP] - layers["tiny"])
    assert each == int(each) > 20  # so many for a layer, and a few for the model
    assert 0 < asked["tiny"][0] - layers["tiny"] * each < 20


def test_counting_leaves_no_profiler_behind():
    before = sys.getprofile()
    launch.calls_of(lambda: None, "cpu")
    assert sys.getprofile() is before
    seen = [0]
    assert partial(launch.into_c, seen)(sys._getframe(), "call", None) is None and seen == [0]


def test_the_control_asks_as_often_as_smollm2_and_has_hardly_a_byte_to_read():
    asked, gained = {}, {}
    for name in (launch.DEEP, "smollm2-135m"):
        asked[name] = [row["calls"] for row in stored_launches(name)]
        gained[name] = stored_launches(name)[1]["multiple"]
    assert asked[launch.DEEP] == asked["smollm2-135m"]
    assert gained[launch.DEEP] > 3 * gained["smollm2-135m"]
    sizes = [formulas.parameters(c) for c in (deep(), presets["smollm2-135m"])]
    assert 80 * sizes[0] < sizes[1]


def deep():
    return presets["tiny"].replace(n_layers=30)


def stored_launches(name) -> list[dict]:
    """Both ways' rows of a decode step for one request."""
    rows = results.load("ch01/launch")["rows"]
    return [r for r in rows if r["model"] == name and r.get("batch") == 1]


def test_busy_does_not_tell_waiting_from_work():
    rows = results.load("ch01/roofline")["rows"]
    steps = [r for r in rows if r["what"] != "ceilings"]
    assert all(r["busy"] > 0.98 for r in steps)
    shares = [r["mfu"] for r in steps]
    assert max(shares) > 10 * min(shares)


# -- what the page says --------------------------------------------------------------------------


def test_a_batch_of_the_ridge_is_where_weights_alone_cross_it():
    h100 = gpus.named("H100").ceilings
    assert round(h100.ridge) == 295
    config = presets["llama3-8b"]
    crosses = lambda batch: (
        batch * formulas.decode_flops(config, 0) / formulas.decode_bytes(config, 0, batch)
    )
    assert crosses(294) < h100.ridge < crosses(297)


def test_the_clip_has_a_unit_for_each_flop_of_the_ridge():
    seen, made = report(WeightsStream).texts, report(WeightsStream).scene
    card, config = gpus.named("H100").ceilings, presets["llama3-8b"]
    assert made.units == round(card.ridge) and f"1 of {made.units} units busy" in seen
    assert made.reading() == pytest.approx(
        1e6 * formulas.decode_bytes(config, 0) / card.bytes_per_second
    )
    assert made.computing(made.units) == pytest.approx(made.reading(), rel=0.01)


def test_the_logging_template_asks_for_what_a_stored_row_keeps():
    fields = [row["field"] for row in template.rows()]
    assert len(set(fields)) == len(fields) > 12
    document = results.load("ch01/protocol")
    assert all(row["ours"] not in ("", "None") for row in template.rows()), "a gap in our own log"
    text = template.text()
    assert all(f"{field}:" in text for field in fields)
    assert document["command"] in json.dumps([row["ours"] for row in template.rows()])

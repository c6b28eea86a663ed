"""Chapter 11's labs: rounding that knows its inputs beats rounding that does not, by arithmetic.

What SmolLM2's quality comes out at is measured once and stored. Here the stored rows are held, and
no model runs: another processor adds in another order, and a perplexity of W8A8 moves by a few per
cent with a last bit.
"""

import json

import numpy as np
import pytest
import torch

import labkit
from labkit import presets, reference, results
from labkit.formulas import weight_bytes
from labkit_labs.ch11_quantisation.gptq import gptq
from labkit_labs.ch11_quantisation.layers import output_error, scaled_round


def stored(name: str):
    """Every document of a lab, one a machine: a test each."""
    paths = sorted((results.folder() / "ch11").glob(f"{name}.*.json"))
    assert paths, f"no result of {name} is stored"
    return pytest.mark.parametrize(
        "rows",
        [json.loads(p.read_text())["rows"] for p in paths],
        ids=[p.name.split(".")[1] for p in paths],
    )


# -- what was measured -------------------------------------------------------------------


@stored("outliers")
def test_one_layers_input_reaches_thousands_and_a_scale_per_token_holds_it(rows):
    """One scale for all tokens loses the others there."""
    down = {r["layer"]: r for r in rows}
    assert down[11]["largest"] > 1000 > 50 > down[5]["largest"]
    assert down[11]["per_tensor"] > 0.5 and down[11]["per_row"] < 0.05
    # smoothing takes what sits in channels: in every layer's queries, keys and values
    assert all(r["qkv_smoothed"] < r["qkv_per_row"] for r in rows)


@stored("int8")
@pytest.mark.parametrize("text", ["course", "milton"])
def test_smoothing_wins_back_what_8_bit_activations_cost(rows, text):
    change = {r["variant"]: r[f"change_{text}"] for r in rows}
    assert change["w8a8, smoothed"] < 0.6 * change["w8a8, all layers"]
    assert change["w8a8, smoothed"] < 0.07
    # weights alone, at 16 and at 8 bits
    assert abs(change["fp16 weights"]) < 0.001 and abs(change["int8 weights"]) < 0.015
    assert abs(change["fp32, int8 cache"]) < 0.002


@stored("int8")
def test_eight_bits_take_the_formulas_bytes(rows):
    """A byte a weight, and 4 for every norm's weight and every channel's scale.

    The tied matrix is there twice: as a table of embeddings, and laid out for the head.
    """
    config = presets["smollm2-135m"]
    with torch.device("meta"):
        model = labkit.GPT(config)
    norms = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    channels = sum(layer.out_features for layer in layers)
    table = config.vocab_size * (config.d_model + 4)
    expected = weight_bytes(config, "int8") + 3 * norms + 4 * channels + table
    for r in rows:
        if r["variant"] in ("int8 weights", "w8a8, all layers", "w8a8, smoothed"):
            assert r["bytes"] == expected, r["variant"]


@stored("formats")
def test_evenly_spaced_values_win_at_8_bits_and_small_blocks_at_4(rows):
    error = {r["format"]: r["decibels"] for r in rows}
    assert error["int8"] > error["fp8 e4m3"] > error["fp8 e5m2"]
    assert error["int4"] > error["int4 per row"]


@stored("gptq")
def test_gptqs_weights_are_further_off_and_its_outputs_nearer(rows):
    for bits in (4, 3):
        nearest, scaled, ours = (r for r in rows if r["bits"] == bits)
        assert ours["method"] == "GPTQ" and ours["weights"] > nearest["weights"]
        assert ours["fitted"] < scaled["fitted"] < nearest["fitted"]
        assert ours["judged"] < scaled["judged"] < nearest["judged"]


@stored("awq")
def test_the_chosen_exponent_helps_on_a_text_it_was_not_fitted_on(rows):
    chosen = [r for r in rows if r["chosen"]]
    assert [r["bits"] for r in chosen] == [4, 3]
    assert all(r["multiple"] > 1 and 0 < r["alpha"] < 1 for r in chosen)


# -- what arithmetic guarantees ----------------------------------------------------------


def test_gptq_changes_the_output_least():
    """Against rounding on real correlations; and where inputs are not correlated it is rounding."""
    draw = np.random.default_rng(0)
    w = draw.standard_normal((16, 64))
    mixed = draw.standard_normal((300, 8)) @ draw.standard_normal((8, 64))
    mixed += 0.1 * draw.standard_normal((300, 64))
    nearest, ours = reference.quantise(w, 4, 64).dequantise(), gptq(w, mixed, 4)
    assert output_error(w, ours, mixed) < output_error(w, nearest, mixed) / 3
    assert reference.errors(w, ours)["relative"] > reference.errors(w, nearest)["relative"]
    assert np.allclose(gptq(w, np.eye(64), 4), nearest)


def test_awq_scaling_protects_a_salient_channel():
    draw = np.random.default_rng(0)
    w, x = draw.standard_normal((32, 64)), draw.standard_normal((200, 64))
    x[:, 3] *= 30
    errors = {alpha: output_error(w, scaled_round(w, x, 4, alpha), x) for alpha in (0.0, 0.3, 0.6)}
    assert errors[0.3] < errors[0.0] / 1.5
    assert np.allclose(scaled_round(w, x, 4, 0.0), reference.quantise(w, 4, 64).dequantise())

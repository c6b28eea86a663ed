"""Formulas equal what the modules hold, what torch counts, and what the published models say."""
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import labkit
from labkit import formulas, presets
from labkit.step import Step

PUBLISHED = {"gpt2-124m": 124_439_808, "smollm2-135m": 134_515_008, "llama3.2-1b": 1_235_814_400, "llama3-8b": 8_030_261_248,
             "llama3-70b": 70_553_706_496, "mistral-7b-v0.1": 7_241_732_096, "qwen3-0.6b": 596_049_920}


@pytest.mark.parametrize("name", presets)
def test_parameters_equal_the_modules_and_the_published_totals(name):
    with torch.device("meta"):
        model = labkit.GPT(presets[name])
    held = sum(p.numel() for p in model.parameters())  # parameters() lists a tied matrix once
    assert formulas.parameters(presets[name]) == held == PUBLISHED.get(name, held)
    assert formulas.active_parameters(presets[name]) == held


def counted(model, caches, *steps) -> int:
    """FLOPs by torch's own counter; the MATH kernel, because it counts none in fused attention on a CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.inference_mode():
        for step in steps:
            model(step, caches, step.last)
    return counter.get_total_flops()


SMALL = {
    "llama-gqa": presets["tiny"],
    "mha": presets["tiny"].replace(n_kv_heads=4),
    "mqa-tied": presets["tiny"].replace(n_kv_heads=1, tie_embeddings=True),
    "gpt2": presets["tiny-gpt2"],
    "qwen3": presets["tiny"].replace(qk_norm=True, head_dim=32),
}


@pytest.mark.parametrize("name", SMALL)
def test_flops_equal_torchs_counter(name):
    model, ids = labkit.GPT(SMALL[name]).eval(), list(range(1, 41))
    caches = model.caches("static", 1, 41)
    assert counted(model, caches, Step.of([(0, 0, ids)])) == formulas.prefill_flops(model.config, 40)
    assert counted(model, caches, Step.of([(0, 40, [7])])) == formulas.decode_flops(model.config, 41)


def test_loop_flops_are_the_sum_of_their_steps():
    model = labkit.GPT(presets["tiny"]).eval()
    naive = [Step.of([(0, 0, [1] * (10 + i))]) for i in range(5)]
    assert counted(model, model.caches("none", 1, 1), *naive) == formulas.loop_flops(model.config, 10, 5, cached=False)
    cached = [Step.of([(0, 0, [1] * 10)]), *[Step.of([(0, 10 + i, [1])]) for i in range(4)]]
    assert counted(model, model.caches("static", 1, 20), *cached) == formulas.loop_flops(model.config, 10, 5, cached=True)


def test_llama_70b_cache_is_327_680_bytes_a_token():
    c = presets["llama3-70b"]
    assert formulas.kv_cache_bytes(c, 1) == 327_680
    assert formulas.kv_cache_bytes(c.replace(n_kv_heads=64), 1) == 8 * 327_680  # the slip of counting query heads
    assert formulas.kv_cache_bytes(c, 10_000, 32) == 104_857_600_000


def test_a_window_bounds_the_cache():
    c = presets["mistral-7b-v0.1"]
    assert formulas.kv_cache_bytes(c, 100_000) == formulas.kv_cache_bytes(c, 4096) == 4096 * formulas.kv_cache_bytes(c, 1)
    assert formulas.decode_flops(c, 100_000) == formulas.decode_flops(c, 4096)
    assert formulas.prefill_flops(c, 100_000) == formulas.prefill_flops(c.replace(layer_types=None, window=None), 100_000)


def test_low_precision_bytes():
    c = presets["smollm2-135m"]
    assert formulas.kv_cache_bytes(c, 3, dtype="int8") * 4 == formulas.kv_cache_bytes(c, 3, dtype="fp32")
    assert formulas.kv_cache_bytes(c.replace(n_layers=1, n_kv_heads=1, head_dim=2, n_heads=1), 1, dtype="int4") == 3  # 4 * 4.5 bits = 2.25 bytes
    assert formulas.weight_bytes(c, "int4") == pytest.approx(134_515_008 * 4.5 / 8)


def test_decode_bytes_read_each_weight_once_and_every_cache():
    tied, untied = presets["smollm2-135m"], presets["llama3-8b"]
    assert formulas.decode_bytes(tied, 100, 4) == formulas.weight_bytes(tied) + formulas.kv_cache_bytes(tied, 100, 4)
    embedding = untied.vocab_size * untied.d_model
    assert formulas.decode_bytes(untied, 100, 4) == 2 * (formulas.parameters(untied) - embedding + 4 * 4096) + formulas.kv_cache_bytes(untied, 100, 4)
    assert formulas.decode_bytes(tied, 100, 1, "int4") == formulas.weight_bytes(tied, "int4") + formulas.kv_cache_bytes(tied, 100, 1, "bf16")
    assert formulas.decode_bytes(tied, 100, 1, "bf16", "int8") == formulas.weight_bytes(tied) + formulas.kv_cache_bytes(tied, 100, 1, "int8")


def test_roofline_is_the_slower_of_compute_and_memory():
    h100 = formulas.Hardware("H100 SXM", 989e12, 3.35e12)
    c = presets["llama3-70b"]
    seconds = formulas.roofline_seconds(formulas.decode_flops(c, 1), formulas.weight_bytes(c), h100)
    assert seconds == pytest.approx(0.0421, rel=1e-2)  # 141 GB at 3.35 TB/s
    assert formulas.roofline_seconds(1e15, 1, h100) == pytest.approx(1e15 / 989e12)
    assert h100.ridge == pytest.approx(295, rel=1e-2)


def test_latex_comes_from_the_python():
    assert r"\frac{n" in formulas.latex("naive_attention_terms")
    with pytest.raises(ValueError, match="did you mean 'attention_flops'"):
        formulas.latex("atention_flops")


@pytest.mark.parametrize("call,message", [
    (lambda: presets["llama3-80b"], "did you mean 'llama3-8b'"),
    (lambda: formulas.kv_cache_bytes(presets["tiny"], 5, dtype="fp8"), "no dtype is called 'fp8'"),
    (lambda: presets["tiny"].replace(n_heads=9, n_kv_heads=4), "9 query heads can't share 4 key/value heads: 9 % 4 = 1"),
    (lambda: presets["tiny"].replace(head_dim=15), "head_dim must be even, not 15"),
    (lambda: presets["tiny"].replace(layer_types=("full",)), "names 1 layers, but n_layers is 4"),
    (lambda: presets["tiny"].replace(layer_types=("ful",) * 4), "no layer type is called 'ful'; did you mean 'full'"),
    (lambda: presets["tiny"].replace(layer_types=("sliding",) * 4, window=0), "a window of at least 1 token, not 0"),
    (lambda: presets["tiny"].replace(n_layers=0), "n_layers must be a whole number >= 1, not 0"),
])
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)

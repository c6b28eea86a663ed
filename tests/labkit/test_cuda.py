"""The same equalities on a GPU: `make gpu` runs them.

Families against transformers, feeding in pieces, experts, precisions, the real model.
"""

from dataclasses import replace

import pytest
import torch

import labkit
from labkit.dtypes import DTYPES
from labkit.graphs.cuda import CudaGraphs, NoRoom
from labkit.linear import Linear
from labkit.quant import kernel_names, quantize
from labkit.step import Step
from tests import oracles

pytestmark = pytest.mark.cuda
GATE, RECURRENT = 5e-5, 1e-4


@pytest.fixture(autouse=True)
def exact():
    """fp32 is fp32: no TF32 in the matrix products."""
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def gap(a, b):
    return (a.cpu() - b.cpu()).abs().max().item()


@pytest.mark.parametrize("name", oracles.ORACLES)
def test_a_family_equals_transformers_however_it_is_fed(name):
    theirs = oracles.build(name)
    ours, tokens = labkit.weights.from_hf(theirs).to("cuda"), oracles.text(40)
    exact = oracles.expected(theirs, tokens)
    gate = RECURRENT if "delta" in ours.config.types else GATE
    for cache in ("none", "static", "paged", "ring"):
        for chunks in (None, [7, 1, 1, 20, 3, 8], [30, *[1] * 10]):
            assert gap(labkit.logits(ours, tokens, chunks, cache), exact) < gate, (cache, chunks)


def test_requests_of_different_lengths_share_a_step():
    theirs = oracles.build("llama-gqa")
    ours = labkit.weights.from_hf(theirs).to("cuda")
    texts = [oracles.text(n, n) for n in (9, 1, 20)]
    with torch.inference_mode():
        logits = ours(
            Step.of([(r, 0, t) for r, t in enumerate(texts)], "cuda"),
            ours.caches("paged", 3, 24, block_size=4),
        )
    for text, got in zip(texts, logits.split([len(t) for t in texts])):
        assert gap(got, oracles.expected(theirs, text)) < GATE


@pytest.mark.parametrize("tokens", [1, 16, 256])
def test_experts_give_the_same_by_every_execution(tokens):
    torch.manual_seed(0)
    moe = labkit.moe.MoE(labkit.presets["tiny-moe"]).cuda().eval()
    x, out = torch.randn(tokens, labkit.presets["tiny-moe"].d_model, device="cuda"), {}
    for moe.execution in ("loop", "gather", "grouped"):
        with torch.inference_mode():
            out[moe.execution] = moe(x)
    assert gap(out["loop"], out["gather"]) < 1e-5
    # grouped_mm multiplies in bf16 on some torch versions
    assert gap(out["loop"], out["grouped"]) < 3e-2


@pytest.mark.parametrize("dtype,gate", [("bf16", 0.5), ("fp16", 0.06)])
def test_half_precision_stays_near(dtype, gate):
    theirs, tokens = oracles.build("llama-gqa"), oracles.text(40)
    ours = labkit.weights.from_hf(theirs).to("cuda", DTYPES[dtype])
    assert (
        gap(
            labkit.logits(ours, tokens, [30, *[1] * 10], "static").float(),
            oracles.expected(theirs, tokens),
        )
        < gate
    )


@pytest.mark.smollm2
def test_the_real_model_writes_what_it_writes_on_a_cpu():
    (gpu, tokenizer), (cpu, _) = labkit.weights.smollm2(device="cuda"), labkit.weights.smollm2()
    prompt = tokenizer.chat("Explain what a cache is.")
    assert (
        labkit.generate(gpu, [prompt], 24)
        == labkit.generate(gpu, [prompt], 24, cache="none")
        == labkit.generate(cpu, [prompt], 24)
    )


def test_drafts_are_accepted_on_the_device():
    """Drafts that the target is certain of are kept, one that it rules out is not; the generator is
    the device's own.
    """
    p, generator = torch.eye(6, device="cuda")[[2, 4, 1]], torch.Generator("cuda").manual_seed(0)
    assert labkit.speculative.accept([2, 4], p, generator=generator) == [2, 4, 1]
    assert labkit.speculative.accept([2, 3], p, generator=generator) == [2, 4]


# -- decode steps as graphs ------------------------------------------------------------------------

SHAPE = labkit.ModelConfig(
    vocab_size=512,
    d_model=256,
    n_layers=3,
    n_heads=8,
    n_kv_heads=2,
    head_dim=64,
    d_ff=512,
    max_context=128,
)
GRAPHED = {
    "Llama": {},
    "Qwen3": {"qk_norm": True},
    "sliding": {"layer_types": ("sliding", "full", "sliding"), "window": 20},
    "Gemma": {"post_norms": True, "ffn": "geglu", "embed_scale": 16.0, "qk_norm": True},
    "GPT-2": {"position": "learned", "norm": "layer", "ffn": "gelu", "bias": True},
    "gpt-oss": {"sinks": True, "ffn": "swiglu_clamped", "attention_bias": True},
}
HALF = 3e-2  # of the norm: what two ways of rounding to bf16 may differ by


def a_model(dtype=torch.bfloat16, **more):
    torch.manual_seed(0)
    config = replace(SHAPE, **more)
    if config.position == "learned":
        config = replace(config, n_kv_heads=config.n_heads)
    return labkit.GPT(config).to("cuda", dtype).requires_grad_(False)


def noise(model, kind, rows, capacity=100):
    caches = model.caches(kind, rows, capacity)
    for cache in caches:
        for buffer in cache.buffers:
            buffer.normal_()
    return caches


def copies(caches):
    return [[b.clone() for b in cache.buffers] for cache in caches]


def off(got, want):
    return ((got.float() - want.float()).norm() / want.float().norm()).item()


@pytest.mark.parametrize(
    "name,kind",
    [*[(name, "paged") for name in GRAPHED], ("Llama", "static"), ("sliding", "ring")],
)
@torch.inference_mode()
def test_a_graph_s_step_is_the_model_s(name, kind):
    """Every way that there is, every padded size, each request of its own length; and the caches
    hold the same afterwards, padding or not.
    """
    model = a_model(**GRAPHED[name])
    caches = noise(model, kind, 20)
    before = copies(caches)
    for way in ("torch", "small", "fused", None):
        graphs = CudaGraphs(model, caches, 20, way)
        if way in graphs.reasons:
            with pytest.raises(ValueError, match="can't go the way"):
                graphs(Step.of([(0, 5, [1])], "cuda"))
            continue
        for R in (1, 3, 16, 20):
            if way == "fused" and R > 16:
                continue
            packed = [((7 * r) % 20, (13 * r + 5) % 90, [r + 1]) for r in range(R)]
            step = Step.of(packed, "cuda")
            for cache, old in zip(caches, before):
                for buffer, content in zip(cache.buffers, old):
                    buffer.copy_(content)
            got = graphs(step)
            mine = copies(caches)
            for cache, old in zip(caches, before):
                for buffer, content in zip(cache.buffers, old):
                    buffer.copy_(content)
            want = model(step, caches, step.last)
            assert max(off(a, b) for a, b in zip(got, want)) < HALF, (way, R)
            for cache, contents in zip(caches, mine):
                for buffer, content in zip(cache.buffers, contents):
                    assert off(content, buffer) < HALF, (way, R)
        if way is None:
            assert graphs.taken[1] == ("small" if "fused" in graphs.reasons else "fused")


@pytest.mark.parametrize("way", ["torch", "small"])
@torch.inference_mode()
def test_a_graph_in_fp32_is_exact(way):
    model = a_model(torch.float32, qk_norm=True)
    caches = noise(model, "paged", 4)
    before = copies(caches)
    step = Step.of([(r, 20 * r + 3, [r]) for r in range(3)], "cuda")
    want = model(step, caches, step.last)
    for cache, old in zip(caches, before):
        for buffer, content in zip(cache.buffers, old):
            buffer.copy_(content)
    graphs = CudaGraphs(model, caches, 4, way)
    assert gap(graphs(step), want) < GATE
    assert "bf16" in graphs.reasons["fused"]


@torch.inference_mode()
def test_capturing_changes_no_cache_and_replaying_again_gives_the_same():
    model = a_model()
    caches = noise(model, "paged", 4)
    before = copies(caches)
    graphs = CudaGraphs(model, caches, 4)
    for size in graphs.sizes:
        graphs._capture(size)
    for cache, old in zip(caches, before):
        for buffer, content in zip(cache.buffers, old):
            assert torch.equal(buffer, content)
    step = Step.of([(r, 30, [r]) for r in range(4)], "cuda")
    first = graphs(step)
    assert torch.equal(first, graphs(step))


@pytest.mark.parametrize("kind", ["int8", "int4"])
@torch.inference_mode()
def test_few_bits_go_the_fused_way(kind):
    model = quantize(a_model(), kind, kernel="triton")
    assert not any(isinstance(layer, Linear) for layer in model.modules())
    caches = noise(model, "static", 8)
    graphs = CudaGraphs(model, caches, 8)
    assert graphs.reasons == {}
    for R in (1, 5):
        step = Step.of([(r, 40, [r]) for r in range(R)], "cuda")
        want = model(step, caches, step.last)
        assert off(graphs(step), want) < HALF
    assert set(graphs.taken.values()) == {"fused"}


@torch.inference_mode()
def test_kernels_of_few_bits_are_right_on_the_gpu():
    for kind in ("int8", "int4"):
        assert "triton" in kernel_names(kind, "cuda")
        layer = torch.nn.Linear(256, 128, bias=False).cuda()
        made = [
            labkit.quant.linear.KINDS[kind](layer, layer.weight, kind, kernel)
            for kernel in ("triton", "plain")
        ]
        for rows in (1, 3, 40, 100):
            x = torch.randn(rows, 256, device="cuda").bfloat16()
            assert off(made[0](x), made[1](x)) < 1e-2


@torch.inference_mode()
def test_memory_that_runs_out_loses_nothing():
    """All but a little memory is taken: capturing says so, and once it is free again, captures."""
    model = a_model()
    caches = noise(model, "static", 64)
    graphs = CudaGraphs(model, caches, 64, "torch")
    step = Step.of([(r, 90, [1]) for r in range(64)], "cuda")
    want = model(step, caches, step.last)
    before = copies(caches)
    torch.cuda.empty_cache()
    taken = []
    size = 2**36
    while size >= 2**20:
        try:
            taken.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.cuda.OutOfMemoryError:
            size //= 2
    with pytest.raises(NoRoom, match="no room for a graph of 64 requests"):
        graphs(step)
    taken.clear()
    torch.cuda.empty_cache()
    assert not graphs.taken
    for cache, old in zip(caches, before):
        assert all(torch.equal(b, c) for b, c in zip(cache.buffers, old))
    assert off(graphs(step), want) < HALF

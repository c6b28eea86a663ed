"""The same equalities on a GPU: `make gpu` runs them.

Families against transformers, feeding in pieces, experts, precisions, the real model.
"""

import pytest
import torch

import labkit
from labkit.dtypes import DTYPES
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

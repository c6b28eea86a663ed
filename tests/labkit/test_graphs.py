"""A captured step is the model's step: the same logits, tokens and caches, whatever the step is."""

import copy
import ctypes
import random
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import labkit
from labkit import graphs
from labkit.config import ModelConfig
from labkit.engine.storage import Int8Blocks
from labkit.graphs import plan
from labkit.kernels import build, compiler
from labkit.model import GPT
from labkit.published import presets
from labkit.step import Step
from tests import engines

compiled = pytest.mark.skipif(not compiler(), reason="there is no C compiler here")
BASE = ModelConfig(
    vocab_size=101,
    d_model=48,
    n_layers=3,
    n_heads=6,
    n_kv_heads=2,
    head_dim=16,
    d_ff=72,
    max_context=400,
    tie_embeddings=True,
)
KINDS = {
    "llama": {},
    "multi-head, untied": {"n_kv_heads": 6, "tie_embeddings": False},
    "multi-query, wide heads": {"n_kv_heads": 1, "head_dim": 32},
    "qk norm": {"qk_norm": True, "norm_eps": 1e-3},
    "partial rope": {"partial_rotary": 0.5},
    "sinks and biases": {"sinks": True, "attention_bias": True},
    "all biases": {"bias": True},
    "gemma": {"post_norms": True, "embed_scale": 7.0, "ffn": "geglu", "qk_norm": True},
    "stretched": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                                   "original_max_position_embeddings": 32}},
}  # fmt: skip


def model_of(**changes):
    torch.manual_seed(0)
    model = GPT(replace(BASE, **changes))
    for name, p in model.named_parameters():
        if "norm" in name or "after" in name or "bias" in name or "sinks" in name:
            torch.nn.init.normal_(p, 1.0, 0.3)
    return model.requires_grad_(False).pack()


def ragged(rnd, rows, steps=14, longest=5, most=80):
    """Steps in which some requests bring a token, some a few; all rows begin with a prompt."""
    done = [0] * rows
    for i in range(steps):
        live = range(rows) if i == 0 else sorted(rnd.sample(range(rows), rnd.randint(1, rows)))
        lengths = [rnd.choice([1, 1, 1, longest]) for _ in live]
        feed = [
            (r, done[r], [rnd.randrange(101) for _ in range(n)])
            for r, n in zip(live, lengths)
            if done[r] + n <= most
        ]
        for r, at, ids in feed:
            done[r] = at + len(ids)
        yield Step.of(feed)


def gap(a, b):
    return (a - b).abs().max().item()


@compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cache", ["static", "paged", "ring"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_step_is_the_models_step(kind, cache, threads):
    """Decodes, chunks, drafts, late rows: logits within 1e-5, and what the caches then hold."""
    sliding = {"window": 7, "layer_types": ("full", "sliding", "sliding")}
    model = model_of(**KINDS[kind], **(sliding if cache == "ring" else {}))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        caches = [model.caches(cache, 4, 90, block_size=5, longest_step=5) for _ in range(2)]
        run = graphs.capture(model, caches[0], 4)
        assert run.why == ""
        with torch.inference_mode():
            for step in ragged(random.Random(kind), 4):
                assert run.refuses(step) == ""
                for last in (step.last, None):
                    mine, theirs = run(step, caches[0], last), model(step, caches[1], last)
                    assert gap(mine, theirs) < 1e-5 and mine.shape == theirs.shape
        for a, b in zip(*caches):
            assert all(gap(x, y) < 1e-5 for x, y in zip(a.buffers, b.buffers))
    finally:
        torch.set_num_threads(before)


@compiled
def test_two_kinds_of_layers_turn_by_their_own_tables():
    model = model_of(
        window=9,
        layer_types=("sliding", "full", "sliding"),
        rope_theta=1e4,
        rope_local_theta=50.0,
    )
    caches = [model.caches("static", 1, 60) for _ in range(2)]
    run = graphs.capture(model, caches[0], 1)
    assert len(run.replay.angles) == 2
    with torch.inference_mode():
        for at in range(40):
            step = Step.of([(0, at, [at])])
            assert gap(run(step, caches[0]), model(step, caches[1])) < 1e-5


@compiled
def test_bf16_differs_by_its_own_rounding_only():
    """A plan keeps activations in fp32, so it is nearer to the exact model than the plain way."""
    exact = model_of()
    model = model_of().unpack().bfloat16().pack()
    assert graphs.why_not(model, model.caches("static", 1, 40)) == ""
    errors = {}
    for name in ("plan", "plain"):
        caches, true = model.caches("static", 2, 40), exact.caches("static", 2, 40)
        run = graphs.capture(model, caches, 2) if name == "plan" else model
        errors[name] = 0.0
        with torch.inference_mode():
            for at in range(30):
                step = Step.of([(0, at, [at]), (1, at, [at + 1])])
                got = run(step, caches, step.last)
                assert got.dtype == torch.bfloat16
                errors[name] += (got.float() - exact(step, true, step.last)).norm().item()
    assert errors["plan"] < errors["plain"] * 1.1


@compiled
@pytest.mark.parametrize("how", [{}, {"speculative": "full"}, {"prefix_cache": False}])
def test_the_engine_hands_its_steps_over(how, monkeypatch):
    """Same tokens as by the model's own forward; the plan has run."""
    runs = []
    call = plan.Plan.__call__
    monkeypatch.setattr(plan.Plan, "__call__", lambda self, *a: runs.append(1) or call(self, *a))
    if how.get("speculative"):
        how = {"speculative": engines.Guess("full", 0), "drafts": 3}
    prompts = engines.prompts()[:6]
    found = []
    for plain in (False, True):
        model = copy.deepcopy(engines.model()).pack()
        engine = labkit.Engine(model, max_batch=4, n_blocks=200, block_size=4, **how)
        if plain:
            engine.forward = engine.model
        ids = [engine.add(p, 20, stop=()) for p, _ in prompts]
        done = engine.run()
        found.append([done[i] for i in ids])
        runs.append(None)
    assert found[0] == found[1]
    assert runs.index(None) > 10 and runs[runs.index(None) :] == [None, None]


@compiled
def test_generate_hands_its_steps_over(monkeypatch):
    model = model_of()
    prompts = [[1, 2, 3], [5], list(range(60))]
    fast = {c: labkit.generate(model, prompts, 30, cache=c) for c in ("static", "paged", "ring")}
    monkeypatch.setattr(graphs, "why_not", lambda *_: "not now")
    for cache, tokens in fast.items():
        assert labkit.generate(model, prompts, 30, cache=cache) == tokens


# -- what goes the plain way, and says so ------------------------------------------------


@pytest.mark.parametrize(
    "changes,why",
    [
        ({"output_gate": True}, "output gates"),
        ({"ffn": "gelu"}, "GELUMLP is no SwiGLU"),
        ({"ffn": "swiglu_clamped"}, "SwiGLU is no SwiGLU or GeGLU"),
        ({"norm": "layer"}, "LayerNorm"),
        ({"position": "learned"}, "learned"),
        ({"head_dim": 8}, "vectors of 16"),
    ],
)
@compiled
def test_what_has_no_operation_goes_the_plain_way(changes, why):
    model = model_of(**changes)
    caches = model.caches("static", 1, 20)
    run = graphs.capture(model, caches, 1)
    assert why in run.why and why in run.refuses(Step.of([(0, 0, [1])]))
    with torch.inference_mode():
        step = Step.of([(0, 0, [1, 2])])
        twin = model.caches("static", 1, 20)
        assert torch.equal(run(step, caches), model(step, twin))
    with pytest.raises(ValueError, match="no plan can be made"):
        plan.Plan(model, caches, 1)


@compiled
@pytest.mark.parametrize("name", ["tiny-moe", "tiny-mla", "tiny-delta", "tiny-gpt2"])
def test_other_layers_go_the_plain_way(name):
    model = GPT(presets[name]).requires_grad_(False).pack()
    assert graphs.why_not(model, model.caches("static", 1, 20))


@compiled
def test_caches_and_layouts_that_a_plan_does_not_know():
    model = model_of()
    assert "NoCache" in graphs.why_not(model, model.caches("none", 1, 20))
    table = torch.zeros(1, 4, dtype=torch.long)
    coded = [Int8Blocks(8, 4, table, b.mixer.items, torch.float32) for b in model.blocks]
    assert "Int8Blocks" in graphs.why_not(model, coded)
    assert "pack the model" in graphs.why_not(model.unpack(), model.caches("static", 1, 20))
    hook = model.pack().blocks[1].ffn.register_forward_hook(lambda *_: None)
    assert "hooks" in graphs.why_not(model, model.caches("static", 1, 20))
    hook.remove()
    assert graphs.why_not(model, model.caches("static", 1, 20)) == ""


@compiled
def test_steps_that_a_plan_refuses_go_the_plain_way():
    model = model_of()
    caches = model.caches("static", 2, 300)
    run = graphs.capture(model, caches, 2)
    long = Step.of([(0, 0, [1] * (plan.TOKENS + 1))])
    with torch.inference_mode():
        assert "257 tokens" in run.refuses(long)
        with pytest.raises(ValueError, match="257 tokens"):
            run.replay(long)
        assert torch.equal(run(long, caches), model(long, model.caches("static", 2, 300)))
        # a token without a slot is refused in the words of the cache, and nothing is written
        before = caches[0].buffers[0].clone()
        for step in (Step.of([(0, 300, [1])]), Step.of([(2, 0, [1])])):
            with pytest.raises(ValueError, match="cache row"):
                run(step, caches)
        assert torch.equal(before, caches[0].buffers[0])
        # other caches than those captured
        other = model.caches("static", 2, 300)
        step = Step.of([(1, 0, [7])])
        run(step, other)
        assert other[0].buffers[0].any() and torch.equal(before, caches[0].buffers[0])
    step = Step.of([(0, 0, [7])])
    assert "gradient" in run.refuses(step)
    with torch.inference_mode(), FlopCounterMode(display=False):
        assert "gradient" in run.refuses(step)
    with pytest.raises(ValueError, match="at least one request"):
        graphs.capture(model, caches, 0)


def test_without_a_compiler_the_plain_way_is_taken(monkeypatch):
    model = model_of()
    monkeypatch.setattr(build, "missing", lambda *_: "there is no C compiler here")
    caches = model.caches("static", 1, 20)
    run = graphs.capture(model, caches, 1)
    assert "no C compiler" in run.why
    with torch.inference_mode():
        step = Step.of([(0, 0, [1, 2])])
        assert torch.equal(run(step, caches), model(step, model.caches("static", 1, 20)))


@compiled
def test_the_structures_are_those_of_c():
    """Sizes as C has them, so that no field is read from a place beside it."""
    library = plan._library()
    library.sizes.restype = ctypes.POINTER(ctypes.c_int64)
    sizes = library.sizes()[:3]
    assert sizes == [ctypes.sizeof(s) for s in (plan.Op, plan.Layer, plan.Tokens)]

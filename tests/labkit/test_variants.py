"""What can be done in two ways comes out the same, and what must not be forgotten is not."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import labkit
from labkit import moe
from labkit.caches import RingCache, StateCache, StaticCache
from labkit.mixers import delta
from labkit.step import Step
from labkit.weights import from_hf
from tests import oracles


def gap(a, b):
    return (a - b).abs().max().item()


def run(model, caches, row, first, tokens):
    with torch.inference_mode():
        return model(Step.of([(row, first, tokens)]), caches)


# -- multi-head latent attention ---------------------------------------------------------


@pytest.mark.parametrize("name", ["deepseek-dense", "deepseek-yarn"])
@pytest.mark.parametrize("cache", ["static", "paged"])
def test_absorbed_equals_reprojected(name, cache):
    theirs = oracles.build(name)
    ours = from_hf(theirs)
    tokens = oracles.text(40)
    want = oracles.expected(theirs, oracles.text(40))
    for path in ("absorbed", "reprojected"):
        for block in ours.blocks:
            block.mixer.path = path
        for chunks in ([40], [1] * 40, [9, 1, 30]):
            assert gap(labkit.logits(ours, tokens, chunks, cache), want) < oracles.gate(name)


def test_mla_absorbs_in_decode_and_reprojects_prompts():
    # C 32, En + Ev 32: absorbing pays up to 32 queries
    mixer = from_hf(oracles.build("deepseek-dense")).blocks[0].mixer
    assert mixer.absorbs(1, 1) and mixer.absorbs(1, 500) and mixer.absorbs(32, 500)
    assert not mixer.absorbs(33, 500) and not mixer.absorbs(5, 5)


def test_mla_caches_only_the_latent():
    config = labkit.presets["tiny-mla"]
    caches = labkit.GPT(config).caches("static", 3, 50)
    assert (
        sum(c.allocated_bytes for c in caches)
        == 4 * 3 * 50 * (config.kv_lora_rank + config.qk_rope_head_dim) * 4
    )


# -- gated delta rule --------------------------------------------------------------------


def delta_inputs(R, T, seed=0, Hv=3, dk=4, dv=5):
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(R, T, Hv, n, generator=g) for n in (dk, dk, dv))
    return (
        q,
        F.normalize(k, dim=-1),
        v,
        -2 * torch.rand(R, T, Hv, generator=g),
        torch.rand(R, T, Hv, generator=g),
    ), torch.randn(R, Hv, dk, dv, generator=g)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 100), st.integers(1, 40), st.integers(0, 10**6))
def test_chunked_equals_recurrent(R, T, size, seed):
    inputs, state = delta_inputs(R, T, seed)
    (a, end_a), (b, end_b) = delta.recurrent(*inputs, state), delta.chunked(*inputs, state, size)
    assert gap(a, b) < 1e-4 and gap(end_a, end_b) < 1e-4


def test_chunks_survive_fast_forgetting():
    """A head that forgets all at once: exp(g) is 0 in fp32, and nothing overflows, nor does its
    gradient.
    """
    (q, k, v, g, beta), state = delta_inputs(1, 64)
    (a, end_a), (b, end_b) = (
        f(q, k, v, 100 * g, beta, state) for f in (delta.recurrent, delta.chunked)
    )
    assert gap(a, b) < 1e-4 and gap(end_a, end_b) < 1e-4
    g.requires_grad_()
    delta.chunked(q, k, v, 100 * g, beta, state)[0].sum().backward()
    assert g.grad.isfinite().all()


def test_both_paths_of_the_layer_equal_transformers():
    theirs = oracles.build("qwen3-next-dense")
    ours = from_hf(theirs)
    tokens = oracles.text(40)
    want = oracles.expected(theirs, oracles.text(40))
    for path in ("recurrent", "chunked"):
        for block in ours.blocks[:3]:
            block.mixer.path = path
        assert gap(labkit.logits(ours, tokens, [33, 1, 1, 5], "static"), want) < 1e-4


def test_drafts_are_undone_by_snapshot_and_replay():
    theirs = oracles.build("qwen3-next")
    ours, tokens, out = from_hf(theirs), oracles.text(20), []
    caches = ours.caches("static", 2, 24)
    states = [c for c in caches if isinstance(c, StateCache)]
    for p, token in enumerate(tokens):
        saved = [c.snapshot([1]) for c in states]
        # three drafts, all rejected
        run(ours, caches, 1, p, [token, *oracles.text(3, seed=100 + p)])
        for c, s in zip(states, saved):
            c.restore(s)
        out.append(run(ours, caches, 1, p, [token]))
    assert gap(torch.cat(out), oracles.expected(theirs, tokens)) < 1e-4


def test_a_state_goes_on_where_it_stands_or_refuses():
    ours = from_hf(oracles.build("qwen3-next"))
    caches, tokens = ours.caches("static", 2, 40), oracles.text(20)
    run(ours, caches, 0, 0, tokens[:8])
    for first in (4, 9):
        with pytest.raises(
            ValueError, match=f"row 0 has taken in 8 tokens, so a step can't start at {first}"
        ):
            run(ours, caches, 0, first, tokens[:2])
    with pytest.raises(ValueError, match="row 1 has taken in 0 tokens"):
        run(ours, caches, 1, 8, tokens[8:])
    with pytest.raises(ValueError, match="without a cache a step must start at position 0, not 3"):
        run(ours, ours.caches("none", 1, 1), 0, 3, tokens)
    with pytest.raises(ValueError, match="names cache row 2"):
        run(ours, caches, 2, 0, tokens)


def test_a_new_request_starts_from_zeros_beside_an_old_one():
    ours, a, b = from_hf(oracles.build("qwen3-next")), oracles.text(20, 1), oracles.text(9, 2)
    caches = ours.caches("static", 2, 40)
    run(ours, caches, 0, 0, oracles.text(30, 3))  # row 0 was somebody's
    run(ours, caches, 1, 0, a[:15])
    with torch.inference_mode():
        both = ours(Step.of([(0, 0, b[:5]), (1, 15, a[15:])]), caches)
    assert (
        gap(both[:5], labkit.logits(ours, b)[:5]) < 1e-4
        and gap(both[5:], labkit.logits(ours, a)[15:]) < 1e-4
    )


def test_a_state_is_as_large_after_any_text():
    config = labkit.presets["tiny-delta"].replace(layer_types=("delta",) * 4)
    model = labkit.GPT(config)
    sizes = {
        sum(c.allocated_bytes for c in model.caches(kind, 2, n))
        for kind in ("static", "paged", "ring")
        for n in (10, 500)
    }
    assert sizes == {4 * 2 * 4 * (4 * 16 * 16 + 3 * (2 * 2 * 16 + 4 * 16))}


# -- sliding window ----------------------------------------------------------------------


def ring_run(model, tokens, steps, capacity, longest):
    caches = [
        RingCache(1, capacity, b.mixer.items, window=b.mixer.window, longest_step=longest)
        for b in model.blocks
    ]
    out, at = [], 0
    for n in steps:
        out.append(run(model, caches, 0, at, tokens[at : at + n]))
        at += n
    return torch.cat(out)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=8, max_size=14))
def test_the_ring_rule_is_enough(steps):
    model, tokens = test_the_ring_rule_is_enough.model, oracles.text(sum(steps))
    assert (
        gap(
            ring_run(model, tokens, steps, 8 + max(steps) - 1, max(steps)),
            labkit.logits(model, tokens),
        )
        < 5e-5
    )


test_the_ring_rule_is_enough.model = from_hf(oracles.build("mistral"))


def test_the_ring_rule_is_exact(monkeypatch):
    model, tokens, steps = test_the_ring_rule_is_enough.model, oracles.text(36), [4] * 9
    with pytest.raises(ValueError, match=r"capacity >= window \+ longest_step - 1 = 11 is needed"):
        ring_run(model, tokens, steps, 10, 4)
    with pytest.raises(
        ValueError, match=r"a ring of 10 slots can't take steps of 4 tokens with a window of 8"
    ):
        ring_run(model, tokens, steps, 10, 3)  # the step is longer than the ring was made for
    monkeypatch.setattr(RingCache, "_check_rule", staticmethod(lambda *_: None))
    assert gap(ring_run(model, tokens, steps, 11, 4), labkit.logits(model, tokens)) < 5e-5
    # one slot less, and it is wrong
    assert gap(ring_run(model, tokens, steps, 10, 4), labkit.logits(model, tokens)) > 0.01


def test_drafts_in_a_ring_are_overwritten():
    theirs = oracles.build("gemma3")
    ours, tokens = from_hf(theirs), oracles.text(30)
    caches = ours.caches("ring", 1, 40, longest_step=4)
    out = [
        run(ours, caches, 0, p, [token, *oracles.text(3, seed=p)])[:1]
        for p, token in enumerate(tokens)
    ]
    assert gap(torch.cat(out), oracles.expected(theirs, tokens)) < 5e-5


def test_sliding_layers_ring_and_others_are_static():
    model = labkit.GPT(labkit.presets["tiny-swa"])
    caches = model.caches("ring", 2, 500, longest_step=3)
    assert [type(c) for c in caches] == [RingCache] * 3 + [StaticCache] and caches[0].capacity == 34
    # would never go round
    assert {type(c) for c in model.caches("ring", 2, 34, longest_step=3)} == {StaticCache}


@pytest.mark.parametrize("kind,most", [("static", 32), ("ring", 32), ("paged", 48)])
def test_a_decode_step_reads_the_window_only(kind, most):
    model = labkit.GPT(labkit.presets["tiny-swa"]).eval()
    caches = model.caches(kind, 2, 300, longest_step=1)
    step = Step.of([(0, 250, [1]), (1, 250, [1])])
    for cache, want in zip(caches, [most] * 3 + [251 if kind != "paged" else 256]):
        assert cache.read(step)[0].shape[1] == want


# -- mixture of experts ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixtral", "gpt-oss", "deepseek-moe", "qwen3-next"])
@pytest.mark.parametrize("N", [1, 40])
def test_three_executions_agree(name, N):
    layer = from_hf(oracles.build(name)).blocks[-1].ffn
    x, out = torch.randn(N, oracles.D, generator=torch.Generator().manual_seed(N)), {}
    for layer.execution in ("loop", "gather", "grouped", "auto"):
        out[layer.execution] = layer(x)
    assert out["loop"].abs().max() > 0.05
    assert all(gap(out["loop"], o) < 1e-6 * (1 + out["loop"].abs().max()) for o in out.values())


def test_an_execution_that_can_not_run_says_so(monkeypatch):
    layer, x = moe.MoE(labkit.presets["tiny-moe"].replace(d_expert=33)), torch.randn(3, 64)
    layer.execution = "lop"
    with pytest.raises(ValueError, match="experts run by auto, loop, gather, grouped, not 'lop'"):
        layer(x)
    layer.execution = "grouped"
    with pytest.raises(ValueError, match="rows of a multiple of 16 bytes; use 'loop'"):
        layer(x)


def test_load_counts_every_choice():
    model = labkit.GPT(labkit.presets["tiny-moe"]).eval()
    with moe.watch_routing(model) as seen:
        labkit.logits(model, oracles.text(30), [29, 1], "static")
    labkit.logits(model, oracles.text(30))  # outside the block nothing is recorded
    assert [(name, len(experts)) for name, experts, _ in seen] == [
        (f"blocks.{i}.ffn.router", n) for n in (29, 1) for i in (1, 2, 3)
    ]
    for _, experts, weights in seen:
        load = moe.expert_load(experts, 8)
        assert load.sum() == 2 * len(experts) and load.tolist() == [
            (experts == i).sum().item() for i in range(8)
        ]
        assert gap(weights.sum(1), torch.ones(len(experts))) < 1e-6


def test_groups_limit_the_choice_and_the_correction_only_chooses():
    c = labkit.presets["tiny-moe"].replace(
        router="sigmoid", router_bias=True, n_expert_groups=4, n_active_groups=2, n_active_experts=3
    )
    router, x = moe.Router(c), torch.randn(50, 64)
    experts, _ = router(x)
    assert all(len(set((row // 2).tolist())) <= 2 for row in experts)
    router.correction[6:] = 10.0  # now the last group wins always
    experts, weights = router(x)
    assert all({6, 7} <= set(row.tolist()) for row in experts)
    scores = router.score(x).sigmoid().gather(1, experts)
    assert gap(weights, scores / scores.sum(1, keepdim=True)) < 1e-6


@pytest.mark.parametrize("name", ["gemma3", "gpt-oss", "deepseek-moe", "qwen3-next"])
def test_cached_decoding_equals_naive(name):
    ours, prompts = from_hf(oracles.build(name)), [oracles.text(n, seed=n) for n in (5, 1, 17, 9)]
    naive = labkit.generate(ours, prompts, 16, cache="none")
    assert all(oracles.lead(ours, *said) > 2 * oracles.gate(name) for said in zip(prompts, naive))
    for cache in ("static", "paged", "ring"):
        assert labkit.generate(ours, prompts, 16, cache=cache) == naive


# -- devices -----------------------------------------------------------------------------


# whose tokens are counted by value
@pytest.mark.parametrize("name", [name for name in oracles.ORACLES if name not in oracles.EXPERTS])
def test_everything_is_made_where_the_model_is(name):
    """Without a GPU: tensors on the meta device have no values, and refuse to meet a CPU's."""
    ours = from_hf(oracles.build(name)).to("meta")
    for kind, chunks in (("none", [20]), ("static", [7, 1, 5]), ("ring", [7, 1, 5])):
        caches, done = ours.caches(kind, 1, 48, longest_step=7), 0
        for n in chunks:
            with torch.inference_mode():
                logits = ours(Step.of([(0, done, [1] * n)], "meta"), caches)
            done += n
        assert logits.device.type == "meta" and logits.shape == (n, ours.config.vocab_size)

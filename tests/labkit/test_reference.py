"""NumPy is the oracle: it equals torch, and whatever can be computed in two ways there comes out
the same in both.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import labkit
from labkit import mixers, moe, presets, reference
from labkit.step import Step
from labkit.trace import record_attention
from tests import oracles


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(n_kv_heads=4),
        dict(n_kv_heads=1),
        dict(tie_embeddings=True),
        dict(head_dim=32, rope_theta=5e5),
        dict(position="learned"),
    ],
)
def test_numpy_equals_torch(changes):
    torch_model = labkit.GPT(presets["tiny"].replace(**changes)).eval()
    ids = oracles.text(40)
    want = labkit.logits(torch_model, ids).numpy()
    twin = reference.TinyGPT.of(torch_model)
    assert np.abs(twin.forward(ids) - want).max() < 1e-5
    cache = reference.Cache(4)
    parts = [
        twin.forward(ids[:17], cache),
        twin.forward(ids[17:18], cache),
        twin.forward(ids[18:], cache),
    ]
    assert np.abs(np.concatenate(parts) - want).max() < 1e-5


def test_the_two_loops_agree():
    model = reference.TinyGPT(presets["tiny"])
    prompt = list(b"the cat sat")
    assert reference.cached_loop(model, prompt, 30) == reference.naive_loop(model, prompt, 30)


def test_the_prompts_keys_are_the_same_at_every_step():
    model, prompt = reference.TinyGPT(presets["tiny"]), list(b"the cat sat")
    for layer in range(4):
        assert len(set(reference.key_fingerprints(model, prompt, 12, layer))) == 1
    other = reference.key_fingerprints(model, list(b"the dog sat"), 1)
    assert other != reference.key_fingerprints(model, prompt, 1)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(0, 2**31),
    st.floats(0.1, 30),
)
def test_online_softmax_equals_softmax(T, tile, E, seed, scale):
    q, k, v = np.random.default_rng(seed).standard_normal((3, T, E)) * scale
    pos = np.arange(T)
    want = reference.attention(q[:, None], k[:, None], v[:, None], pos, pos)[:, 0]
    assert np.abs(reference.online_attention(q, k, v, tile) - want).max() < 1e-9 * max(1, scale)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 2**31))
def test_split_decode_equals_one_pass(S, splits, seed):
    q, k, v = (
        np.random.default_rng(seed + i).standard_normal(shape)
        for i, shape in enumerate([8, (S, 8), (S, 8)])
    )
    want = reference.attention(q[None, None], k[:, None], v[:, None], np.array([S]), np.arange(S))[
        0, 0
    ]
    assert np.abs(reference.split_decode(q, k, v, min(splits, S)) - want).max() < 1e-12


def test_the_recorded_tiles_are_those_visited():
    q, k, v = np.random.default_rng(0).standard_normal((3, 10, 8))
    trace = record_attention(q, k, v, tile=4)
    assert labkit.Trace.from_dict(trace.to_dict()) == trace
    tiles = [(s.query_tile[0], s.key_tile[0], s.skipped) for s in trace.steps]
    assert tiles == [
        (0, 0, False),
        (0, 4, True),
        (0, 8, True),
        (4, 0, False),
        (4, 4, False),
        (4, 8, True),
        (8, 0, False),
        (8, 4, False),
        (8, 8, False),
    ]
    scores = np.where(np.tri(10, dtype=bool), q @ k.T / np.sqrt(8), -np.inf)
    assert np.allclose(trace.steps[-1].top, scores[8:].max(axis=1))
    assert np.allclose(
        trace.steps[-1].total,
        np.exp(scores[8:] - scores[8:].max(axis=1, keepdims=True)).sum(axis=1),
    )


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize(
    "window,keep,sink",
    [(None, 0, None), (3, 0, None), (3, 2, None), (1, 0, 0.7), (4, 1, -2.0), (None, 0, 1.5)],
)
def test_attention_looks_where_it_may_and_nowhere_else(window, keep, sink):
    """One query and one head at a time, over a list of the keys it may see: no mask at all."""
    T, H, G, E = 9, 4, 2, 6
    q, k, v = draw(0, (T, H, E), (T, G, E), (T, G, 5))
    got = reference.attention(
        q,
        k,
        v,
        np.arange(T),
        np.arange(T),
        window,
        None if sink is None else np.full(H, sink),
        keep,
    )
    for t in range(T):
        seen = [s for s in range(t + 1) if window is None or t - s < window or s < keep]
        for h in range(H):
            weights = np.exp(k[seen, h // 2] @ q[t, h] / np.sqrt(E))
            total = weights.sum() + (0 if sink is None else np.exp(sink))
            assert np.abs(got[t, h] - weights @ v[seen, h // 2] / total).max() < 1e-12


def test_an_empty_slot_is_never_seen():
    q, k, v = draw(1, (1, 1, 4), (3, 1, 4), (3, 1, 4))
    got = reference.attention(q, k, v, np.array([1]), np.array([-1, 0, 1]))
    assert np.array_equal(
        got, reference.attention(q, k[1:], v[1:], np.array([1]), np.array([0, 1]))
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**31))
def test_absorbed_equals_reprojected(T, H, C, seed):
    q, q_rope, latent, k_rope, up = draw(
        seed, (T, H, 5), (T, H, 4), (T + 3, C), (T + 3, 4), (H, 5 + 6, C)
    )
    where = np.arange(3, T + 3), np.arange(T + 3)
    ways = [
        f(q, q_rope, latent, k_rope, up, *where)
        for f in (reference.absorbed, reference.reprojected)
    ]
    assert ways[0].shape == (T, H, 6) and np.abs(ways[0] - ways[1]).max() < 1e-10


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 2**31), st.floats(0, 8))
def test_chunked_equals_recurrent(T, chunk, seed, forget):
    q, k, v, g, beta, state = draw(seed, (T, 2, 5), (T, 2, 5), (T, 2, 3), (T, 2), (T, 2), (2, 5, 3))
    k, g, beta = reference.delta.unit(k), -forget * np.abs(g), 1 / (1 + np.exp(-beta))
    want, last = reference.delta_recurrent(q, k, v, g, beta, state)
    got, also_last = reference.delta_chunked(q, k, v, g, beta, state, chunk)
    assert np.abs(got - want).max() < 1e-10 and np.abs(also_last - last).max() < 1e-10


def test_the_delta_rule_repairs_what_addition_would_blur():
    """Two values stored under keys that are not orthogonal, then the first overwritten: its last
    value is recalled exactly.
    """
    keys = reference.delta.unit(np.array([[1.0, 0.2], [0.3, 1.0], [1.0, 0.2]]))
    values = np.array([[1.0], [2.0], [5.0]])
    ones = np.ones((3, 1))
    out, state = reference.delta_recurrent(
        keys[:, None], keys[:, None], values[:, None], 0 * ones, ones
    )
    assert np.allclose(out[:, 0], values, atol=1e-6)  # asked right after it was told
    # the sum of outer products answers something else
    assert abs((keys[2] @ (keys.T @ values)).item() - 5) > 1
    assert state.shape == (1, 2, 1)


def test_a_forgetting_memory_forgets():
    _, k, v = draw(3, (4, 1, 3), (4, 1, 3), (4, 1, 2))
    g = np.array([[0.0], [0.0], [0.0], [-50.0]])
    _, state = reference.delta_recurrent(k, k, v, g, np.ones((4, 1)))
    assert np.abs(state - np.einsum("hk,hw->hkw", k[3], v[3])).max() < 1e-12


def test_a_bias_chooses_experts_but_does_not_weigh_them():
    x, router = draw(4, (50, 8), (6, 8))
    experts, weights = reference.route(x, router, 2, "sigmoid", renormalise=False)
    scores = 1 / (1 + np.exp(-(x @ router.T)))
    assert np.allclose(weights, np.sort(scores)[:, :-3:-1], rtol=1e-12, atol=0)
    assert np.allclose(np.take_along_axis(scores, experts, 1), weights, rtol=1e-12, atol=0)
    biased, weights = reference.route(
        x, router, 2, "sigmoid", renormalise=False, bias=np.array([0, 0, 9.0, 0, 0, 0])
    )
    assert (
        (biased[:, 0] == 2).all()
        and np.allclose(weights[:, 0], scores[:, 2], rtol=1e-12, atol=0)
        and not np.array_equal(biased, experts)
    )
    assert np.allclose(reference.route(x, router, 3, scale=2.5)[1].sum(axis=1), 2.5)


def test_groups_bound_where_a_token_may_go():
    x, router = draw(5, (200, 8), (12, 8))
    experts, _ = reference.route(x, router, 3, "sigmoid", groups=4, active_groups=1)
    assert (experts // 3 == experts[:, :1] // 3).all()  # all three of one group
    two = np.sort((1 / (1 + np.exp(-(x @ router.T)))).reshape(200, 4, 3))[..., -2:].sum(axis=2)
    assert np.array_equal(experts[:, 0] // 3, two.argmax(axis=1))
    assert np.array_equal(
        reference.route(x, router, 3, groups=4, active_groups=4)[0],
        reference.route(x, router, 3)[0],
    )


def test_the_loop_over_experts_equals_every_expert_on_every_token():
    x, router, gate_up, down = draw(6, (30, 8), (5, 8), (5, 12, 8), (5, 8, 6))
    experts, weights = reference.route(x, router, 2)
    dense = np.zeros((30, 5))
    np.put_along_axis(dense, experts, weights, axis=1)
    want = sum(dense[:, [e]] * reference.swiglu(x, gate_up[e], down[e]) for e in range(5))
    assert np.abs(reference.moe(x, experts, weights, gate_up, down) - want).max() < 1e-12
    assert reference.expert_load(experts, 5).tolist() == (dense > 0).sum(axis=0).tolist()


# -- each equals its torch module --------------------------------------------------------


def weights_of(module) -> dict:
    with torch.no_grad():
        for p in module.parameters():
            if p.dim() == 1:
                # norms start at 1 and biases at 0, which would hide a dropped one
                p.add_(torch.randn(p.shape) * 0.1)
    return {name: a.numpy() for name, a in module.state_dict().items()}


def torch_layer(module, x) -> np.ndarray:
    cache = labkit.caches.make_cache("none", module, 1, len(x))
    with torch.no_grad():
        return module(x, Step.of([(0, 0, [0] * len(x))]), cache).numpy()


def equal_in_any_chunks(layer, x, want):
    """The NumPy layer gives the module's output, whole or fed in pieces through its cache."""
    cache, parts = None, []
    for piece in np.split(x, [13, 14]):
        out, cache = layer(piece, cache)
        parts.append(out)
    assert (
        np.abs(layer(x, None)[0] - want).max() < 1e-5
        and np.abs(np.concatenate(parts) - want).max() < 1e-5
    )
    return cache


@pytest.mark.parametrize("attend", [reference.absorbed, reference.reprojected])
@pytest.mark.parametrize("path", ["absorbed", "reprojected"])
@pytest.mark.parametrize("q_lora_rank", [None, 24])
def test_mla_equals_its_module(attend, path, q_lora_rank):
    torch.manual_seed(0)
    c = presets["tiny-mla"].replace(q_lora_rank=q_lora_rank)
    module, x = mixers.MLA(c, path=path), torch.randn(30, 64)
    w = weights_of(module)
    latent, k_rope = equal_in_any_chunks(
        lambda x, cache: reference.mla(x, w, c, cache, attend), x.numpy(), torch_layer(module, x)
    )
    # C + Er numbers a token, for all heads
    assert latent.shape == (30, 32) and k_rope.shape == (30, 8)


@pytest.mark.parametrize("rule", [reference.delta_recurrent, reference.delta_chunked])
@pytest.mark.parametrize(
    "changes",
    [{}, dict(delta_n_key_heads=4), dict(delta_key_dim=8, delta_value_dim=24, delta_conv=3)],
)
def test_gated_delta_net_equals_its_module(rule, changes):
    torch.manual_seed(0)
    c = presets["tiny-delta"].replace(**changes)
    module, x = mixers.GatedDeltaNet(c), torch.randn(30, 64)
    w = weights_of(module)
    past, state = equal_in_any_chunks(
        lambda x, cache: reference.gated_delta_net(x, w, c, cache, rule),
        x.numpy(),
        torch_layer(module, x),
    )
    K, W = c.delta_key_dim, c.delta_value_dim
    assert past.shape == (
        c.delta_conv - 1,
        2 * c.delta_n_key_heads * K + 4 * W,
    ) and state.shape == (4, K, W)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(renormalise=False, n_shared_experts=0),
        dict(n_shared_experts=2, shared_gate=True),
        dict(
            router="sigmoid",
            router_bias=True,
            routed_scale=2.5,
            n_expert_groups=4,
            n_active_groups=2,
            n_active_experts=3,
        ),
    ],
)
def test_experts_equal_their_module(changes):
    torch.manual_seed(0)
    c = presets["tiny-moe"].replace(**changes)
    module, x = moe.MoE(c), torch.randn(60, 64)
    if c.router_bias:
        module.router.correction.copy_(torch.randn(c.n_experts) * 0.1)
    w = weights_of(module)
    with torch.no_grad():
        want, (chosen, _) = module(x).numpy(), module.router(x)
    x = x.numpy()
    experts, weights = reference.route(
        x,
        w["router.score.weight"],
        c.n_active_experts,
        c.router,
        c.renormalise,
        w.get("router.correction"),
        c.routed_scale,
        c.n_expert_groups,
        c.n_active_groups,
    )
    out = reference.moe(x, experts, weights, w["gate_up"], w["down"])
    if c.n_shared_experts:
        shared = reference.swiglu(x, w["shared.gate_up.weight"], w["shared.down.weight"])
        out = out + (
            shared / (1 + np.exp(-x @ w["shared_gate.weight"].T)) if c.shared_gate else shared
        )
    assert np.abs(out - want).max() < 1e-5
    assert np.array_equal(reference.expert_load(experts, 8), moe.expert_load(chosen, 8).numpy())


@pytest.mark.parametrize(
    "changes",
    [
        dict(layer_types=("sliding",), window=8),
        dict(sinks=True),
        dict(layer_types=("sliding",), window=5, sinks=True),
    ],
)
def test_windows_and_sinks_equal_the_module(changes):
    torch.manual_seed(0)
    c = presets["tiny"].replace(n_layers=1, **changes)
    module, x = mixers.Attention(c), torch.randn(30, 64)
    w, pos = weights_of(module), np.arange(30)
    q, k, v = np.split((x.numpy() @ w["qkv.weight"].T).reshape(30, 8, 16), [4, 6], axis=1)
    q, k = (reference.rope(a, pos, c.rope_theta) for a in (q, k))
    out = (
        reference.attention(q, k, v, pos, pos, c.window, w.get("sinks")).reshape(30, 64)
        @ w["out.weight"].T
    )
    assert np.abs(out - torch_layer(module, x)).max() < 1e-5


def test_importing_the_reference_loads_neither_torch_nor_anywidget():
    code = (
        "import sys, labkit.reference; print([m for m in ('torch', 'anywidget', 'matplotlib') if m"
        " in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )

"""NumPy is the oracle: it equals torch, its two loops agree, and online softmax equals softmax for every tile size."""
import subprocess
import sys

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labkit
from labkit import presets, reference


@pytest.mark.parametrize("changes", [{}, dict(n_kv_heads=4), dict(n_kv_heads=1), dict(tie_embeddings=True), dict(head_dim=32, rope_theta=5e5)])
def test_numpy_equals_torch(changes):
    torch_model = labkit.GPT(presets["tiny"].replace(**changes)).eval()
    ids = oracles.text(40)
    want = labkit.logits(torch_model, ids).numpy()
    twin = reference.TinyGPT.of(torch_model)
    assert np.abs(twin.forward(ids) - want).max() < 1e-5
    cache = reference.Cache(4)
    parts = [twin.forward(ids[:17], cache), twin.forward(ids[17:18], cache), twin.forward(ids[18:], cache)]
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
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31), st.floats(0.1, 30))
def test_online_softmax_equals_softmax(T, tile, E, seed, scale):
    q, k, v = np.random.default_rng(seed).standard_normal((3, T, E)) * scale
    pos = np.arange(T)
    want = reference.attention(q[:, None], k[:, None], v[:, None], pos, pos)[:, 0]
    assert np.abs(reference.online_attention(q, k, v, tile) - want).max() < 1e-9 * max(1, scale)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 2**31))
def test_split_decode_equals_one_pass(S, splits, seed):
    q, k, v = (np.random.default_rng(seed + i).standard_normal(shape) for i, shape in enumerate([8, (S, 8), (S, 8)]))
    want = reference.attention(q[None, None], k[:, None], v[:, None], np.array([S]), np.arange(S))[0, 0]
    assert np.abs(reference.split_decode(q, k, v, min(splits, S)) - want).max() < 1e-12


def test_the_recorded_tiles_are_those_visited():
    q, k, v = np.random.default_rng(0).standard_normal((3, 10, 8))
    trace = reference.record_attention(q, k, v, tile=4)
    assert labkit.Trace.from_dict(trace.to_dict()) == trace
    tiles = [(s.query_tile[0], s.key_tile[0], s.skipped) for s in trace.steps]
    assert tiles == [(0, 0, False), (0, 4, True), (0, 8, True), (4, 0, False), (4, 4, False), (4, 8, True),
                     (8, 0, False), (8, 4, False), (8, 8, False)]
    scores = np.where(np.tri(10, dtype=bool), q @ k.T / np.sqrt(8), -np.inf)
    assert np.allclose(trace.steps[-1].top, scores[8:].max(axis=1))
    assert np.allclose(trace.steps[-1].total, np.exp(scores[8:] - scores[8:].max(axis=1, keepdims=True)).sum(axis=1))


def test_importing_the_reference_loads_neither_torch_nor_anywidget():
    code = "import sys, labkit.reference; print([m for m in ('torch', 'anywidget', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

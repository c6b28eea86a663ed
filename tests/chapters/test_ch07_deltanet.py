"""Chapter 07: what its memories and its faults are, and to what more training is given."""

import numpy as np
import pytest

from labkit import formulas, presets, reference, results
from labkit.tables import only, where
from labkit_labs.ch07_deltanet import breakages, longer, train
from labkit_labs.ch07_deltanet.memories import adds, corrects


def test_only_the_small_state_is_trained_on(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    rows = train.run("cpu", lengths=[1, 2], seeds=1)
    assert [(r["variant"], r["steps"]) for r in rows] == [
        ("MHA", 1),
        ("DeltaNet wide", 1),
        ("DeltaNet", 1),
        ("DeltaNet", 2),
    ]
    # untrained they guess, once in 32 rightly
    assert all(r["recall"] < 0.1 for r in rows) and train.go(rows) is None
    assert max(r["parameters"] for r in rows) < 1.01 * min(r["parameters"] for r in rows)


def test_a_training_repeats():
    assert longer.learn("DeltaNet", 0, 2) == longer.learn("DeltaNet", 0, 2)


# -- the memories ------------------------------------------------------------------------


def random_texts(T=20, K=6, W=3):
    draw = np.random.default_rng(0).standard_normal
    q, k, v = draw((T, K)), draw((T, K)), draw((T, W))
    return q, k / np.linalg.norm(k, axis=1, keepdims=True), v


def test_the_memory_that_adds_is_attention_without_softmax():
    q, k, v = random_texts()
    out, S = adds(q, k, v)
    assert np.allclose(out, np.tril(q @ k.T) @ v) and np.allclose(S, k.T @ v)


def test_the_memory_that_corrects_is_the_delta_rule_with_its_gates_open():
    q, k, v = random_texts()
    nothing, all_of_it = np.zeros((len(q), 1)), np.ones((len(q), 1))
    out, S = reference.delta_recurrent(q[:, None], k[:, None], v[:, None], nothing, all_of_it)
    got, mine = corrects(q, k, v)
    assert np.allclose(got, out[:, 0]) and np.allclose(mine, S[0])


# -- the faults --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows():
    return {(r["condition"], r["switch"]): r for r in breakages.bench()}


def test_a_layer_without_a_fault_passes_every_test():
    made = breakages.Layer()
    assert all(test(made) for test in breakages.TESTS.values())
    assert breakages.symptom(made) == "none"
    assert breakages.near(breakages.stepped(made, "chunked"), made.oracle(breakages.tokens()))


def test_every_fault_is_seen_and_every_test_sees_one(rows):
    assert len(rows) == len(breakages.FAULTS)
    seen = {name for r in rows.values() for name in r["seen by"].split(", ")}
    assert seen == set(breakages.TESTS)


def test_an_empty_memory_hides_what_fades_and_what_is_corrected(rows):
    """What the page says of token 0."""
    for r in rows.values():
        early = "token 0 = oracle" in r["seen by"]
        if r["condition"] in ("forget gate", "delta rule", "chunks"):
            assert not early, r
        if "gate" in r["condition"] and r["condition"] != "forget gate":
            assert early, r


def test_a_fault_of_the_handover_is_seen_by_the_parts_alone(rows):
    (r,) = [r for r in rows.values() if "handed" in r["switch"]]
    assert r["seen by"] == "parts = whole" and "from token 50 on in parts" in r["symptom"]
    (r,) = [r for r in rows.values() if r["condition"] == "chunks"]
    assert r["seen by"] == "ways agree" and "from token 16 on in chunks" in r["symptom"]


# -- the numbers -------------------------------------------------------------------------


def test_the_pages_sums_are_the_formulas():
    """Bytes and weights that the page writes out."""
    next80 = presets["qwen3-next-80b-a3b"]
    one = {k: next80.replace(n_layers=1, layer_types=(k,)) for k in ("delta", "full")}
    assert formulas.kv_cache_bytes(one["delta"], 1) == 2_146_304
    assert formulas.kv_cache_bytes(one["full"], 1) == 2_048
    assert formulas.parts(one["delta"])["delta rule"].matrices == 33_718_272
    assert formulas.parts(one["full"])["attention"].matrices == 27_262_976
    narrow = {k: c.replace(d_model=512) for k, c in one.items()}
    assert formulas.parts(narrow["delta"])["delta rule"].matrices == 8_454_144
    assert formulas.parts(narrow["full"])["attention"].matrices == 6_815_744
    assert formulas.kv_cache_bytes(narrow["delta"], 1, 1, "fp32") == 2_195_456
    kinds = next80.types
    assert kinds.count("delta") == 36 and kinds[3::4] == ("full",) * 12


def test_the_clocks_cross_where_the_page_says_and_behind_the_bytes():
    rows = where(results.load("ch07/state")["rows"], what="decode")
    time = {(r["kind"], r["tokens"]): r["median"] for r in rows}
    assert [T for T in (1024, 2048, 4096, 8192, 16384) if time["delta", T] < time["full", T]] == [
        8192,
        16384,
    ]
    assert (2 * 2_195_456 + (8_454_144 - 6_815_744) * 4) / 4096 < 4096
    # the bet's answer is above 1 by more than the quartiles of both
    state, full = (only(rows, kind=kind, tokens=2048) for kind in ("delta", "full"))
    assert state["median"] - state["iqr"] > full["median"] + full["iqr"]

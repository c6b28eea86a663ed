"""Chapter 07: what its memories and its faults are, to what more training is given; and the clip
shows what was recorded and measured, and what the rule makes of it.
"""

import json

import numpy as np
import pytest

from animations.scenes.ch07_deltanet import StateThatNeverGrows
from animations.stage.audit import inspect
from labkit import formulas, presets, reference, results, traces
from labkit.tables import only, where
from labkit.traces import Trace
from labkit.traces.state import StateStep
from labkit_labs.ch07_deltanet import breakages, longer, train
from labkit_labs.ch07_deltanet.memories import adds, corrects
from tests.cases import report


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


# -- the clip ------------------------------------------------------------------------------


def off(answer, value) -> float:
    return np.linalg.norm(answer - value) / np.linalg.norm(value)


def test_the_clip_writes_what_the_recorded_text_says_twice():
    """Keys and values are the trace's; both memories are worked out here once more."""
    seen, made = report(StateThatNeverGrows).texts, report(StateThatNeverGrows).scene
    steps = traces.stored("ch07/state_recall").steps
    first, second = (
        next(i for i, s in enumerate(steps) if s.key == key.tolist()) for key in made.keys
    )
    assert first < second and [c.token for c in made.chips] == [
        steps[i].token for i in (first - 1, first, second - 1, second)
    ]
    assert steps[first - 1].token == steps[second - 1].token
    (k, old), (again, new) = (
        (np.array(steps[i].key), np.array(steps[i].value)) for i in (first, second)
    )
    assert k @ again > 0.95
    adds = np.outer(k, old) + np.outer(again, new)
    state = np.outer(k, old)
    delta = state + np.outer(again, new - again @ state)
    assert np.allclose(made.plain.grid.value, adds) and np.allclose(made.delta.grid.value, delta)
    assert {f"off by {100 * off(again @ m, new):.0f} %" for m in (adds, delta)} <= seen
    a, b = steps[first].token, steps[second].token
    assert {f"answer: {a}", f"{a} + {b}", f"{b} less {a}", b, f"{a} is gone"} <= seen


def test_what_the_clip_says_of_the_two_memories_is_so():
    """Adding answers with both values, the delta rule with the new one and no longer the old."""
    made = report(StateThatNeverGrows).scene
    (k, again), (old, new) = made.keys, made.values
    adds, delta = made.plain.grid.value, made.delta.grid.value
    assert off(k @ made.added[0], old) < 0.01, "asked with the key, the value comes back"
    assert off(again @ adds, old + new) < 0.01
    assert off(again @ delta, new) < 0.01
    assert off(made.last.value, old) > 0.5 and off(made.last.value, new) < 0.05
    assert np.allclose(made.last.value, k @ delta)


def test_the_clip_shows_the_measured_bytes_and_times():
    seen, made = report(StateThatNeverGrows).texts, report(StateThatNeverGrows).scene
    document = results.load("ch07/state")
    decode = [r for r in document["rows"] if r["what"] == "decode"]
    kept, took = (
        {
            kind: {r["tokens"]: r[key] for r in decode if r["kind"] == kind}
            for kind in ("delta", "full")
        }
        for key in ("layer_bytes", "median")
    )
    contexts = sorted(kept["delta"])
    (state,) = set(kept["delta"].values())
    a_token = kept["full"][contexts[-1]] / contexts[-1]
    assert {f"{state / 1e6:.1f} MB", f"{kept['full'][contexts[-1]] / 1e6:.1f} MB"} <= seen
    assert f"equal at {state / a_token:,.0f} tokens" in seen
    assert {f"{1e3 * s:.1f} ms" for kind in took.values() for s in kind.values()} <= seen
    slower = [T for T in contexts if took["full"][T] > took["delta"][T]]
    before = max(set(contexts) - set(slower))
    assert f"equal between {before:,} and {slower[0]:,}" in seen
    assert f"{contexts[-1]:,}" in seen and f"{results.where(document)}, 1 thread" in seen
    said = {m.name: m.sentence for m in made.moments}
    assert (
        f"{state / 1e6:.1f} MB" in said["outgrown"]
        and f"{state / a_token:,.0f}" in said["outgrown"]
    )
    for name, T in (("short", contexts[0]), ("long", contexts[-1])):
        for number in (f"{T:,}", *(f"{1e3 * took[kind][T]:.1f}" for kind in took)):
            assert number in said[name]


def recorded(folder, tokens: str, keys: dict, cache_ms=(1.0, 99.0)):
    """A trace of this text and measured steps, as the clip reads them: the letter before it decides
    under which key a digit is written.
    """
    values = np.eye(4) * 3 - 0.5
    steps = [
        StateStep(
            token,
            list(keys.get(before, (0, 0, 0, 1))),
            list(values[ord(token) % 4]),
            1.0,
            1.0,
            [0.0] * 4,
            [0.0] * 4,
            [[0.0] * 4] * 4,
            1.0,
            0.0,
            [[0.0] * 4] * 4,
            1.0,
            0.0,
            token,
        )
        for before, token in zip(" " + tokens, tokens)
    ]
    Trace("state", "a test", {}, steps).save(folder / "ch07/state_recall.trace.json")
    rows = [
        dict(what="decode", kind=kind, tokens=T, layer_bytes=size, median=ms / 1e3)
        for kind, times in (("delta", (20.0, 21.0)), ("full", cache_ms))
        for T, ms, size in zip(
            (1024, 131_072),
            times,
            (2_195_456,) * 2 if kind == "delta" else (4_194_304, 536_870_912),
        )
    ]
    path = results.save("ch07/state", rows, into=folder)
    # the longest name of a machine
    document = json.loads(path.read_text())
    cpu = {"cpu": "Intel(R) Xeon(R) Processor", "cores": 2, "capability": "AVX512", "threads": 1}
    document["env"] |= cpu
    path.write_text(json.dumps(document))


SAME = {"b": (0.6, 0.8, 0, 0), "c": (0, 0, 1.0, 0)}


def test_the_clip_follows_another_recording(tmp_path, monkeypatch):
    recorded(tmp_path, "b1c0b2", SAME)
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    other = inspect(StateThatNeverGrows)
    assert other.findings == []
    assert {
        "key of b",
        "1 + 2",
        "2 less 1",
        "1 is gone",
        "The memory of one head: 4 × 4 numbers",
        "off by 0 %",
        "536.9 MB",
        "99.0 ms",
        "equal between 1,024 and 131,072",
        "131,072",
        "Intel(R) Xeon(R) Processor, 2 cores, AVX512, 1 thread",
    } <= other.texts


@pytest.mark.parametrize(
    "text, cache_ms, message",
    [
        ("b1c0b1", (1.0, 99.0), "must tell a name two digits under one key"),
        ("b1c0d2", (1.0, 99.0), "must tell a name two digits under one key"),
        ("b1c0b2", (1.0, 9.0), "must be the faster one at first and the slower one"),
        ("b1c0b2", (30.0, 99.0), "must be the faster one at first and the slower one"),
    ],
    ids=["the same digit", "no name twice", "never slower", "never faster"],
)
def test_a_recording_that_does_not_show_it_is_refused(
    tmp_path, monkeypatch, text, cache_ms, message
):
    recorded(tmp_path, text, SAME, cache_ms)
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=message):
        StateThatNeverGrows().load()

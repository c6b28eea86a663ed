"""Records: a trace tells what ran, a measurement is taken fairly."""

import subprocess
import sys
import time

import pytest
import torch

import labkit
from labkit import bench
from labkit.trace import DecodeStep, Trace, record_decode
from tests import oracles


@pytest.fixture(scope="module")
def model():
    return labkit.weights.from_hf(oracles.build("llama-gqa"))


def test_a_decode_trace_counts_what_the_cache_saw(model, tmp_path):
    prompt = oracles.text(6)
    kept, naive = record_decode(model, prompt, 5), record_decode(model, prompt, 5, cache="none")
    assert [s.computed for s in kept.steps] == [6, 1, 1, 1, 1] and [
        s.computed for s in naive.steps
    ] == [6, 7, 8, 9, 10]
    assert [s.read for s in kept.steps] == [s.read for s in naive.steps] == [6, 7, 8, 9, 10]
    assert [s.written for s in kept.steps] == [6, 1, 1, 1, 1] and not any(
        s.written for s in naive.steps
    )
    assert [s.held for s in kept.steps] == [6, 7, 8, 9, 10]
    tokens = [s.token for s in kept.steps]
    assert (
        tokens
        == [s.token for s in naive.steps]
        == [str(t) for t in labkit.generate(model, [prompt], 5)[0]]
    )
    assert Trace.load(kept.save(tmp_path / "t.json")) == kept


def test_a_broken_trace_is_refused(model):
    d = record_decode(model, [5], 2).to_dict()
    with pytest.raises(ValueError, match="step 1 has the fields"):
        Trace.from_dict(d | {"steps": [d["steps"][0], {"token": "x"}]})
    with pytest.raises(ValueError, match="not a trace of schema 1"):
        Trace.from_dict(d | {"schema": 9})
    with pytest.raises(ValueError, match="no trace is of kind 'decod'"):
        Trace("decod", "", {})
    with pytest.raises(ValueError, match="must be a AttentionStep, not DecodeStep"):
        Trace("attention", "", {}, [DecodeStep("a", [], 1, 1, 1, 1)])


# -- bench -----------------------------------------------------------------------------------------


def test_interleaving_alternates_and_warms_up():
    calls = []
    m = bench.interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, warmup=2, repeats=3
    )
    assert calls == ["a", "b"] * 5 and m["a"].n == 3


def test_rounds_run_in_turn_and_keep_what_each_warm_round_returned():
    calls, words = [], iter("abcdef")

    def says():
        calls.append("says")
        return next(words)

    made = bench.rounds({"says": says, "silent": lambda: calls.append("silent")}, repeats=3)
    assert calls == ["says", "silent"] * 4  # one round to warm up
    assert made["says"] == ["b", "c", "d"]
    assert len(made["silent"]) == 3 and all(0 < s < 1 for s in made["silent"])  # its seconds


def test_a_round_that_takes_long_is_warmed_up_by_a_shorter_one():
    calls = []
    loop = lambda new: lambda: calls.append(new) or new
    made = bench.rounds(
        {"a": loop(128), "b": loop(64)}, repeats=2, warmup={"b": loop(2)}, label="rounds"
    )
    assert calls == [2, 128, 64, 128, 64] and made == {"a": [128, 128], "b": [64, 64]}
    assert bench.rounds({"a": loop(1)}, repeats=1, warmup=0) == {"a": [1]} and calls[5:] == [1]


def test_every_round_starts_from_the_same_seed():
    made = bench.rounds({"a": lambda: torch.rand(1).item(), "b": lambda: torch.rand(1).item()})
    assert len({*made["a"], *made["b"]}) == 1
    other = bench.rounds({"a": lambda: torch.rand(1).item()}, repeats=1, seed=1)
    assert other["a"][0] != made["a"][0]


def test_a_device_is_waited_for_before_and_after_every_run(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: seen.append("wait"))
    bench.rounds({"a": lambda: seen.append("run")}, repeats=2, warmup=0, device="cuda")
    assert seen == ["wait", "run", "wait"] * 2


def test_the_clock_can_be_asked_for_both():
    seconds, slept = bench.timed(lambda: time.sleep(0.02) or "slept")
    assert 0.02 <= seconds < 2 and slept == "slept"


@pytest.mark.parametrize(
    "fns, how, message",
    [
        (
            {},
            {},
            "at least one function, at least one repeat and no negative warm-up, not 0, 5 and 1",
        ),
        ({"a": int}, {"repeats": 0}, "not 1, 0 and 1"),
        ({"a": int}, {"warmup": -1}, "not 1, 5 and -1"),
        ({"a": int}, {"warmup": {"b": int}}, "the warm-up runs 'b', .* choose from 'a'"),
    ],
)
def test_rounds_of_nothing_are_refused(fns, how, message):
    with pytest.raises(ValueError, match=message):
        bench.rounds(fns, **how)


def test_a_measurement_is_of_the_work_it_names():
    machine = labkit.formulas.Hardware("a machine", 1e9, 1e6)
    # a float is the function's own clock
    m = bench.measure(lambda: 0.5, flops=1e8, bytes=2e5, hardware=machine, repeats=4)
    assert (
        (m.median, m.iqr, m.n) == (0.5, 0.0, 4)
        and m.mfu == pytest.approx(0.2)
        and m.mbu == pytest.approx(0.4)
    )
    assert m.to_row(variant="x") == {
        "variant": "x",
        "median": 0.5,
        "iqr": 0.0,
        "n": 4,
        "unit": "s",
        "flops": 1e8,
        "bytes": 2e5,
        "mfu": m.mfu,
        "mbu": m.mbu,
    }
    slept = bench.measure(lambda: time.sleep(0.02), repeats=3)
    assert slept.median >= 0.02
    assert bench.multiple(m, bench.summarise([0.1, 0.1])) == pytest.approx(5)


def test_decode_is_timed_apart_from_prefill(model):
    prompts = [oracles.text(7), oracles.text(4)]
    for cache in ("static", "paged", "none"):
        times = bench.time_decode(model, prompts, 6, cache)
        assert (
            len(times.each) == 5
            and times.first > 0
            and times.seconds == times.first + sum(times.each)
            and times.tokens == labkit.generate(model, prompts, 6, stop=())
        )


def test_nothing_to_repeat_is_refused():
    with pytest.raises(ValueError, match="at least one repeat"):
        bench.measure(lambda: None, repeats=0)


def test_importing_labkit_is_light():
    code = (
        "import sys, labkit, labkit.results, labkit.trace; print([m for m in ('torch', 'numpy',"
        " 'anywidget') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )

"""Records: a trace tells what ran, a measurement is taken fairly."""

import subprocess
import sys
import time

import oracles
import pytest

import labkit
from labkit import bench
from labkit.trace import DecodeStep, Trace, record_decode


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

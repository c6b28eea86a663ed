"""Records: a trace tells what ran, a measurement is taken fairly."""

import subprocess
import sys
import time
from dataclasses import is_dataclass
from types import SimpleNamespace

import pytest
import torch

import labkit
from labkit import bench, results, traces
from labkit.cli import bench as command
from labkit.rivals.transformers import time_transformers, transformers_twin
from labkit.trace import DecodeStep, SpeculationStep, Trace, record_decode
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
    assert [s.fed for s in kept.steps] == [[*map(str, prompt)], *([t] for t in tokens[:4])]
    assert naive.steps[4].fed == [*map(str, prompt), *tokens[:4]]
    assert (kept.source, naive.source) == ("labkit.decode.cached", "labkit.decode.naive")
    assert Trace.load(kept.save(tmp_path / "ch02" / "t.trace.json")) == kept


def test_a_ring_is_watched_like_any_cache(model):
    """With room for a prompt that comes in one step."""
    mistral = labkit.weights.from_hf(oracles.build("mistral"))
    prompt = oracles.text(20)
    ring = record_decode(mistral, prompt, 5, cache="ring")
    assert [s.token for s in ring.steps] == [
        str(t) for t in labkit.generate(mistral, [prompt], 5)[0]
    ]


def test_a_prompt_that_the_model_cannot_take_is_not_recorded(model):
    with pytest.raises(ValueError, match="the prompt is empty"):
        record_decode(model, [], 2)


def test_a_broken_trace_is_refused(model, tmp_path):
    d = record_decode(model, [5], 2).to_dict()
    with pytest.raises(ValueError, match="step 1 has the fields"):
        Trace.from_dict(d | {"steps": [d["steps"][0], {"token": "x"}]})
    with pytest.raises(ValueError, match="reads traces of schema 1, not 9: update labkit"):
        Trace.from_dict({"schema": 9, "what": "comes later"})
    with pytest.raises(ValueError, match="no trace is of kind 'decod': choose attention, blocks"):
        Trace("decod", "", {})
    with pytest.raises(ValueError, match="must be of type AttentionStep, not DecodeStep"):
        Trace("attention", "", {}, [DecodeStep("a", [], 1, 1, 1, 1)])
    for text, message in (
        ("[]", "x.trace.json: this is not a trace"),
        ("{", "x.trace.json: "),
        ('{"schema": 1, "kind": "decode"}', "it lacks meta, source, steps"),
    ):
        (tmp_path / "x.trace.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            Trace.load(tmp_path / "x.trace.json")


def test_a_trace_that_json_cannot_hold_is_not_written(tmp_path):
    trace = Trace("speculation", "a test", {}, [SpeculationStep(float("nan"), [], [])])
    with pytest.raises(ValueError, match="not JSON compliant"):
        trace.save(tmp_path / "t.trace.json")
    assert not list(tmp_path.iterdir())


def test_each_kind_of_trace_is_one_file_that_is_found_by_its_name(tmp_path, monkeypatch):
    for kind in traces.kinds():
        assert is_dataclass(traces.step_type(kind)), kind
    with pytest.raises(ValueError, match="no trace is of kind 'expert_load'"):
        Trace("expert_load", "", {})
    (tmp_path / "expert_load.py").write_text(
        "from dataclasses import dataclass\n\n@dataclass\nclass ExpertLoadStep:\n    load: list\n"
    )
    monkeypatch.setattr(traces, "__path__", [*traces.__path__, str(tmp_path)])
    step = traces.step_type("expert_load")([3, 1])
    trace = Trace("expert_load", "a test", {}, [step])
    assert Trace.load(trace.save(tmp_path / "t.trace.json")) == trace


def test_a_stored_trace_is_read_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    trace = Trace("speculation", "a test", {}, [SpeculationStep(0.5, [], [])])
    assert trace.save(traces.path_of("ch12/lookup")) == tmp_path / "ch12" / "lookup.trace.json"
    assert traces.stored("ch12/lookup") == trace == labkit.trace.stored("ch12/lookup")
    with pytest.raises(ValueError, match="no trace is stored as 'ch12/lokup'; .* ch12/lookup"):
        traces.stored("ch12/lokup")


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
    assert len(made["silent"]) == 3 and all(s > 0 for s in made["silent"])  # its seconds


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


def test_the_clock_can_be_asked_for_both(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", iter([10.0, 12.5]).__next__)
    assert bench.timed(lambda: "done") == (2.5, "done")


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


def test_transformers_is_timed_on_the_same_weights_and_tokens(model):
    prompts = [oracles.text(7, seed=1), oracles.text(7, seed=2)]
    theirs = time_transformers(transformers_twin(model), prompts, 6)
    assert theirs.tokens == bench.time_decode(model, prompts, 6).tokens
    assert len(theirs.each) == 5 and min(theirs.first, *theirs.each) > 0


def test_the_command_has_a_row_for_each_batch_phase_and_engine(model, monkeypatch):
    machine = labkit.formulas.Hardware("a machine", 1e9, 1e6)
    tokenizer = SimpleNamespace(encode=lambda text: oracles.text(10))
    monkeypatch.setattr(labkit.weights, "smollm2", lambda dtype, device: (model, tokenizer))
    monkeypatch.setattr(bench, "hardware", lambda dtype, device: machine)
    args = SimpleNamespace(
        context=12, new=4, batch=[1, 3], repeats=2, device="cpu", against="transformers"
    )
    rows = command.measure("fp32", args)
    of = {(r["batch"], r["phase"], r["engine"]): r for r in rows}
    assert [(*key, r["n"]) for key, r in of.items()] == [
        (batch, phase, engine, n)
        for batch in (1, 3)
        for phase, n in (("prefill", 2), ("decode", 6))
        for engine in ("labkit", "transformers")
    ]
    for (batch, phase, _), r in of.items():
        flops, tokens = {
            "prefill": (labkit.formulas.prefill_flops(model.config, 12), 12),
            "decode": (labkit.formulas.decode_flops(model.config, 14), 1),
        }[phase]
        assert r["flops"] == batch * flops
        assert r["tokens_per_second"] * r["median"] == pytest.approx(batch * tokens)
        theirs = of[batch, phase, "transformers"]
        assert r["multiple"] == pytest.approx(theirs["median"] / r["median"])


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

"""What `make gpu` runs, part by part; measured here on a CPU, on sizes that take seconds."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

import gpu as make_gpu
from labkit import cli, results, timed
from labkit.gpu import clock, parts, power, rivals
from labkit.gpu.decode import measure as decode_rows
from labkit.published import presets


def test_every_part_has_a_result_whose_code_is_known():
    found = parts.parts()
    assert len({part.name for part in found}) == len({part.result for part in found}) == len(found)
    for part in found:
        assert timed.source_of(part.result).is_file(), part.name
        assert part.minutes <= 4 or part.name.startswith("ch14-")
    made = {part.name: timed.source_of(part.result).name for part in found if part.module}
    assert made["decode-llama3-8b-int4"] == "decode.py" and made["checks"] == "checks.py"
    assert timed.source_of("bench/transformers").name == "bench.py"


def test_a_decode_s_code_is_all_that_it_times():
    names = {path.name for path in timed.modules.closure(timed.source_of("bench/decode-x"))}
    assert {"ways.py", "cuda.py", "attention.py", "linear.py", "packed.py", "clock.py"} <= names


def test_parts_are_found_by_name_and_by_group():
    assert [p.name for p in parts.find("decode-qwen3-0.6b")] == ["decode-qwen3-0.6b"]
    assert len(parts.find("decode")) == 5 and {p.group for p in parts.find("labs")} == {"labs"}
    assert [p.name for p in parts.find("CH14-ENDS")] == ["ch14-ends"]
    assert parts.find("") == parts.parts()


def test_an_unknown_part_is_told_which_there_are(capsys):
    assert make_gpu.main(["--part", "xyz"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no part of make gpu is called 'xyz'; choose from" in said
    assert "checks, decode, launches, power, prefill, rivals, bench, labs" in said


def test_a_part_that_is_stored_is_passed_over_until_its_code_changes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    monkeypatch.setattr(parts, "environment", lambda device: {"gpu": "NVIDIA H100"})
    part = parts.find("launches")[0]
    assert not part.stored()
    path = tmp_path / "bench/launches.nvidia-h100.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"code": timed.code_of("bench/launches")}))
    assert part.stored()
    ran = []
    run = lambda command, **_: ran.append(command[3:]) or SimpleNamespace(returncode=0)
    monkeypatch.setattr(make_gpu.subprocess, "run", run)
    assert (
        make_gpu.run(part, again=False) and not ran and "stored already" in capsys.readouterr().out
    )
    assert make_gpu.run(part, again=True)
    assert ran == [["gpu", "launches", "--device", "cuda", "--store"]]
    path.write_text(json.dumps({"code": "of yesterday"}))
    assert not part.stored()


def test_a_part_that_takes_too_long_is_stopped(monkeypatch, capsys):
    def run(command, timeout, **_):
        raise make_gpu.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(make_gpu.subprocess, "run", run)
    assert not make_gpu.run(parts.find("prefill")[0], again=True)
    assert "prefill was stopped after 4 minutes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["decode-llama3-8b", "launches", "power", "prefill", "checks"])
def test_a_part_measures(name, capfd):
    cli.main(["gpu", name, "--quick", "--json"])
    lines = capfd.readouterr().out.strip().splitlines()
    document = json.loads(lines[-1])
    assert document["name"] == f"bench/{name}" and document["rows"]
    for row in document["rows"]:
        assert all(v > 0 for k, v in row.items() if isinstance(v, float)), row


def test_what_is_measured_of_a_decode():
    rows = decode_rows("cpu", preset="tiny", batches=(1,), context=12, steps=2)
    assert [(r["way"], r["cache"], r["batch"]) for r in rows] == [("eager", "static", 1)]
    row = rows[0]
    assert row["share"] == pytest.approx(
        row["bytes"] / row["milliseconds"] * 1e3 / row["read_bytes_per_second"]
    )


def test_a_rival_that_fails_says_why_and_the_others_go_on(monkeypatch):
    def broken(*_):
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(rivals.transformers, "time_continuous", broken)
    rows = rivals.measure("cpu", preset="tiny", requests=2, context=4, new=3, repeats=1)
    by_engine = {row["engine"]: row for row in rows}
    assert by_engine["transformers, continuous"]["note"] == "RuntimeError: no such kernel"
    assert "not captured: " in by_engine["labkit, graph"]["note"]
    assert by_engine["labkit, eager"]["tokens_per_second"] > 0


def test_without_nvml_there_is_nothing_to_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with power.metered("cuda") as meter:
        pass
    assert meter.joules is None and meter.utilisation is None


def test_blocks_of_a_filled_cache_lie_anywhere():
    model = clock.random_model(presets["tiny"], "cpu")
    caches = clock.filled_caches(model, "paged", 3, 60)
    table = caches[0].table
    assert sorted(table.flatten().tolist()) == [*range(table.numel())]
    assert table.flatten().tolist() != [*range(table.numel())]
    assert all(cache.table is table for cache in caches)
    assert torch.count_nonzero(caches[0].buffers[0]) > 0


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["gpu", "speed"], "no measurement is called 'speed'"),
        (["gpu", "power", "--quick", "--store"], "a quick run is too small to be stored"),
    ],
)
def test_bad_input_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as e:
        cli.main(arguments)
    err = capsys.readouterr().err
    assert e.value.code == 2 and said in err and err.count("\n") == 1

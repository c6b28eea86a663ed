"""llama.cpp as an engine to be measured: one process for a file of weights and a number of threads,
which takes our tokens and gives its own back.

What it is given: weights mapped from a file, flash attention where it chooses so, 512 tokens of a
prompt at once: its defaults. Its cache is f16 as it has it, but f32 under fp32 weights, so that
tokens can be compared, and bf16 under bf16.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from labkit.bench import LoopTimes
from labkit.model import GPT
from labkit.rivals.llama_cpp import files, library


def cache_of(kind: str) -> str:
    """The cache that a format of weights is measured with."""
    return {"F32": "f32", "BF16": "bf16"}.get(kind, "f16")


def weights(model: GPT, kind: str) -> Path:
    """The file of a model's weights in one of llama.cpp's formats, made at first use."""
    worker = library.worker()

    def quantise(source: Path, target: Path, kind: str) -> None:
        command = [str(worker), "quantise", str(source), str(target), kind]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"llama.cpp can't make {kind} of these weights: {_last(done.stderr)}")

    return files.kept(model, kind, quantise, worker.name.rpartition("-")[2])


class Llama:
    """`with Llama(file, threads) as it: it.decode(prompts, new)`.

    OSError where the process can't read the file, refuses a command or dies.
    """

    def __init__(self, file: Path, threads: int = 1, command: tuple[str, ...] | None = None):
        """command: what to run instead of our worker."""
        self.file = file
        self.room = None
        # what it says beside its answers
        self.words = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(
            [*(command or [str(library.worker())]), str(file), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            text=True,
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},  # where it aborts, its reason is enough
        )
        try:
            self.ready = self._answer(f"llama.cpp can't read {file}")["ready"]
        except OSError:
            self.close()
            raise

    def open(self, sequences: int, length: int, cache: str = "f16", shared: bool = False) -> None:
        """Make room for so many sequences of so many tokens, unless it is there.

        shared: one pool of cells for all, instead of a buffer for each.
        """
        room = f"open {sequences} {length} {cache} {int(shared)}"
        if room != self.room:
            self._ask([room])
            self.room = room

    def decode(self, prompts: list[list[int]], new: int) -> LoopTimes:
        """What `bench.time_decode` measures: greedy, in lockstep, a clock on every step."""
        said = self._ask([*(_request(prompt, new) for prompt in prompts), "decode"])
        return LoopTimes(said["first"], said["each"], said["tokens"])

    def serve(
        self, jobs: Iterable[tuple[list[int], int]], slots: int, prefix: int, budget: int
    ) -> tuple[float, list[list[int]]]:
        """Continuous batching of (prompt, new tokens): seconds, and the replies.

        slots: served at once. prefix: tokens that all prompts share, computed once. budget: of
        prompts' tokens in a step. Room is needed for one sequence more than slots.
        """
        lines = [_request(prompt, new) for prompt, new in jobs]
        said = self._ask([*lines, f"serve {slots} {prefix} {budget}"])
        return said["seconds"], said["tokens"]

    def close(self) -> None:
        with suppress(OSError):  # it may be gone
            self.process.stdin.close()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:  # an interrupt came in the middle of a run
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.words.close()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ask(self, lines: list[str]) -> dict:
        with suppress(BrokenPipeError):  # it is gone, and the answer says so
            self.process.stdin.write("\n".join(lines) + "\n")
            self.process.stdin.flush()
        return self._answer("llama.cpp stopped in the middle of a run")

    def _answer(self, otherwise: str) -> dict:
        """The next line. otherwise: what has happened where none comes."""
        line = self.process.stdout.readline()
        try:
            said = json.loads(line)
        except ValueError:
            code = self.process.wait() if not line else line.strip()
            self.words.seek(0)
            raise OSError(f"{otherwise} ({code}): {_last(self.words.read())}") from None
        if "error" in said:
            raise OSError(f"llama.cpp refused: {said['error']}")
        return said


def _request(prompt: list[int], new: int) -> str:
    return f"request {new} {' '.join(map(str, prompt))}"


def _last(words: str) -> str:
    """The last thing that a process said."""
    lines = words.strip().splitlines()
    return lines[-1].strip() if lines else "it says nothing"

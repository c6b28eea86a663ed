"""The parts of `make gpu`: what each runs, where its result lies, and whether it is there yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

from labkit import lab as house
from labkit import results, timed
from labkit.config import UnknownName
from labkit.environment import environment, file_name

# on sizes that a CPU takes in seconds: nothing worth quoting
QUICK = {
    "decode": {"preset": "tiny", "batches": (1, 2), "context": 24, "steps": 2},
    "launches": {"preset": "tiny", "context": 24, "steps": 2},
    "power": {"preset": "tiny", "batches": (1,), "context": 24, "seconds": 0.1},
    "prefill": {"presets": ("tiny",), "lengths": (16,), "repeats": 2},
    "rivals": {"preset": "tiny", "requests": 2, "context": 8, "new": 4},
    "checks": {"select": ("tests/labkit/test_tables.py",)},
}


@dataclass(frozen=True)
class Part:
    """One part: a measurement of `labkit.gpu`, or a command of labkit that stores its own.

    result: the name it is stored under. minutes: after which it is stopped.
    """

    name: str
    says: str
    result: str
    module: str = ""
    sizes: dict = field(default_factory=dict)
    command: tuple[str, ...] = ()
    minutes: float = 4

    @property
    def group(self) -> str:
        """What it is asked for together with: `decode` of `decode-llama3-8b`."""
        return self.name.partition("-")[0] if self.result.startswith("bench/") else "labs"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of `python -m labkit.cli`."""
        return self.command or ("gpu", self.name, "--device", "cuda", "--store")

    @property
    def measure(self) -> Callable:
        return import_module(f"labkit.gpu.{self.module}").measure

    def stored(self) -> bool:
        """This GPU has run it, with the code as it is."""
        machine = file_name(environment("cuda"))
        path = results.folder() / f"{self.result}.{machine}.json"
        if not path.exists():
            return False
        return json.loads(path.read_text()).get("code") == timed.code_of(self.result)


def measured(name: str, says: str, module: str = "", **sizes) -> Part:
    return Part(name, says, f"bench/{name}", module or name, sizes)


def decode(preset: str, bits: int = 16, **sizes) -> Part:
    name = f"decode-{preset}" + (f"-int{bits}" if bits < 16 else "")
    says = f"a decode step of {preset}'s shape, {bits} bits"
    return measured(name, says, "decode", preset=preset, bits=bits, **sizes)


def parts() -> list[Part]:
    """Every part, in the order in which they are run: what may be wrong first, what takes long
    last.
    """
    bench = ("bench", "--device", "cuda", "--against", "transformers", "--store")
    made = [
        measured("checks-kernels", "every kernel in Triton", "checks", kernels=True),
        measured("checks", "the other CUDA tests"),
        decode("smollm2-135m"),
        decode("qwen3-0.6b"),
        decode("llama3-8b"),
        decode("llama3-8b", 8, batches=(1, 8)),
        decode("llama3-8b", 4, batches=(1, 8)),
        measured("launches", "kernels of a step, and what each costs the host"),
        measured("power", "GPU-Util and joules beside the bandwidth achieved"),
        measured("prefill", "prompts against the fastest product of matrices"),
        measured("rivals", "transformers: static cache, compiled, continuous batching"),
        Part("bench", "labkit bench", "bench/transformers", command=bench),
    ]
    return [*made, *(a_lab(lab) for lab in house.in_order() if not lab.cpu_only)]


def a_lab(lab: house.Lab) -> Part:
    """A lab as a part: CH05-RING is `ch05-ring`."""
    command = ("lab", lab.id, "--device", "cuda", "--store")
    # the ladders serve 48 requests by the naive loop, among others
    minutes = 10 if lab.chapter == "14" else 4
    return Part(lab.id.lower(), lab.title, lab.result, command=command, minutes=minutes)


def find(name: str) -> list[Part]:
    """The parts of this name, or of this group; "" = all. UnknownName for any other."""
    found = [part for part in parts() if name.lower() in ("", part.name, part.group)]
    if not found:
        groups = dict.fromkeys(part.group for part in parts())
        decodes = [part.name for part in parts() if part.group == "decode"]
        raise UnknownName("part of make gpu", name, [*groups, *decodes])
    return found

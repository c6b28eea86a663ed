"""`labs/results/machines.json`: how each machine is called in prose, and whose numbers each chapter
quotes.

    {"machines": {"amd-epyc-2core": {"name": "AMD EPYC, 2 cores, AVX2", "device": "cpu",
                                     "cores": 2, "capability": "AVX2"}, …},
     "quotes": {"02": {"cpu": "amd-epyc-4core", "gpu": "nvidia-h200"}, …},
     "exceptions": {"ch02/baseline": {"cpu": "amd-epyc-2core"}, …}}

A machine goes by its part of a file's name. `quotes` names, per chapter (or "bench") and device,
the machine whose numbers are "ours"; an exception says it for one result, whose chapter's line then
doesn't count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FILE = "machines.json"
DEVICES = ("cpu", "gpu")


@dataclass(frozen=True)
class Machine:
    """One machine: its name in prose, what computes on it, and what decides about numbers."""

    name: str
    device: str  # "cpu" | "gpu"
    cores: int
    capability: str | None = None  # the vectors of its processor; None = nobody noted them


@dataclass(frozen=True)
class Machines:
    """What machines.json says."""

    known: dict[str, Machine]
    quotes: dict[str, dict[str, str]]
    exceptions: dict[str, dict[str, str]]

    def called(self, machine: str) -> str:
        """Its name in prose. ValueError for one that isn't listed."""
        if machine not in self.known:
            raise ValueError(
                f"labs/results/{FILE} doesn't say how the machine {machine!r} is called: add it"
                " under machines"
            )
        return self.known[machine].name

    def ours(self, name: str, device: str | None = None) -> str:
        """The machine whose numbers are quoted of a result such as `ch05/ring`: a processor's if
        there is one, or that of a `device`. ValueError where the file names none.
        """
        chapter = name.split("/")[0].removeprefix("ch")
        quoted = self.exceptions.get(name, self.quotes.get(chapter, {}))
        wanted = [device] if device else DEVICES
        machine = next((quoted[d] for d in wanted if d in quoted), None)
        if machine is None:
            raise ValueError(
                f"labs/results/{FILE} doesn't say whose numbers of {name!r} are quoted"
                f"{f' for a {device}' if device else ''}: name a machine under quotes, for"
                f" {chapter!r}, or under exceptions"
            )
        return machine


def read(folder: Path) -> Machines | None:
    """machines.json of a folder of results; None if it has none.

    ValueError, one sentence, for a file that can't be read or that contradicts itself.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError as e:
        raise _malformed(f"is no JSON: {e}") from None
    parts = ("machines", "quotes", "exceptions")
    if not isinstance(found, dict) or set(found) != set(parts):
        raise _malformed(f"must hold {', '.join(parts)} and nothing else")
    for part in parts:
        if not isinstance(found[part], dict) or not all(
            isinstance(entry, dict) for entry in found[part].values()
        ):
            raise _malformed(f"must give an object for each name under {part}")
    known = {name: _machine(name, facts) for name, facts in found["machines"].items()}
    for part in ("quotes", "exceptions"):
        for name, quoted in found[part].items():
            _check(part, name, quoted, known)
    return Machines(known, found["quotes"], found["exceptions"])


def _machine(name: str, facts: dict) -> Machine:
    wanted = {"name": str, "device": str, "cores": int}
    allowed = wanted | {"capability": str}
    typed = all(isinstance(v, allowed.get(k, ())) for k, v in facts.items())
    if not typed or not set(wanted) <= set(facts) or facts["device"] not in DEVICES:
        raise _malformed(
            f"must give {name!r} a name, a device (cpu or gpu), cores (a whole number) and, if"
            f" known, a capability, not {json.dumps(facts)}"
        )
    return Machine(**facts)


def _check(part: str, name: str, quoted: dict, known: dict[str, Machine]) -> None:
    """Does each device of a line quote a known machine of that kind?"""
    for device, machine in quoted.items():
        if device not in DEVICES:
            raise _malformed(f"quotes a {device!r} for {name!r} under {part}: use cpu or gpu")
        if machine not in known:
            raise _malformed(f"quotes {machine!r} for {name!r} and doesn't list it under machines")
        if known[machine].device != device:
            raise _malformed(
                f"quotes {machine!r} as the {device} of {name!r}, and lists it as a"
                f" {known[machine].device}"
            )


def _malformed(problem: str) -> ValueError:
    return ValueError(f"labs/results/{FILE} {problem}")

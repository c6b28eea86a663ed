"""A lab: a file that describes itself in a `LAB` and measures in `run`.

Its folder and its file name it: `labs/ch05_swa/ring.py` is `CH05-RING`, and what it measured lies
in `labs/results/ch05/ring.<machine>.json`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module

from labkit import chapters
from labkit.config import UnknownName
from labkit.traces import Trace


class Recorded(list):
    """A lab's rows, and the traces of the same run by name: `Recorded(rows, decode_cached=trace)`
    of chapter 02 is kept as `ch02/decode_cached` (see `traces.stored`).
    """

    def __init__(self, rows: list[dict], **traces: Trace):
        super().__init__(rows)
        self.traces = traces


@dataclass(frozen=True)
class Lab:
    """What a learner should know before and after running it."""

    title: str
    objective: str
    asks: str  # the question that its checkpoint answers
    # what to look for in the table; what is said about numbers is made from the rows
    notice: str | Callable[[list[dict]], str]
    columns: dict[str, str]  # key of a row -> heading, or "heading|format"
    # (device, **sizes, **settings) -> rows, `Recorded` if it keeps traces as well; settings can be
    # --set, their defaults say of which kind
    run: Callable
    minutes: float = 1.0
    # (rows) -> None to go on, or one sentence: why to stop, and what to look at
    go: Callable | None = None
    # the same for what should be faster, on a CPU: on a GPU a model this small waits for launches
    pays: Callable | None = None
    plot: Callable | None = None  # (rows) -> plotting.Chart
    needs: tuple[str, ...] = ()  # ids of the labs whose stored results it reads
    sizes: dict[str, dict] = field(default_factory=lambda: {"full": {}, "quick": {}})
    threads: int | None = None  # torch's threads while it runs; None = as they are
    cpu_only: bool = False  # whatever the device
    id: str = ""  # of its file, as is the next: `labs()` fills them in
    chapter: str = ""

    @property
    def result(self) -> str:
        """The name its rows are stored under: `ch05/ring`."""
        return chapters.result_name(self.id)

    def on(self, device: str) -> str:
        """The device that it runs on when it is asked for this one."""
        return "cpu" if self.cpu_only else device

    def measure(self, device: str = "cpu", quick: bool = False, **changed) -> Recorded:
        """Run it. Its full sizes or its quick ones, and on top of them what was changed."""
        import torch

        sizes = self.sizes["quick" if quick else "full"]
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            rows = self.run(device=self.on(device), **{**sizes, **changed})
        finally:
            torch.set_num_threads(before)
        return rows if isinstance(rows, Recorded) else Recorded(rows)

    def settings(self, pairs: list[str]) -> dict:
        """`name=value` pairs as `run` takes them. ValueError for one that it does not take."""
        parameters = inspect.signature(self.run).parameters
        known = {
            name: p.default
            for name, p in parameters.items()
            if name != "device" and p.default is not p.empty
        }
        found = {}
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name not in known:
                choose = f"choose from {', '.join(known)}" if known else "it takes none"
                raise ValueError(f"{self.id} has no setting {name!r}: {choose}")
            try:
                found[name] = type(known[name])(value)
            except ValueError:
                raise ValueError(
                    f"{name} is a number such as {known[name]}, not {value!r}"
                ) from None
        return found

    def stops(self, rows: list[dict], device: str = "cpu") -> str | None:
        """Why not to go on, if there is a reason."""
        checks = [self.go, self.pays if device == "cpu" else None]
        return next((reason for check in checks if check and (reason := check(rows))), None)

    def verdict(self, rows: list[dict], device: str = "cpu") -> str:
        """ "go", or "stop: " and the reason."""
        reason = self.stops(rows, device)
        return "go" if reason is None else f"stop: {reason}"

    def noticed(self, rows: list[dict]) -> str:
        """What to notice in these rows."""
        return self.notice if isinstance(self.notice, str) else self.notice(rows)


def labs() -> dict[str, Lab]:
    """Every lab by id, chapter by chapter, in the order that each folder states."""
    found = {}
    for chapter in chapters.every():
        for name in chapter.lab_names:
            path = f"labs/{chapter.folder}/{name}.py"
            try:
                module = import_module(f"{chapter.package}.{name}")
            except Exception as e:
                raise ValueError(
                    f"{path} can't be loaded as a lab, so mend it or move it away:"
                    f" {type(e).__name__}: {e}"
                ) from e
            if not isinstance(getattr(module, "LAB", None), Lab):
                raise ValueError(f"{path} is named in its folder's LABS and has no LAB")
            id = f"CH{chapter.number}-{name.upper()}"
            found[id] = replace(module.LAB, id=id, chapter=chapter.number)
    return found


def find(name: str) -> Lab:
    """A lab by its id, or by the deck's. UnknownName for any other."""
    known = labs()
    id = chapters.lab_id(name)
    if id not in known:
        raise UnknownName("lab", name, known)
    return known[id]


def in_order() -> list[Lab]:
    """Every lab by chapter and by its folder's order, but after those whose results it reads.

    ValueError for a need that no lab meets.
    """
    left = labs()
    done: dict[str, Lab] = {}
    while left:
        lab = next((lab for lab in left.values() if set(lab.needs) <= set(done)), None)
        if lab is None:
            wants = "; ".join(f"{lab.id} needs {', '.join(lab.needs)}" for lab in left.values())
            raise ValueError(f"{wants}: that can't be put in order")
        done[lab.id] = left.pop(lab.id)
    return list(done.values())

"""`labkit lab ID`: run a lab, print its table, draw its plot, store its rows.

A lab is a thin script `labs/lab_*.py` that describes itself in a `LAB` and measures in `run`. It
runs by id or by itself.
"""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path


@dataclass(frozen=True)
class Lab:
    """What a learner should know before and after running it."""

    id: str
    title: str
    chapter: str
    objective: str
    needs: str  # the lab to run before this one, or "nothing"
    notice: str  # what to look for in the table
    columns: dict[str, str]  # key of a row -> heading, or "heading|format"
    # (device, quick) -> rows; what else it takes can be --set, and its defaults say of which kind
    run: Callable
    plot: Callable | None = None  # (rows) -> plotting.Chart
    minutes: float = 1.0
    # (folder) -> paths of what it keeps beside its rows, such as traces
    store: Callable | None = None
    # (rows) -> None to go on, or one sentence: why to stop, and what to look at
    go: Callable | None = None
    # the same for what should be faster, on a CPU: on a GPU a model this small waits for its
    # launches
    pays: Callable | None = None

    @property
    def result(self) -> str:
        """The name its rows are stored under."""
        return self.id.lower()

    def stops(self, rows: list[dict], device: str = "cpu") -> str | None:
        """Why not to go on, if there is a reason."""
        checks = [self.go, self.pays if device == "cpu" else None]
        return next((reason for check in checks if check and (reason := check(rows))), None)


def labs() -> dict[str, Lab]:
    """Every lab by id, in the order of chapters."""
    import labkit_labs

    found = []
    for name in (
        m.name for m in pkgutil.iter_modules(labkit_labs.__path__) if m.name.startswith("lab_")
    ):
        try:
            found.append(import_module(f"labkit_labs.{name}").LAB)
        except Exception as e:
            raise ValueError(
                f"labs/{name}.py can't be loaded as a lab, so mend it or move it away:"
                f" {type(e).__name__}: {e}"
            ) from e
    return {lab.id: lab for lab in sorted(found, key=lambda lab: (lab.chapter, lab.id))}


def in_order() -> list[Lab]:
    """Every lab after the one it needs, otherwise by chapter.

    ValueError for a need that no lab meets.
    """
    left, done = labs(), []
    while left:
        lab = next(
            (
                lab
                for lab in left.values()
                if lab.needs == "nothing" or lab.needs in {d.id for d in done}
            ),
            None,
        )
        if lab is None:
            raise ValueError(
                "; ".join(f"{lab.id} needs {lab.needs}" for lab in left.values())
                + ": that can't be put in order"
            )
        done.append(left.pop(lab.id))
    return done


def settings(lab: Lab, pairs: list[str]) -> dict:
    """`--set name=value`, as the lab's `run` takes them. ValueError for one it does not take."""
    known = {
        name: p.default
        for name, p in inspect.signature(lab.run).parameters.items()
        if name not in ("device", "quick")
    }
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known:
            raise ValueError(
                f"{lab.id} has no setting {name!r}: "
                + (f"choose from {', '.join(known)}" if known else "it takes none")
            )
        try:
            found[name] = type(known[name])(value)
        except ValueError:
            raise ValueError(f"{name} is a number such as {known[name]}, not {value!r}") from None
    return found


def arguments(parser) -> None:
    parser.add_argument(
        "id", nargs="?", help="such as CH02-BASELINE; without one, all labs are listed"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run: few repeats, small sizes; never stored"
    )
    parser.add_argument(
        "--store", action="store_true", help="keep the result in labs/results, with its provenance"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting of the lab; never stored",
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the result into an svg, png or pdf file"
    )


def run(args) -> None:
    from labkit import results
    from labkit.tables import table
    from labkit.config import UnknownName

    known = labs()
    if args.id is None:
        print(
            table(
                [
                    {
                        "id": lab.id,
                        "chapter": lab.chapter,
                        "title": lab.title,
                        "minutes": lab.minutes,
                    }
                    for lab in known.values()
                ]
            )
        )
        return
    if args.id.upper() not in known:
        raise UnknownName("lab", args.id, known)
    if args.quick and args.store:
        raise ValueError("a quick run is too small to be stored: leave out --quick or --store")
    if args.set and args.store:
        raise ValueError(
            "a stored result is that of the lab's own settings: leave out --set or --store"
        )
    if args.plot and (plot := Path(args.plot).absolute()).suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"--plot draws svg, png or pdf files, not {args.plot!r}")
    if args.plot and not os.access(plot.parent, os.W_OK):
        raise ValueError(
            f"--plot can't write into {plot.parent}: give a folder that is there and yours"
        )
    lab = known[args.id.upper()]
    changed = settings(lab, args.set)
    if not args.json:
        print(f"{lab.id}  {lab.title}\n\nObjective: {lab.objective}\nNeeds: {lab.needs}\n")
    rows = lab.run(device=args.device, quick=args.quick, **changed)
    stored = [results.save(lab.result, rows, device=args.device)] if args.store else []
    # recordings show what happens, and need one machine, not each
    if args.store and lab.store and args.device == "cpu":
        stored += lab.store(results.folder())
    if args.json:
        print(json.dumps(results.document(lab.result, rows, device=args.device)))
        return
    print(table(rows, lab.columns))
    print(f"\nWhat to notice: {lab.notice}")
    if lab.go or lab.pays:
        print(f"Checkpoint: {verdict(lab, rows, args.device)}")
    if lab.plot and args.plot:
        lab.plot(rows).save(args.plot)
        print(f"Plot: {args.plot}")
    for path in stored:
        print(f"Stored: {path.parent.name}/{path.name}")


def verdict(lab: Lab, rows: list[dict], device: str) -> str:
    """ "go", or "stop: " and the reason."""
    reason = lab.stops(rows, device)
    return "go" if reason is None else f"stop: {reason}"


def main(lab: Lab) -> None:
    """Run one lab as a script: `python labs/lab_….py` takes the same options as `labkit lab ID`."""
    import sys

    from labkit.cli import main as command

    command(["lab", lab.id, *sys.argv[1:]])

"""`labkit lab ID`: run a lab, print its table, draw its plot, store its rows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from labkit import lab as house
from labkit import results, traces
from labkit.environment import load_average
from labkit.tables import table


def arguments(parser) -> None:
    parser.add_argument("id", nargs="?", help="such as CH02-LOOPS; without one, all are listed")
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
    if args.id is None:
        print(table([listed(lab) for lab in house.labs().values()]))
        return
    lab = house.find(args.id)
    if args.quick and args.store:
        raise ValueError("a quick run is too small to be stored: leave out --quick or --store")
    if args.set and args.store:
        raise ValueError(
            "a stored result is that of the lab's own settings: leave out --set or --store"
        )
    if args.plot:
        check_plot(args.plot)
    changed = lab.settings(args.set)
    if not args.json:
        needs = ", ".join(lab.needs) or "nothing"
        print(f"{lab.id}  {lab.title}\n\nObjective: {lab.objective}\nNeeds: {needs}\n")
    if lab.on(args.device) != args.device:
        print(f"{lab.id} runs on the CPU alone, and so it does now", file=sys.stderr)
    given = provenance(lab, args.device)
    rows = lab.measure(args.device, args.quick, **changed)
    stored = store(lab, rows, given) if args.store else []
    if args.json:
        print(json.dumps(results.document(lab.result, rows, **given)))
        return
    print(table(rows, lab.columns))
    print(f"\nWhat to notice: {lab.noticed(rows)}")
    if lab.go or lab.pays:
        print(f"Checkpoint: {lab.verdict(rows, given['device'])}")
    if lab.plot and args.plot:
        lab.plot(rows).save(args.plot)
        print(f"Plot: {args.plot}")
    for path in stored:
        print(f"Stored: {path.relative_to(results.folder().parent)}")


def listed(lab: house.Lab) -> dict:
    return {"id": lab.id, "chapter": lab.chapter, "title": lab.title, "minutes": lab.minutes}


def check_plot(file: str) -> None:
    """ValueError, before anything runs, for a plot that could not be written after it."""
    plot = Path(file).absolute()
    if plot.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"--plot draws svg, png or pdf files, not {file!r}")
    if not os.access(plot.parent, os.W_OK):
        raise ValueError(
            f"--plot can't write into {plot.parent}: give a folder that is there and yours"
        )


def provenance(lab: house.Lab, device: str) -> dict:
    """What a document can't find out once the lab has run; to be taken before it runs."""
    return {"device": lab.on(device), "load": load_average(), "threads": lab.threads}


def store(lab: house.Lab, rows: house.Recorded, given: dict) -> list[Path]:
    """Keep a lab's rows and the traces of the same run."""
    stored = [results.save(lab.result, rows, **given)]
    if given["device"] == "cpu":  # traces show what happens: one machine's are enough
        for name, trace in rows.traces.items():
            stored.append(trace.save(traces.path_of(f"ch{lab.chapter}/{name}")))
    return stored

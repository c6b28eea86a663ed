"""`labkit runbook`: every lab in order.

After each a checkpoint says go, or stop: what to look at before you believe the next.
"""

from __future__ import annotations

import gc
import json
import time

from labkit import chapters
from labkit import lab as house
from labkit.cli.lab import provenance, store
from labkit.config import UnknownName
from labkit.tables import table

COLUMNS = {
    "id": "lab",
    "title": "",
    "seconds": "seconds|.1f",
    "rows": "rows",
    "checkpoint": "checkpoint",
}


def arguments(parser) -> None:
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, few repeats: minutes, and nothing worth quoting",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="ID",
        help="begin at this lab: after a stop, the one that stopped",
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="don't stop at a lab that says stop, or fails"
    )
    parser.add_argument("--store", action="store_true", help="keep every result in labs/results")


def run(args) -> None:
    order = house.in_order()
    if args.start is not None:
        ids = [lab.id for lab in order]
        start = chapters.lab_id(args.start)
        if start not in ids:
            raise UnknownName("lab", args.start, ids)
        order = order[ids.index(start) :]
    # a machine is lent for its GPU
    order = [lab for lab in order if lab.on(args.device) == args.device]
    if args.quick and args.store:
        raise ValueError("a quick run is too small to be stored: leave out --quick or --store")
    done = []
    for lab in order:
        row = one(lab, args)
        done.append(row)
        if not args.json:
            print(
                f"{row['seconds']:7.1f} s  {lab.id}  {lab.title}: {row['checkpoint']}", flush=True
            )
        if row["checkpoint"] != "go" and not args.keep_going:
            break
    stopped = [row["id"] for row in done if row["checkpoint"] != "go"]
    if args.json:
        print(json.dumps({"rows": done, "stopped": stopped[0] if stopped else None}))
    else:
        print(f"\n{table(done, COLUMNS)}")
        minutes = sum(row["seconds"] for row in done) / 60
        says = (
            f"Look at what {', '.join(stopped)} says, then go on with: labkit runbook --from"
            f" {stopped[0]}"
            if stopped
            else "All say go."
        )
        print(f"\n{len(done)} of {len(order)} labs in {minutes:.1f} minutes. {says}")
    if stopped:
        raise SystemExit(1)


def one(lab: house.Lab, args) -> dict:
    """Run one lab: how long it took, and its checkpoint's verdict.

    A lab that raises an error of its own stops the run like one that says stop.
    """
    start, rows = time.perf_counter(), []
    try:
        given = provenance(lab, args.device)
        rows = lab.measure(args.device, args.quick)
        says = lab.verdict(rows, args.device)
        if args.store and says == "go":
            store(lab, rows, given)
    except Exception as e:
        if not args.keep_going and not isinstance(e, ValueError | OSError):
            raise
        says = f"stop: {' '.join(str(e).split()) or type(e).__name__}"
    gc.collect()  # a lab's model goes before the next one's comes
    return {
        "id": lab.id,
        "title": lab.title,
        "seconds": time.perf_counter() - start,
        "rows": len(rows),
        "checkpoint": says,
    }

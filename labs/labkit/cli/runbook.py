"""`labkit runbook`: every lab in order.

After each a checkpoint says go, or stop: what to look at before you believe the next.
"""

from __future__ import annotations

import gc
import json
import time


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
    from labkit.tables import table
    from labkit.cli.lab import in_order
    from labkit.config import UnknownName

    order = in_order()
    if args.start is not None:
        ids = [lab.id for lab in order]
        if args.start.upper() not in ids:
            raise UnknownName("lab", args.start, ids)
        order = order[ids.index(args.start.upper()) :]
    if args.quick and args.store:
        raise ValueError("a quick run is too small to be stored: leave out --quick or --store")
    done = []
    for lab in order:
        done.append(one(lab, args))
        if not args.json:
            print(
                f"{done[-1]['seconds']:7.1f} s  {lab.id}  {lab.title}: {done[-1]['checkpoint']}",
                flush=True,
            )
        if done[-1]["checkpoint"] != "go" and not args.keep_going:
            break
    stopped = [row["id"] for row in done if row["checkpoint"] != "go"]
    if args.json:
        print(json.dumps({"rows": done, "stopped": stopped[0] if stopped else None}))
    else:
        print(
            "\n"
            + table(
                done,
                {
                    "id": "lab",
                    "title": "",
                    "seconds": "seconds|.1f",
                    "rows": "rows",
                    "checkpoint": "checkpoint",
                },
            )
        )
        total = sum(row["seconds"] for row in done)
        print(
            f"\n{len(done)} of {len(order)} labs in {total / 60:.1f} minutes. "
            + (
                f"Look at what {', '.join(stopped)} says, then go on with: labkit runbook --from"
                f" {stopped[0]}"
                if stopped
                else "All say go."
            )
        )
    if stopped:
        raise SystemExit(1)


def one(lab, args) -> dict:
    """Run one lab: how long it took, and its checkpoint's verdict.

    A lab that raises an error of its own stops the run like one that says stop.
    """
    from labkit import results
    from labkit.cli.lab import verdict

    start, rows = time.perf_counter(), []
    try:
        rows = lab.run(device=args.device, quick=args.quick)
        says = verdict(lab, rows, args.device)
        if args.store and says == "go":
            results.save(lab.result, rows, device=args.device)
            if lab.store and args.device == "cpu":
                lab.store(results.folder())
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

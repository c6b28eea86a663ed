"""`labkit gpu PART`: one of the measurements that `make gpu` runs."""

from __future__ import annotations

import json


def arguments(parser) -> None:
    parser.add_argument("part", metavar="PART", help="its name, such as decode-llama3-8b")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: seconds, and nothing worth quoting"
    )
    parser.add_argument("--store", action="store_true", help="keep the result in labs/results")


def run(args) -> None:
    from importlib import import_module

    from labkit import results
    from labkit.config import UnknownName
    from labkit.environment import load_average
    from labkit.gpu import parts
    from labkit.tables import table

    known = {part.name: part for part in parts.parts() if part.module}
    if args.part not in known:
        raise UnknownName("measurement", args.part, known)
    if args.quick and args.store:
        raise ValueError("a quick run is too small to be stored: leave out --quick or --store")
    part = known[args.part]
    given = {"device": args.device, "load": load_average()}
    sizes = parts.QUICK[part.module] if args.quick else part.sizes
    rows = part.measure(args.device, **sizes)
    stored = results.save(part.result, rows, **given) if args.store else None
    if args.json:
        print(json.dumps(results.document(part.result, rows, **given)))
        return
    columns = import_module(f"labkit.gpu.{part.module}").COLUMNS
    print(table(rows, {k: v for k, v in columns.items() if any(k in row for row in rows)}))
    if stored:
        print(f"\nStored: {stored.parent.name}/{stored.name}")

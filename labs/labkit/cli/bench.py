"""`labkit bench [--against transformers]`: prefill and decode of SmolLM2 on this machine, with what
the machine could do.
"""

from __future__ import annotations

import json
from functools import partial

COLUMNS = {
    "dtype": "dtype",
    "batch": "batch",
    "phase": "phase",
    "engine": "engine",
    "median": "ms|.4g",
    "tokens_per_second": "tokens/s|,.1f",
    "gflops": "GFLOP|,.2f",
    "megabytes": "MB read|,.0f",
    "mfu": "MFU|.0%",
    "mbu": "MBU|.0%",
    "multiple": "times|.2f",
}


def arguments(parser) -> None:
    parser.add_argument(
        "--against",
        choices=["transformers"],
        help="run transformers' static-cache generate on the same weights, in turn",
    )
    parser.add_argument(
        "--context", type=int, default=300, metavar="T", help="prompt tokens (default 300)"
    )
    parser.add_argument("--new", type=int, default=24, metavar="N", help="new tokens (default 24)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--dtype", nargs="+", choices=["fp32", "bf16", "fp16"], default=["fp32", "bf16"]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--store", action="store_true", help="keep the result in labs/results")


def run(args) -> None:
    import torch

    from labkit import results
    from labkit.environment import load_average
    from labkit.tables import progress, table

    if min(args.context, *args.batch, args.repeats, args.threads) < 1 or args.new < 2:
        raise ValueError(
            "context, batch, repeats and threads must be at least 1, and new at least 2: one token"
            " is all prefill"
        )
    torch.set_num_threads(args.threads)
    name = f"bench/{args.against or 'labkit'}"
    given = {"device": args.device, "load": load_average()}
    rows = [row for dtype in progress(args.dtype, "dtypes") for row in measure(dtype, args)]
    stored = results.save(name, rows, **given) if args.store else None
    if args.json:
        print(json.dumps(results.document(name, rows, **given)))
        return
    columns = COLUMNS
    if not args.against:
        columns = {k: v for k, v in COLUMNS.items() if k not in ("engine", "multiple")}
    print(table([row | in_reading_units(row) for row in rows], columns))
    print(
        f"\nSmolLM2-135M, prompts of {args.context} tokens, {args.new} new, {args.threads}"
        f" thread(s), {args.repeats} rounds in turn; times are medians. A phase is one whole"
        " prefill, or one decode step of the batch."
    )
    if stored:
        print(f"Stored: {stored.parent.name}/{stored.name}")


def in_reading_units(row: dict) -> dict:
    return {
        "median": row["median"] * 1e3,
        "gflops": row["flops"] / 1e9,
        "megabytes": row["bytes"] / 1e6,
    }


def measure(dtype: str, args) -> list[dict]:
    """Rows for one dtype: batch x phase x engine."""
    from labkit import bench, rivals
    from labkit.tables import progress
    from labkit.weights import smollm2

    model, tokenizer = smollm2(dtype, args.device)
    engines = {"labkit": partial(bench.time_decode, model)}
    if args.against:
        twin = rivals.transformers_twin(model)
        engines["transformers"] = partial(rivals.time_transformers, twin)
    prompt = bench.prompt(tokenizer, args.context)
    ceilings = bench.hardware(dtype, args.device)
    rows = []
    for batch in progress(args.batch, f"{dtype} batches"):
        prompts = [prompt] * batch
        runs = bench.rounds(
            {name: partial(engine, prompts, args.new) for name, engine in engines.items()},
            repeats=args.repeats,
            device=args.device,
        )
        seconds = {
            "prefill": {name: [t.first for t in times] for name, times in runs.items()},
            "decode": {name: [s for t in times for s in t.each] for name, times in runs.items()},
        }
        for phase, taken in seconds.items():
            cost = work(model.config, dtype, phase, batch, args)
            tokens = batch * (args.context if phase == "prefill" else 1)
            made = {
                name: bench.summarise(s, hardware=ceilings, **cost) for name, s in taken.items()
            }
            for name, m in made.items():
                row = m.to_row(
                    engine=name,
                    dtype=dtype,
                    batch=batch,
                    phase=phase,
                    tokens_per_second=tokens / m.median,
                )
                if args.against:
                    row["multiple"] = bench.multiple(made["transformers"], m)
                rows.append(row)
    return rows


def work(config, dtype: str, phase: str, batch: int, args) -> dict:
    """FLOPs and bytes of a batch's prefill, or of one decode step half-way through the reply."""
    from labkit import formulas

    if phase == "prefill":
        return {
            "flops": batch * formulas.prefill_flops(config, args.context),
            "bytes": formulas.weight_bytes(config, dtype),
        }
    middle = args.context + args.new // 2
    return {
        "flops": batch * formulas.decode_flops(config, middle),
        "bytes": formulas.decode_bytes(config, middle, batch, dtype),
    }

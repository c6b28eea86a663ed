"""`labkit bench [--against transformers]`: prefill and decode of SmolLM2 on this machine, with what
the machine could do. Against llama.cpp `bench_llama_cpp` measures.
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
        choices=["transformers", "llama.cpp"],
        help="run transformers' static-cache generate, or llama.cpp, on the same weights, in turn",
    )
    parser.add_argument(
        "--build", action="store_true", help="build llama.cpp first, from its source, if need be"
    )
    parser.add_argument(
        "--workload", action="store_true", help="with llama.cpp: serve the ladder's requests too"
    )
    parser.add_argument(
        "--requests", type=int, default=48, metavar="N", help="of the workload (default: all 48)"
    )
    parser.add_argument(
        "--context", type=int, default=300, metavar="T", help="prompt tokens (default 300)"
    )
    parser.add_argument("--new", type=int, default=24, metavar="N", help="new tokens (default 24)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--dtype",
        nargs="+",
        default=["fp32", "bf16"],
        metavar="D",
        help="fp32, bf16, fp16 (default fp32 bf16); against llama.cpp also int8, w8a8, int4, …",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="CPU threads (default 1)"
    )
    parser.add_argument("--store", action="store_true", help="keep the result in labs/results")


def run(args) -> None:
    import torch

    from labkit import results
    from labkit.cli import bench_llama_cpp
    from labkit.environment import load_average
    from labkit.tables import progress, table

    check(args)
    llama = args.against == "llama.cpp"
    name = f"bench/{(args.against or 'labkit').replace('.', '_')}"
    given = {"device": args.device, "load": load_average(), "threads": max(args.threads)}
    rows = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        for dtype in progress(args.dtype, "dtypes"):
            if llama:
                rows += bench_llama_cpp.measure(dtype, threads, args)
            else:
                rows += [{"threads": threads} | row for row in measure(dtype, args)]
    stored = results.save(name, rows, **given) if args.store else None
    if args.json:
        print(json.dumps(results.document(name, rows, **given)))
        return
    columns = bench_llama_cpp.COLUMNS if llama else COLUMNS
    if not args.against:
        columns = {k: v for k, v in COLUMNS.items() if k not in ("engine", "multiple")}
    print(table([row | in_reading_units(row) for row in rows], columns))
    print(
        f"\nSmolLM2-135M, prompts of {args.context} tokens, {args.new} new,"
        f" {' and '.join(map(str, args.threads))} thread(s), {args.repeats} rounds in turn; times"
        " are medians. A phase is one whole prefill, or one decode step of the batch"
        f"{', or all of the workload' * args.workload}."
    )
    if llama:
        print(bench_llama_cpp.note())
    if stored:
        print(f"Stored: {stored.parent.name}/{stored.name}")


def check(args) -> None:
    """ValueError for what can't be measured, before anything is."""
    from labkit.cli import bench_llama_cpp
    from labkit.dtypes import DTYPES

    if min(args.context, *args.batch, args.repeats, *args.threads, args.requests) < 1:
        raise ValueError("context, batch, repeats, threads and requests must be at least 1")
    if args.new < 2:
        raise ValueError("--new must be at least 2: one token is all prefill")
    if args.against == "llama.cpp":
        bench_llama_cpp.check(args)
        return
    if strange := [dtype for dtype in args.dtype if dtype not in DTYPES]:
        raise ValueError(
            f"--dtype is one of {', '.join(DTYPES)}, not {strange[0]!r}: quantised weights are"
            " measured --against llama.cpp"
        )
    if args.build or args.workload:
        raise ValueError("--build and --workload go with --against llama.cpp")


def in_reading_units(row: dict) -> dict:
    units = {"median": ("median", 1e3), "iqr": ("iqr", 1e3)}
    units |= {"gflops": ("flops", 1e-9), "megabytes": ("bytes", 1e-6)}
    return {name: row[key] * factor for name, (key, factor) in units.items() if key in row}


def measure(dtype: str, args) -> list[dict]:
    """Rows for one dtype: batch x phase x engine."""
    from labkit import bench
    from labkit.rivals.transformers import time_transformers, transformers_twin
    from labkit.tables import progress
    from labkit.weights import smollm2

    model, tokenizer = smollm2(dtype, args.device)
    engines = {"labkit": partial(bench.time_decode, model)}
    if args.against:
        twin = transformers_twin(model)
        engines["transformers"] = partial(time_transformers, twin)
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

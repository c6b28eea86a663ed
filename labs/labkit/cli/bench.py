"""`labkit bench [--against transformers]`: prefill and decode of SmolLM2 on this machine, with what
the machine could do.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise

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

    if (
        args.context < 1
        or args.new < 2
        or min(args.batch) < 1
        or args.repeats < 1
        or args.threads < 1
    ):
        raise ValueError(
            "context, batch, repeats and threads must be at least 1, and new at least 2: one token"
            " is all prefill"
        )
    torch.set_num_threads(args.threads)
    name = f"bench/{args.against or 'labkit'}"
    given = {"device": args.device, "load": load_average()}
    rows = []
    for dtype in progress(args.dtype, "dtypes"):
        rows += measure(
            dtype, args.batch, args.context, args.new, args.repeats, args.device, bool(args.against)
        )
    stored = results.save(name, rows, **given) if args.store else None
    if args.json:
        print(json.dumps(results.document(name, rows, **given)))
        return
    shown = [
        row
        | {
            "median": row["median"] * 1e3,
            "gflops": row["flops"] / 1e9,
            "megabytes": row["bytes"] / 1e6,
        }
        for row in rows
    ]
    print(
        table(
            shown,
            (
                COLUMNS
                if args.against
                else {k: v for k, v in COLUMNS.items() if k not in ("engine", "multiple")}
            ),
        )
    )
    print(
        f"\nSmolLM2-135M, prompts of {args.context} tokens, {args.new} new, {args.threads}"
        f" thread(s), {args.repeats} rounds in turn; times are medians. A phase is one whole"
        " prefill, or one decode step of the batch."
    )
    if stored:
        print(f"Stored: {stored.parent.name}/{stored.name}")


def measure(
    dtype: str, batches: list[int], context: int, new: int, repeats: int, device: str, against: bool
) -> list[dict]:
    """Rows for one dtype: engine x batch x phase."""
    from labkit import bench, formulas
    from labkit.tables import progress
    from labkit.weights import smollm2

    model, tokenizer = smollm2(dtype, device)
    prompt = (
        tokenizer.encode(
            "A cache keeps a copy of what was slow to get, close to where it is needed again. "
        )
        * context
    )[:context]
    engines = {"labkit": lambda prompts: bench.time_decode(model, prompts, new)}
    if against:
        theirs = transformers_twin(model)
        engines["transformers"] = lambda prompts: time_transformers(theirs, prompts, new)
    ceilings, config, rows = bench.hardware(dtype, device), model.config, []
    for batch in progress(batches, f"{dtype} batches"):
        times = {name: [] for name in engines}
        for round_ in range(-1, repeats):
            for name, engine in engines.items():
                took = engine([prompt] * batch)
                if round_ >= 0:
                    times[name].append(took)
        for phase in ("prefill", "decode"):
            work = {
                "flops": batch * formulas.prefill_flops(config, context),
                "bytes": formulas.weight_bytes(config, dtype),
            }
            if phase == "decode":
                middle = context + new // 2
                work = {
                    "flops": batch * formulas.decode_flops(config, middle),
                    "bytes": formulas.decode_bytes(config, middle, batch, dtype),
                }
            tokens = batch * (context if phase == "prefill" else 1)
            made = {
                name: bench.summarise(
                    [s for t in runs for s in ([t.first] if phase == "prefill" else t.each)],
                    hardware=ceilings,
                    **work,
                )
                for name, runs in times.items()
            }
            for name, m in made.items():
                labels = dict(
                    engine=name,
                    dtype=dtype,
                    batch=batch,
                    phase=phase,
                    tokens_per_second=tokens / m.median,
                )
                rows.append(
                    m.to_row(**labels)
                    | ({"multiple": bench.multiple(made["transformers"], m)} if against else {})
                )
    return rows


def transformers_twin(model):
    """transformers' own model with our weights."""
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "--against transformers needs transformers: pip install transformers"
        ) from None
    from labkit.weights.to_hf import ARCHITECTURES, family_of, hf_config, hf_tensors

    family, config = family_of(model.config), hf_config(model.config)
    twin = getattr(transformers, ARCHITECTURES[family])(
        transformers.AutoConfig.for_model(**config)
    ).to(model.dtype)
    twin.load_state_dict(hf_tensors(model), strict=False)
    twin.tie_weights()
    return twin.to(model.device).eval()


def time_transformers(twin, prompts: list[list[int]], new: int):
    """`generate` with a static cache, greedy, a clock on every step."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    from labkit.bench import LoopTimes

    marks = []

    class Clock(StoppingCriteria):
        def __call__(self, ids, scores, **_):
            ids[0, -1].item()  # waits for the device
            marks.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    ids = torch.tensor(prompts, device=twin.device)
    start = time.perf_counter()
    with torch.inference_mode():
        out = twin.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            cache_implementation="static",
            pad_token_id=0,
            disable_compile=True,
            stopping_criteria=StoppingCriteriaList([Clock()]),
        )
    return LoopTimes(
        marks[0] - start, [b - a for a, b in pairwise(marks)], out[:, len(prompts[0]) :].tolist()
    )

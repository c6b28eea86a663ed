"""CH01-LAUNCH: what it costs to ask.

The same decode step, the same weights, the same numbers: once operation by operation, and once laid
out beforehand and handed over in one call. What leaves Python is counted in the step itself, and
the price of one operation with nothing to do is measured beside it.
"""

import sys
from functools import partial

from labkit import bench, plotting
from labkit.lab import Lab
from labkit.tables import where

EAGER, WHOLE = "operation by operation", "one call"
CONTEXT = 128
DEEP = "tiny, 30 layers"  # as many operations as SmolLM2, and hardly any bytes


def run(device, *, models, batches, repeats):
    """Rows of both ways for each model and batch, and of an operation that has nothing to do."""
    import torch

    rows = []
    with torch.inference_mode():
        empty = empty_operation(device, repeats)
        rows.append(empty)
        for name in models:
            model = load(name, device)
            for batch in batches:
                rows += both_ways(name, model, batch, empty["microseconds"], repeats, device)
    return rows


def load(name: str, device: str):
    """SmolLM2, or a small shape with random weights, packed as SmolLM2's are."""
    import torch

    import labkit
    from labkit import presets
    from labkit.linear import Linear
    from labkit.weights import smollm2

    if name == "smollm2-135m":
        return smollm2("fp32", device)[0]
    config = presets["tiny"].replace(n_layers=30) if name == DEEP else presets[name]
    torch.manual_seed(0)
    model = labkit.GPT(config).to(device).eval().requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.pack()
    return model


def both_ways(name, model, batch, empty, repeats, device) -> list[dict]:
    """A step of `batch` requests both ways, in turn, and how far their logits lie apart."""
    from labkit.graphs import capture
    from labkit.step import Step

    caches = model.caches("static", batch, CONTEXT)
    for cache in caches:
        for buffer in cache.buffers:
            buffer.zero_()
    step = Step.of([(row, CONTEXT - 1, [1 + row]) for row in range(batch)], model.device)
    whole = capture(model, caches, batch)
    ways = {
        EAGER: partial(model, step, caches, step.last),
        WHOLE: partial(whole, step, caches, step.last),
    }
    first, second = (fn().float() for fn in ways.values())
    gap = float((first - second).abs().max() / first.abs().max())
    fns = {way: partial(drop, fn) for way, fn in ways.items()}
    measured = bench.interleave(fns, warmup=3, repeats=repeats, device=device)
    rows = []
    for way, fn in fns.items():
        calls = calls_of(fn, device)
        m = measured[way]
        rows.append(
            m.to_row(
                model=name,
                batch=batch,
                way=way,
                calls=calls,
                captured=not whole.why,
                asking=calls * empty / 1e6 / m.median,
                gap=gap,
                multiple=measured[EAGER].median / m.median,
            )
        )
    for row in rows:
        spared = rows[0]["calls"] - rows[1]["calls"]
        row["per_call"] = 1e6 * (rows[0]["median"] - rows[1]["median"]) / max(spared, 1)
    return rows


def drop(fn) -> None:
    """Call it, and keep nothing: what returns nothing is timed."""
    fn()


def calls_of(fn, device: str) -> int:
    """How often a call asks for something to be done: on a GPU, kernels and replays launched; on a
    CPU, operations of torch that Python calls, and calls into our own C.
    """
    from torch.profiler import ProfilerActivity, profile

    gpu = str(device).startswith("cuda")
    ours = [0]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as seen:
        before = sys.getprofile()
        sys.setprofile(partial(into_c, ours))
        try:
            bench.timed(fn, device)
        finally:
            sys.setprofile(before)
    if gpu:
        asked = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaLaunchKernelExC")
        return sum(e.name.startswith(asked) for e in seen.events())
    return sum(e.cpu_parent is None for e in seen.events()) + ours[0]


def into_c(count, frame, event, _) -> None:
    """Counts a call of a Python function that hands work to our C kernels."""
    from labkit.graphs.plan import Plan
    from labkit.kernels import attention
    from labkit.kernels.linear import InPanels

    if event == "call" and frame.f_code in (
        InPanels.multiply.__code__,
        attention.attend.__code__,
        Plan.__call__.__code__,
    ):
        count[0] += 1


def empty_operation(device, repeats, calls=2000) -> dict:
    """An addition to a single number: all of its time is asking."""
    import torch

    one = torch.zeros(1, device=device)

    def many():
        for _ in range(calls):
            one.add_(1)

    m = bench.measure(many, warmup=2, repeats=repeats, device=device)
    return {
        "model": "nothing to do",
        "way": "one addition",
        "microseconds": 1e6 * m.median / calls,
        "calls": 1,
        "n": m.n,
    }


def go(rows):
    for r in where(rows, way=WHOLE):
        if not r["gap"] < 1e-3:
            return (
                f"{r['model']}, {r['batch']} requests: the two ways' logits lie {r['gap']:.1e} of"
                " the largest apart, so they are not the same step"
            )
        eager = next(e for e in where(rows, way=EAGER) if same(e, r))
        if r["captured"] and r["calls"] >= eager["calls"]:
            return (
                f"{r['model']}, {r['batch']} requests: one call asks {r['calls']:,} times and"
                f" operation by operation {eager['calls']:,}: nothing was captured"
            )


def same(one, other) -> bool:
    return (one["model"], one["batch"]) == (other["model"], other["batch"])


def pays(rows):
    for r in where(rows, way=WHOLE, batch=1):
        if r["captured"] and r["multiple"] < 1:
            return (
                f"{r['model']}: one call is {r['multiple']:.2f} times as fast as operation by"
                " operation; the same arithmetic without the asking can't be slower, so look what"
                " else runs"
            )


def plot(rows):
    times = {f"{r['model']}, {r['batch']}": r["multiple"] for r in where(rows, way=WHOLE)}
    return plotting.bars(
        times,
        form="{:.1f}×",
        x_label="times as fast in one call, by model and requests",
        alt="How many times as fast a decode step is in one call: "
        + ", ".join(f"{name} requests {times:.1f}" for name, times in times.items()),
    )


def notice(rows):
    empty = rows[0]["microseconds"]
    whole = where(rows, way=WHOLE)
    most = max(whole, key=lambda r: r["multiple"])
    least = min(whole, key=lambda r: r["multiple"])
    twins = [e for e in where(rows, way=EAGER) if same(e, most)]
    if not twins:
        raise ValueError(f"{most['model']} has no row of {EAGER}")
    eager = twins[0]
    return (
        f"An operation with nothing to do takes {empty:.1f} µs. The step of {most['model']} asks"
        f" {eager['calls']:,} times; in one call it is {most['multiple']:.1f} times as fast. Where"
        f" each operation has more to do, the same change gives less: {least['multiple']:.1f} times"
        f" for {least['model']} with {least['batch']} requests."
    )


LAB = Lab(
    title="What it costs to ask",
    objective=(
        "Count how often a decode step hands work over, and compare the step operation by operation"
        " with the same step in one call."
    ),
    asks="Are both ways the same step, and does one of them ask less often?",
    notice=notice,
    columns={
        "model": "model",
        "batch": "requests",
        "way": "way",
        "calls": "times asked|,",
        "median": "seconds|.5f",
        "iqr": "quartiles apart|.5f",
        "asking": "asking, by count|.0%",
        "multiple": "times as fast|.2f",
        "per_call": "µs spared a call|.1f",
        "microseconds": "µs with nothing to do|.2f",
        "gap": "logits apart|.0e",
    },
    run=run,
    sizes={
        "full": {"models": ["tiny", DEEP, "smollm2-135m"], "batches": [1, 32], "repeats": 40},
        "quick": {"models": ["tiny"], "batches": [1], "repeats": 5},
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=0.7,
)

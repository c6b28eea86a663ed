"""CH01-ROOFLINE: this machine's two ceilings, and how close real steps come to them.

SmolLM2 decodes for a growing number of requests at several contexts, and reads prompts of growing
length. Each step's FLOPs and bytes are counted by the formulas, its seconds are measured, and both
ceilings are measured in the same run, before, between and after: they move while a machine works.
"""

import time
from functools import partial

from labkit import bench, formulas, plotting
from labkit.formulas import Hardware
from labkit.lab import Lab
from labkit.tables import only, where

DTYPE = "fp32"


def run(device, *, batches, contexts, most, prompts, repeats):
    """Rows of decode by batch and context, of prefill by prompt, and of the ceilings.

    most: tokens in all caches together, at most. repeats: of every step, in turn.
    """
    import torch

    from labkit.weights import smollm2

    model, _ = smollm2(DTYPE, device)
    ceilings = [bench.hardware(DTYPE, device)]
    steps = {}
    with torch.inference_mode():
        for context in contexts:
            held = [batch for batch in batches if batch * context <= most]
            steps |= decode_steps(model, held, context)
        steps |= {("prefill", 1, tokens): prefill_step(model, tokens) for tokens in prompts}
        runs = {}
        for half in (repeats - repeats // 2, repeats // 2):
            fns = {key: partial(clocked, fn, device) for key, fn in steps.items()}
            for key, times in bench.rounds(
                fns, repeats=half, warmup=1, device=device, label="rounds of all steps"
            ).items():
                runs.setdefault(key, []).extend(times)
            ceilings.append(bench.hardware(DTYPE, device))
    best = Hardware(
        ceilings[0].name,
        max(c.flops_per_second for c in ceilings),
        max(c.bytes_per_second for c in ceilings),
    )
    rows = [of_step(model.config, key, times, best) for key, times in runs.items()]
    alone = {r["context"]: r for r in rows if r["what"] == "decode" and r["batch"] == 1}
    for row in where(rows, what="decode"):
        row["multiple"] = row["median"] / alone[row["context"]]["median"]
    return [*rows, of_ceilings(ceilings, best)]


def decode_steps(model, batches, context) -> dict:
    """(what, batch, context) -> a captured step in which each request reaches `context` tokens."""
    import torch

    from labkit.graphs import capture
    from labkit.step import Step

    if not batches:
        return {}
    caches = model.caches("static", max(batches), context)
    for cache in caches:
        for buffer in cache.buffers:
            # keys of any text: reading them costs the same
            buffer.normal_(generator=torch.Generator(model.device).manual_seed(0))
    whole = capture(model, caches, max(batches))

    def step(batch):
        rows = [(row, context - 1, [1 + row]) for row in range(batch)]
        return Step.of(rows, model.device)

    return {
        ("decode", batch, context): partial(whole, each := step(batch), caches, each.last)
        for batch in batches
    }


def prefill_step(model, tokens):
    """A prompt of so many tokens, read at once."""
    from labkit.step import Step

    caches = model.caches("static", 1, tokens)
    step = Step.of([(0, 0, [1] * tokens)], model.device)
    return partial(model, step, caches, step.last)


def clocked(fn, device) -> tuple[float, float]:
    """Seconds by the wall clock, and seconds in which the system called the processor busy."""
    busy = time.process_time()
    seconds, _ = bench.timed(lambda: (fn(), None)[1], device)
    return seconds, time.process_time() - busy


def of_step(config, key, times, best) -> dict:
    """One kind of step: its work by formula, its time by clock, and the least time for the work."""
    what, batch, context = key
    if what == "decode":
        flops = batch * formulas.decode_flops(config, context)
        read = formulas.decode_bytes(config, context, batch, DTYPE)
    else:
        flops = formulas.prefill_flops(config, context)
        read = formulas.prefill_bytes(config, context, DTYPE)
    m = bench.summarise([wall for wall, _ in times], flops=flops, bytes=read, hardware=best)
    floor = formulas.roofline_seconds(flops, read, best)
    tokens = batch if what == "decode" else context
    return m.to_row(
        what=what,
        batch=batch,
        context=context,
        tokens_per_second=tokens / m.median,
        intensity=formulas.intensity(flops, read),
        flops_per_second=flops / m.median,
        bytes_per_second=read / m.median,
        floor=floor,
        of_floor=floor / m.median,
        limit="memory" if m.mbu >= m.mfu else "arithmetic",
        busy=sum(busy for _, busy in times) / sum(wall for wall, _ in times),
    )


def of_ceilings(ceilings, best) -> dict:
    """The best that was read of each ceiling, and the least."""
    return {
        "what": "ceilings",
        "n": len(ceilings),
        "flops_per_second": best.flops_per_second,
        "bytes_per_second": best.bytes_per_second,
        "intensity": best.ridge,
        "least_flops_per_second": min(c.flops_per_second for c in ceilings),
        "least_bytes_per_second": min(c.bytes_per_second for c in ceilings),
    }


def go(rows):
    for r in rows:
        if r["what"] == "ceilings":
            continue
        share, name = max((r["mfu"], "MFU"), (r["mbu"], "MBU"))
        if share > 1.1:
            return (
                f"{r['what']} of {r['batch']} at {r['context']:,} tokens comes to {share:.0%}"
                f" {name}: no step is faster than its ceiling, so either a ceiling was measured on"
                " a busy machine, or the step did not do the work that was counted"
            )


def pays(rows):
    """A larger batch raises the work done for each byte, and so the tokens of a second."""
    short = where(rows, what="decode", context=min(r["context"] for r in decoded(rows)))
    first, last = short[0], short[-1]
    if last["tokens_per_second"] <= first["tokens_per_second"]:
        return (
            f"{last['batch']} requests get {last['tokens_per_second']:.0f} tokens a second and one"
            f" gets {first['tokens_per_second']:.0f}: the weights are read once for all of them, so"
            " look what else runs"
        )


def decoded(rows) -> list[dict]:
    return where(rows, what="decode")


def plot(rows):
    """The roofline: two ceilings, and every step under them."""
    ceiling = only(rows, what="ceilings")
    peak, speed, ridge = (
        ceiling[key] for key in ("flops_per_second", "bytes_per_second", "intensity")
    )
    points = [r for r in rows if r["what"] != "ceilings"]
    low = min(r["intensity"] for r in points) / 1.5
    high = max(r["intensity"] for r in points) * 1.5
    xs = [low, ridge, high]
    ys = [formulas.symbols.attainable_flops(x, peak, speed) / 1e9 for x in xs]
    groups = {
        f"decode, {context:,} tokens each": where(rows, what="decode", context=context)
        for context in sorted({r["context"] for r in decoded(rows)})
    } | {"prefill": where(rows, what="prefill")}

    @plotting.twice
    def draw(*, width):
        ax = plotting.axes(
            width,
            3.4 + 1.1 * (width < plotting.WIDE),
            x_label="FLOPs for each byte read",
            y_label="GFLOP/s",
            log_x=True,
            log_y=True,
        )
        ax.plot(xs, ys, color=plotting.LIGHT["muted"], linewidth=2)
        for (name, group), marker in zip(groups.items(), "os^Dv"):
            colour = plotting.SERIES[list(groups).index(name) % len(plotting.SERIES)]
            ax.plot(
                [r["intensity"] for r in group],
                [r["flops_per_second"] / 1e9 for r in group],
                color=colour,
                marker=marker,
                markersize=6,
                linewidth=1,
                label=name,
            )
        # a phone has no room for names beside the points
        box, place = (
            (ax, "lower right") if width >= plotting.WIDE else (ax.figure, "outside upper left")
        )
        box.legend(frameon=False, loc=place, labelcolor=plotting.LIGHT["ink"])
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:,g}")
        ax.minorticks_off()
        return ax.figure

    one = only(rows, what="decode", batch=1, context=min(r["context"] for r in decoded(rows)))
    most = max(decoded(rows), key=lambda r: r["flops_per_second"])
    return draw(
        alt=f"Roofline of this machine: {peak / 1e9:.0f} GFLOP/s from {ridge:.1f} FLOPs a byte on,"
        f" and {speed / 1e9:.1f} GB/s below. Decode for one request reaches"
        f" {one['flops_per_second'] / 1e9:.1f} GFLOP/s; for {most['batch']} requests at"
        f" {most['context']:,} tokens {most['flops_per_second'] / 1e9:.0f}.",
    )


def notice(rows):
    ceiling = only(rows, what="ceilings")
    context = min(r["context"] for r in decoded(rows))
    short = where(rows, what="decode", context=context)
    one, most = short[0], short[-1]
    return (
        f"One request's decode comes to {one['mbu']:.0%} of the bytes/s and {one['mfu']:.0%} of the"
        f" FLOP/s, while the system reports the processor {one['busy']:.0%} busy. {most['batch']}"
        f" requests take {most['multiple']:.1f} times as long and reach {most['mbu']:.0%} and"
        f" {most['mfu']:.0%}. The ridge lies at {ceiling['intensity']:.1f} FLOPs a byte; in"
        f" {ceiling['n']} readings the ceilings moved by"
        f" {1 - ceiling['least_flops_per_second'] / ceiling['flops_per_second']:.0%} and"
        f" {1 - ceiling['least_bytes_per_second'] / ceiling['bytes_per_second']:.0%}."
    )


LAB = Lab(
    title="The roofline of this machine",
    objective=(
        "Measure both ceilings and real steps in one run, and see which ceiling each step is under"
        " as batch, context and phase change."
    ),
    asks="Does every step stay under its ceiling, and does a larger batch earn more tokens?",
    notice=notice,
    columns={
        "what": "what",
        "batch": "requests",
        "context": "tokens each",
        "median": "seconds|.4f",
        "multiple": "times one|.2f",
        "tokens_per_second": "tokens/s|,.0f",
        "intensity": "FLOPs a byte|.1f",
        "flops_per_second": "FLOP/s|.3g",
        "bytes_per_second": "bytes/s|.3g",
        "mfu": "MFU|.0%",
        "mbu": "MBU|.0%",
        "of_floor": "of the roof|.0%",
        "limit": "nearer limit",
        "busy": "processor busy|.0%",
    },
    run=run,
    sizes={
        "full": {
            "batches": [1, 2, 4, 8, 16, 32],
            "contexts": [128, 1024, 4096],
            "most": 16384,
            "prompts": [16, 64, 256],
            "repeats": 10,
        },
        "quick": {
            "batches": [1, 8],
            "contexts": [64],
            "most": 1024,
            "prompts": [16],
            "repeats": 2,
        },
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=1.2,
)

"""CH01-PROTOCOL: the benchmark protocol.

One prompt, many runs: what a warm-up and a median are for, and what a single run would have told.

The first run after loading is kept, cold; then the same run is repeated. This machine's ceilings
stand below, so that every time has a scale.
"""

from functools import partial

from labkit import bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import only

COLD, WARM = "one cold run", "warm, median of all"


def run(device, *, context, new, repeats):
    """Rows of prefill and decode, cold and warm, and of the ceilings.

    context: tokens of the prompt. new: tokens generated. repeats: warm runs, after the cold one.
    """
    from labkit.weights import smollm2

    model, tokenizer = smollm2("fp32", device)
    generation = partial(bench.time_decode, model, [bench.prompt(tokenizer, context)], new)
    # not warmed up: the first is the cold one
    runs = bench.rounds({"it": generation}, repeats=1 + repeats, warmup=0, label="runs")["it"]
    ceilings = {dtype: bench.hardware(dtype, device) for dtype in ("fp32", "bf16")}
    seconds = {
        "prefill": [[times.first] for times in runs],
        "decode": [times.each for times in runs],
    }
    rows = []
    for phase, (flops, bytes) in work(model.config, context, new).items():
        cold, *repeated = seconds[phase]
        warm = [s for each in repeated for s in each]
        rows += of_phase(phase, cold, warm, flops, bytes, ceilings["fp32"], context)
    return rows + [
        {
            "what": f"ceiling, {dtype}",
            "protocol": "this machine, one thread",
            "flops_per_second": ceiling.flops_per_second,
            "bytes_per_second": ceiling.bytes_per_second,
            "ridge": ceiling.ridge,
        }
        for dtype, ceiling in ceilings.items()
    ]


def work(config, context: int, new: int) -> dict:
    """phase -> (FLOPs, bytes read): of the whole prefill, and of the decode step in the middle."""
    middle = context + new // 2
    return {
        "prefill": (formulas.prefill_flops(config, context), formulas.weight_bytes(config, "fp32")),
        "decode": (
            formulas.decode_flops(config, middle),
            formulas.decode_bytes(config, middle, 1, "fp32"),
        ),
    }


def of_phase(phase, cold, warm, flops, bytes, ceiling, context) -> list[dict]:
    """What one cold run and what the median of all warm ones say of a phase."""
    rows = []
    for protocol, seconds in ((COLD, cold), (WARM, warm)):
        m = bench.summarise(seconds, flops=flops, bytes=bytes, hardware=ceiling)
        rows.append(
            m.to_row(
                what=phase,
                protocol=protocol,
                context=context,
                spread=m.iqr / m.median,
                fastest=min(seconds),
                slowest=max(seconds),
                flops_per_second=flops / m.median,
                bytes_per_second=bytes / m.median,
            )
        )
    return [row | {"multiple": row["median"] / rows[-1]["median"]} for row in rows]


def go(rows):
    for r in rows:
        if r["protocol"] == WARM and r["spread"] > 0.5:
            return (
                f"the quartiles of {r['what']} lie {r['spread']:.0%} of the median apart: close"
                " what else runs here, then repeat; until then every time you measure is about the"
                " other program"
            )


def plot(rows):
    cold = only(rows, what="decode", protocol=COLD)
    warm = only(rows, what="decode", protocol=WARM)
    seconds = {
        "cold, one run": cold["median"],
        "warm, slowest": warm["slowest"],
        "warm, median": warm["median"],
        "warm, fastest": warm["fastest"],
    }
    milliseconds = {name: 1e3 * s for name, s in seconds.items()}
    return plotting.bars(
        milliseconds,
        x_label="milliseconds for one token",
        highlight="warm, median",
        form="{:,.1f}",
        alt="What different protocols report for the same decoded token: "
        + ", ".join(f"{name} {ms:.1f} ms" for name, ms in milliseconds.items()),
    )


def notice(rows):
    cold = only(rows, what="prefill", protocol=COLD)
    prefill = only(rows, what="prefill", protocol=WARM)
    decode = only(rows, what="decode", protocol=WARM)
    ceiling = only(rows, what="ceiling, fp32")

    def of_ceilings(phase) -> str:
        flops = phase["flops_per_second"] / ceiling["flops_per_second"]
        bytes = phase["bytes_per_second"] / ceiling["bytes_per_second"]
        return f"{flops:.0%} of the FLOP/s and {bytes:.0%} of the bytes/s"

    return (
        "The first run pays for what is not the model: memory touched for the first time, kernels"
        " being chosen. How much that is, is luck: this first prefill took"
        f" {cold['multiple']:.2f} times the median. Warm decode steps took from"
        f" {decode['fastest'] / decode['median']:.2f} to"
        f" {decode['slowest'] / decode['median']:.2f} times theirs, both real and both misleading."
        f" Compare each phase with the ceilings: prefill comes to {of_ceilings(prefill)}, decode"
        f" to {of_ceilings(decode)}."
    )


LAB = Lab(
    title="A benchmark protocol",
    objective=(
        "Fix prompt, length, warm-up and repeats once, and see how far a single run lies from the"
        " median that you will quote."
    ),
    asks="Is this machine quiet enough for medians to mean something?",
    notice=notice,
    columns={
        "what": "what",
        "protocol": "protocol",
        "n": "times",
        "median": "seconds|.4f",
        "spread": "quartiles apart|.0%",
        "fastest": "fastest|.4f",
        "slowest": "slowest|.4f",
        "multiple": "of the median|.2f",
        "flops_per_second": "FLOP/s|.3g",
        "bytes_per_second": "bytes/s|.3g",
        "ridge": "ridge, FLOPs a byte|.1f",
    },
    run=run,
    sizes={
        "full": {"context": 300, "new": 32, "repeats": 12},
        "quick": {"context": 64, "new": 6, "repeats": 3},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=0.8,
)

"""CH01-PROTOCOL: the benchmark protocol.

One prompt, many runs: what a warm-up and a median are for, and what a single run would have told.

The first run after loading is kept, cold; then the same run is repeated. This machine's ceilings
stand below, so that every time has a scale.
"""

from labkit.lab import Lab

PROMPT = "A cache keeps a copy of what was slow to get, close to where it is needed again. "


def run(device="cpu", quick=False):
    import torch

    from labkit import bench, formulas
    from labkit.tables import progress
    from labkit.weights import smollm2

    torch.set_num_threads(1)
    context, new, repeats = (64, 6, 3) if quick else (300, 32, 12)
    model, tokenizer = smollm2("fp32", device)
    prompt = (tokenizer.encode(PROMPT) * context)[:context]
    runs = [bench.time_decode(model, [prompt], new) for _ in progress(range(1 + repeats), "runs")]
    ceilings, rows = {dtype: bench.hardware(dtype, device) for dtype in ("fp32", "bf16")}, []
    config, middle = model.config, context + new // 2
    work = {
        "prefill": (formulas.prefill_flops(config, context), formulas.weight_bytes(config, "fp32")),
        "decode": (
            formulas.decode_flops(config, middle),
            formulas.decode_bytes(config, middle, 1, "fp32"),
        ),
    }
    for phase, (flops, bytes) in work.items():
        each = [[r.first] if phase == "prefill" else r.each for r in runs]
        warm = [s for r in each[1:] for s in r]
        for protocol, seconds in (("one cold run", each[0]), ("warm, median of all", warm)):
            m = bench.summarise(seconds, flops=flops, bytes=bytes, hardware=ceilings["fp32"])
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
        for row in rows[-2:]:
            row["multiple"] = row["median"] / rows[-1]["median"]
    for dtype, c in ceilings.items():
        rows.append(
            {
                "what": f"ceiling, {dtype}",
                "protocol": "this machine, one thread",
                "flops_per_second": c.flops_per_second,
                "bytes_per_second": c.bytes_per_second,
                "ridge": c.ridge,
            }
        )
    return rows


def go(rows):
    for r in rows:
        if r["protocol"].startswith("warm") and r["spread"] > 0.5:
            return (
                f"the quartiles of {r['what']} lie {r['spread']:.0%} of the median apart: close"
                " what else runs here, then repeat; until then every time you measure is about the"
                " other program"
            )


def plot(rows):
    from labkit import plotting

    decode = {r["protocol"]: r for r in rows if r["what"] == "decode"}
    warm = decode["warm, median of all"]
    values = {
        "cold, one run": decode["one cold run"]["median"],
        "warm, slowest": warm["slowest"],
        "warm, median": warm["median"],
        "warm, fastest": warm["fastest"],
    }
    return plotting.bars(
        {k: v * 1e3 for k, v in values.items()},
        x_label="milliseconds for one token",
        highlight="warm, median",
        form="{:,.1f}",
        alt="What different protocols report for the same decoded token: "
        + ", ".join(f"{k} {v * 1e3:.1f} ms" for k, v in values.items()),
    )


LAB = Lab(
    asks="Is this machine quiet enough for medians to mean something?",
    title="A benchmark protocol",
    minutes=0.8,
    objective=(
        "Fix prompt, length, warm-up and repeats once, and see how far a single run lies from the"
        " median that you will quote."
    ),
    notice=(
        "The first run pays for what is not the model: memory touched for the first time, kernels"
        " being chosen. How much that is, is luck. The fastest and the slowest warm step are both"
        " real and both misleading. Compare each phase with the ceilings: prefill is held by"
        " FLOP/s, decode by bytes/s."
    ),
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
    plot=plot,
    go=go,
)

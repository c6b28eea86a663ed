"""CH11-INT8: what fewer bits save, and what they cost: bytes, tokens per second and perplexity side
by side, on the real model.
"""

from labkit.lab import Lab

BATCHES, CONTEXT = (1, 8, 48), 128


def variants(device):
    """name -> (model, a function that makes its caches, or None for its own)."""
    from labkit import quant
    from labkit.weights import smollm2

    fresh = lambda: smollm2("fp32", device, packed=False)[0]
    fp32, tokenizer = smollm2("fp32", device)
    some = tokenizer.encode(quant.text("calibration"))
    kept = quant.outliers(fp32, some)
    eight = lambda model, rows, n: [
        quant.Int8Cache("static", b.mixer, rows, n, device=device) for b in model.blocks
    ]
    return {
        "fp32": (fp32, None),
        "bf16": (smollm2("bf16", device)[0], None),
        "fp16 weights": (quant.quantize(fresh(), "fp16"), None),
        "int8 weights": (quant.quantize(fresh(), "int8"), None),
        "w8a8, all layers": (quant.quantize(fresh(), "w8a8", rows=8), None),
        "w8a8, outlier layers kept": (
            quant.quantize(fresh(), "w8a8", skip=kept, rows=8).pack(),
            None,
        ),
        "w8a8, outlier layers int8": (
            quant.quantize(quant.quantize(fresh(), "int8", only=kept), "w8a8", rows=8),
            None,
        ),
        "w8a8, smoothed": (quant.quantize(quant.smooth(fresh(), some), "w8a8", rows=8), None),
        "int4 groups (proves nothing)": (quant.quantize(fresh(), "int4"), None),
        "fp32, int8 cache": (fp32, eight),
    }, tokenizer


def model_bytes(model):
    """Of every weight: packed ones as their layers count them, the rest by dtype; a tied matrix
    once.
    """
    return sum(q["bytes"] for q in getattr(model, "quantisation", {}).values()) + sum(
        p.numel() * p.element_size() for p in model.parameters()
    )


def run(device="cpu", quick=False):
    import torch

    from labkit import bench, quant
    from labkit.step import Step
    from labkit.tables import progress

    torch.set_num_threads(1)
    models, tokenizer = variants(device)
    texts = {
        name: tokenizer.encode(quant.text(name))[: 200 if quick else None]
        for name in ("course", "milton")
    }
    speed = {name: {} for name in models}
    for batch in progress(BATCHES, "batches"):

        def decode(model, caches, batch=batch):
            held = (
                caches(model, batch, CONTEXT + 1)
                if caches
                else model.caches("static", batch, CONTEXT + 1)
            )
            # the cache's content does not change the time
            step = lambda: Step.of([(r, CONTEXT, [5]) for r in range(batch)], device)

            def fn():
                with torch.inference_mode():
                    model(step(), held)

            return fn

        times = bench.interleave(
            {n: decode(m, c) for n, (m, c) in models.items()},
            warmup=1,
            repeats=1 if quick else 15,
            device=device,
        )
        for name, m in times.items():
            speed[name] |= {
                f"tokens_per_second_{batch}": batch / m.median,
                f"multiple_{batch}": bench.multiple(times["fp32"], m),
            }
    rows, base = [], {}
    for name, (model, caches) in progress(models.items(), "perplexities"):
        ppl = {text: quant.perplexity(model, ids, caches=caches) for text, ids in texts.items()}
        base = base or ppl
        cache = sum(
            c.allocated_bytes
            for c in (caches(model, 1, 1) if caches else model.caches("static", 1, 1))
        )
        rows.append(
            {
                "variant": name,
                "bytes": model_bytes(model),
                "cache_bytes_per_token": cache,
                **speed[name],
                "perplexity_course": ppl["course"],
                "change_course": ppl["course"] / base["course"] - 1,
                "perplexity_milton": ppl["milton"],
                "change_milton": ppl["milton"] / base["milton"] - 1,
                "kernels": ", ".join(getattr(model, "quantisation", {})),
            }
        )
    return rows


def go(rows):
    half = next(r for r in rows if r["variant"] == "bf16")
    for r in rows:
        if "int8 weights" in r["variant"] and r["bytes"] >= half["bytes"]:
            return (
                f"{r['variant']} takes {r['bytes']:,} bytes, bf16 {half['bytes']:,}: look which"
                " layers were left as they were"
            )
        if not r["change_course"] > -0.5:
            return (
                f"{r['variant']} changes perplexity by {r['change_course']:.0%}: look for infinite"
                " logits, or a model that saw the answers"
            )


def plot(rows):
    from labkit import plotting

    return plotting.bars(
        {
            r["variant"]: 100 * max(r["change_course"], r["change_milton"])
            for r in rows
            if "int4" not in r["variant"]
        },
        x_label="perplexity, % above fp32 (the worse of two texts)",
        form="{:.2f}",
        highlight="w8a8, smoothed",
        alt="Perplexity above fp32: "
        + ", ".join(
            f"{r['variant']} {max(r['change_course'], r['change_milton']):.1%}" for r in rows
        ),
    )


LAB = Lab(
    asks="Are eight bits smaller than sixteen, and their perplexity a number?",
    title="Eight bits: bytes, speed, quality",
    minutes=8,
    objective=(
        "Measure SmolLM2 in fp32, bf16, with fp16 and int8 weights, in W8A8, int4 and with an 8-bit"
        " cache: bytes, tokens per second at three batch sizes, and perplexity on two texts."
    ),
    notice=(
        "16-bit weights under fp32 sums cost nothing that two texts could show, and on a processor"
        " without bf16 are the faster 16 bits. 8-bit weights alone pay while a step reads weights"
        " (batch 1) and stop paying when it multiplies. 8-bit activations pay at every batch, and"
        " cost quality, until large channels are smoothed into the weights. An 8-bit cache costs"
        " almost no quality; on a CPU it saves memory and no time. SmolLM2's weights come from"
        " another 4-bit grid, so int4 on them proves nothing, for or against."
    ),
    columns={
        "variant": "variant",
        "bytes": "weights in memory|,",
        "cache_bytes_per_token": "cache bytes a token|,",
        "tokens_per_second_1": "tokens/s, 1|.1f",
        "tokens_per_second_8": "8|.0f",
        "tokens_per_second_48": "48|.0f",
        "multiple_1": "x fp32, 1|.2f",
        "multiple_8": "8|.2f",
        "multiple_48": "48|.2f",
        "change_course": "perplexity, course|+.2%",
        "change_milton": "Milton|+.2%",
    },
    run=run,
    plot=plot,
    go=go,
)

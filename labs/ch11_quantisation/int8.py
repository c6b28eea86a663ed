"""CH11-INT8: what fewer bits save, and what they cost: bytes, tokens per second and perplexity side
by side, on the real model.
"""

from functools import partial

from labkit import bench, plotting
from labkit.lab import Lab
from labkit.tables import only, progress

BATCHES = (1, 8, 48)
CONTEXT = 128
INT4 = "int4 groups (proves nothing)"
INT8_CACHE = "fp32, int8 cache"


def variants(device: str):
    """(name -> model, tokenizer). Only INT8_CACHE is about a cache: its model is fp32's."""
    from labkit import quant
    from labkit.weights import smollm2

    fp32, tokenizer = smollm2("fp32", device)
    some = tokenizer.encode(quant.read_text("calibration"))
    kept = quant.outliers(fp32, some)

    def fresh():
        return smollm2("fp32", device, packed=False)[0]

    return {
        "fp32": fp32,
        "bf16": smollm2("bf16", device)[0],
        "fp16 weights": quant.quantize(fresh(), "fp16"),
        "int8 weights": quant.quantize(fresh(), "int8"),
        "w8a8, all layers": quant.quantize(fresh(), "w8a8"),
        "w8a8, outlier layers kept": quant.quantize(fresh(), "w8a8", skip=kept).pack(),
        "w8a8, outlier layers int8": quant.quantize(
            quant.quantize(fresh(), "int8", only=kept), "w8a8"
        ),
        "w8a8, smoothed": quant.quantize(quant.smooth(fresh(), some), "w8a8"),
        INT4: quant.quantize(fresh(), "int4"),
        INT8_CACHE: fp32,
    }, tokenizer


def caches_of(name: str, model, rows: int, capacity: int) -> list:
    """A variant's caches: its model's own, but for the one whose caches are in 8 bits."""
    if name != INT8_CACHE:
        return model.caches("static", rows, capacity)
    from labkit import quant

    return [
        quant.Int8Cache("static", block.mixer, rows, capacity, device=model.device)
        for block in model.blocks
    ]


def model_bytes(model) -> int:
    """Of every weight: packed ones as their layers count them, the rest by dtype; a tied matrix
    once.
    """
    packed = sum(q["bytes"] for q in getattr(model, "quantisation", {}).values())
    return packed + sum(p.numel() * p.element_size() for p in model.parameters())


def speeds(models: dict, batch: int, repeats: int, device: str) -> dict:
    """name -> tokens per second of a decode step of so many requests, and times fp32's."""
    import torch

    from labkit.graphs import capture
    from labkit.step import Step

    def captured(name, model):
        caches = caches_of(name, model, batch, CONTEXT + 1)
        return capture(model, caches, batch), caches

    @torch.inference_mode()
    def step(run, caches):
        # the cache's content does not change the time
        run(Step.of([(row, CONTEXT, [5]) for row in range(batch)], device), caches)

    times = bench.interleave(
        {name: partial(step, *captured(name, model)) for name, model in models.items()},
        warmup=1,
        repeats=repeats,
        device=device,
    )
    return {
        name: {
            f"tokens_per_second_{batch}": batch / m.median,
            f"multiple_{batch}": bench.multiple(times["fp32"], m),
        }
        for name, m in times.items()
    }


def run(device, *, tokens, repeats):
    """A row for each variant. tokens: of each text that is read; None = all of it."""
    from labkit import quant

    models, tokenizer = variants(device)
    texts = {
        name: tokenizer.encode(quant.read_text(name))[:tokens] for name in ("course", "milton")
    }
    by_batch = [speeds(models, batch, repeats, device) for batch in progress(BATCHES, "batches")]
    perplexities = {}
    rows = []
    for name, model in progress(models.items(), "perplexities"):
        caches = partial(caches_of, name) if name == INT8_CACHE else None
        perplexities[name] = {
            text: quant.perplexity(model, ids, caches=caches) for text, ids in texts.items()
        }
        row = {
            "variant": name,
            "bytes": model_bytes(model),
            "cache_bytes_per_token": sum(
                cache.allocated_bytes for cache in caches_of(name, model, 1, 1)
            ),
        }
        for speed in by_batch:
            row |= speed[name]
        for text, perplexity in perplexities[name].items():
            row[f"perplexity_{text}"] = perplexity
            row[f"change_{text}"] = perplexity / perplexities["fp32"][text] - 1
        row["kernels"] = ", ".join(getattr(model, "quantisation", {}))
        rows.append(row)
    return rows


def go(rows):
    half = only(rows, variant="bf16")
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
    worse = {
        r["variant"]: 100 * max(r["change_course"], r["change_milton"])
        for r in rows
        if r["variant"] != INT4
    }
    return plotting.bars(
        worse,
        x_label="perplexity, % above fp32 (the worse of two texts)",
        form="{:.2f}",
        highlight="w8a8, smoothed",
        alt="Perplexity above fp32, the worse of two texts: "
        + ", ".join(f"{variant} {change:.2f}%" for variant, change in worse.items()),
    )


def notice(rows):
    def costs(name) -> str:
        row = only(rows, variant=name)
        return f"{row['change_course']:+.2%} and {row['change_milton']:+.2%}"

    def speed(name, batch) -> str:
        return f"{only(rows, variant=name)[f'multiple_{batch}']:.2f}"

    one, _, many = BATCHES
    cache = only(rows, variant=INT8_CACHE)
    stored = cache["cache_bytes_per_token"] / only(rows, variant="fp32")["cache_bytes_per_token"]
    return (
        f"16-bit weights under fp32 sums change the two perplexities by {costs('fp16 weights')};"
        f" one request runs at {speed('fp16 weights', one)} times fp32's speed, in bf16 at"
        f" {speed('bf16', one)}. 8-bit weights save reading and not multiplying:"
        f" {speed('int8 weights', one)} times for one request, {speed('int8 weights', many)} for"
        f" {many}. With 8-bit activations it is {speed('w8a8, all layers', one)} and"
        f" {speed('w8a8, all layers', many)}, at perplexities of {costs('w8a8, all layers')}; once"
        " large channels are smoothed into the weights, of"
        f" {costs('w8a8, smoothed')}. An 8-bit cache takes {stored:.0%} of the bytes, at"
        f" perplexities of {costs(INT8_CACHE)} and {speed(INT8_CACHE, many)} times the speed with"
        f" {many} requests. SmolLM2's weights come from another 4-bit grid, so int4 on them proves"
        " nothing, for or against."
    )


LAB = Lab(
    title="Eight bits: bytes, speed, quality",
    objective=(
        "Measure SmolLM2 in fp32, bf16, with fp16 and int8 weights, in W8A8, int4 and with an 8-bit"
        " cache: bytes, tokens per second at three batch sizes, and perplexity on two texts."
    ),
    asks="Are eight bits smaller than sixteen, and their perplexity a number?",
    notice=notice,
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
    sizes={"full": {"tokens": None, "repeats": 15}, "quick": {"tokens": 64, "repeats": 1}},
    threads=1,
    go=go,
    plot=plot,
    minutes=8,
)

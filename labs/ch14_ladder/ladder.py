"""CH14-LADDER: one model, one machine, one workload; every step of the course switched on in turn,
and what each is worth.
"""

from functools import partial

from labkit.lab import Lab


def copies(model, tokenizer, quick):
    """Passages of the course's text to correct, three that this small model copies to their end,
    and as many new tokens as it then writes.
    """
    from labkit import Engine
    from labkit_labs.ch12_speculation.lookup import COPY, paragraphs
    from labkit_labs.common.workload import Job

    passages = ["\n\n".join(paragraphs()[i : i + 2]) for i in (8, 12, 16)]
    prompts = [tokenizer.chat(COPY + passage[: 100 if quick else None]) for passage in passages]
    engine = Engine(model, max_batch=3, n_blocks=100, block_size=16)
    ids = [engine.add(prompt, 8 if quick else 200) for prompt in prompts]
    replies = engine.run()
    return [Job(prompt, len(replies[id])) for prompt, id in zip(prompts, ids)]


def run(device="cpu", quick=False, ends=0):
    import torch

    from labkit.linear import has_bf16
    from labkit.quant import quantize, smooth, text
    from labkit.weights import smollm2
    from labkit_labs.ch12_speculation.batch import prices
    from labkit_labs.ch14_ladder import rungs as ladder
    from labkit_labs.common import workload as serving

    torch.set_num_threads(2)
    work = (
        [serving.Job(job.prompt[220:290], 6) for job in serving.jobs()[:4]]
        if quick
        else serving.jobs()
    )
    rounds, slots = (1, 4) if quick else (3, 48)
    fresh = lambda: smollm2("fp32", device, packed=False)[0]
    (packed, tokenizer), plain = smollm2("fp32", device), fresh()
    eight = smooth(fresh(), tokenizer.encode(text("calibration")), alpha=0.65)  # see CH11-OUTLIERS
    eight = quantize(
        quantize(eight, "int8", only=("head", "*.down"), rows=slots), "w8a8", rows=slots
    )
    # where bf16 is emulated, 16-bit weights meet fp32 activations
    half = "bf16" if device != "cpu" or has_bf16() else "fp16"
    models = {
        "fp32": packed,
        half: smollm2("bf16", device)[0] if half == "bf16" else quantize(fresh(), "fp16"),
        "int8": quantize(fresh(), "int8"),
        "w8a8": eight,
    }
    # what checks several tokens fastest
    several = min((half, "int8"), key=lambda dtype: prices(models[dtype], 1 if quick else 5)[16])
    qualities = {dtype: ladder.quality(model, tokenizer, quick) for dtype, model in models.items()}
    every = max(1, len(work) // 12)
    one = serving.one_by_one
    engine = partial(serving.continuous, slots=slots, prefix=True)
    turns = partial(serving.continuous, slots=1, prefix=True)

    def rung(name, dtype, run, batch=1, sample=1, **how):
        return ladder.Rung(name, partial(run, models[dtype], **how), dtype, batch, sample)

    rungs = [
        ladder.Rung("KV cache", partial(one, plain), sample=every),
        rung("packed weights", "fp32", one, sample=every),
        rung("static batch of 8", "fp32", serving.static, min(slots, 8), slots=min(slots, 8)),
        rung(
            "continuous, 16 slots", "fp32", serving.continuous, min(slots, 16), slots=min(slots, 16)
        ),
        rung(f"{slots} slots", "fp32", serving.continuous, slots, slots=slots),
        rung("prefix reuse", "fp32", engine, slots),
        rung("prompt lookup", "fp32", engine, slots, speculative="ngram"),
        rung("16-bit weights", half, engine, slots, speculative="ngram"),
        rung("8 bits", "w8a8", engine, slots, speculative="ngram"),
        rung(
            "8 bits, 4 guesses in every step", "w8a8", engine, slots, speculative="ngram", drafts=4
        ),
    ]
    solo = [
        ladder.Rung("KV cache", partial(one, plain)),
        rung("packed weights", "fp32", one),
        rung("16-bit weights", half, one),
        rung("int8 weights", "int8", one),
        rung("prefix reuse", several, turns),
        rung("prompt lookup", several, turns, speculative="ngram"),
    ]
    if ends:  # the naive loop and the top, 10 minutes instead of 40
        rungs, solo = rungs[-4:-1], solo[-1:]
    rows = ladder.climb("throughput", plain, work, rungs, qualities, rounds, every if ends else 1)
    rows += ladder.climb("one user", plain, work[: 2 if quick else 8], solo, qualities, rounds)
    return rows + ladder.climb(
        "one user, copy-editing", plain, copies(packed, tokenizer, quick), solo, qualities, rounds
    )


def go(rows):
    wrong = [r["rung"] for r in rows if r["dtype"] == "fp32" and r["agreement"] < 1]
    return (
        f"{', '.join(wrong)} should write the very tokens of the naive loop, and does not: compare"
        " their logits first"
        if wrong
        else None
    )


def plot(rows):
    from labkit import plotting

    rungs = [r for r in rows if r["ladder"] == "throughput"]
    best = max(rungs, key=lambda r: r["multiple"])["rung"]
    return plotting.bars(
        {r["rung"]: r["multiple"] for r in rungs},
        x_label="times naive",
        form="{:,.0f}",
        highlight=best,
        alt="Throughput as a multiple of the naive loop: "
        + ", ".join(f"{r['rung']} {r['multiple']:.0f}" for r in rungs),
    )


LAB = Lab(
    asks="Does every rung in fp32 write what the naive loop writes?",
    title="The ladder",
    minutes=40,
    objective=(
        "Serve 48 requests in eleven ways, from the naive loop to all that the course teaches, and"
        " say what each step is worth."
    ),
    notice=(
        "Rungs multiply, and most of the height is won by sharing one reading of the weights and of"
        " the common prompt; more slots alone win little once arithmetic is the limit. In fp32 the"
        " tokens stay the same. Guesses gain where few users share a step; four in every step, full"
        " or not, do about as well as the engine's own choice, which times that scatter can"
        " mislead. Fewer bits pay one user, who waits for bytes; fifty wait for arithmetic, and"
        " gain only on a processor that multiplies those bits. One without bf16 gets FP16 weights"
        " and sums in fp32."
    ),
    columns={
        "ladder": "ladder",
        "rung": "rung",
        "dtype": "dtype",
        "tokens_per_second": "tokens/s|,.1f",
        "multiple": "times naive|,.1f",
        "step": "times below|.2f",
        "bytes_per_token": "bytes a token|,.0f",
        "agreement": "same tokens|.1%",
        "perplexity_course": "perplexity, course|.2f",
        "perplexity_milton": "Milton|.2f",
    },
    run=run,
    plot=plot,
    go=go,
)

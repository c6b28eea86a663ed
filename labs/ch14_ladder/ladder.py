"""CH14-LADDER: one model, one machine, one workload; every step of the course switched on in turn,
and what each is worth.
"""

from functools import partial

from labkit import plotting
from labkit.lab import Lab
from labkit.tables import listed, only, where

PASSAGES = (8, 12, 16)  # of the course's text: this small model copies them to their end


def copies(model, tokenizer, characters: int | None, new: int):
    """Passages to correct, and as many new tokens as the model then writes, at most `new`.

    characters: kept of each; None = all.
    """
    from labkit import Engine
    from labkit_labs.common.tasks import COPY, passage
    from labkit_labs.common.workload import Job

    prompts = [tokenizer.chat(COPY + passage(first)[:characters]) for first in PASSAGES]
    engine = Engine(model, max_batch=len(prompts), n_blocks=100, block_size=16)
    ids = [engine.add(prompt, new) for prompt in prompts]
    replies = engine.run()
    return [Job(prompt, len(replies[id])) for prompt, id in zip(prompts, ids)]


def variants(tokenizer, device: str) -> dict:
    """The model by dtype. Weights of 16 bits are bf16, or where that is emulated fp16, which meet
    fp32 activations.
    """
    from labkit.linear import faster_half
    from labkit.quant import quantize, read_text, smooth
    from labkit.weights import smollm2

    def fresh():
        return smollm2("fp32", device, packed=False)[0]

    found = {"fp32": smollm2("fp32", device)[0]}
    if faster_half(device) == "bf16":
        found["bf16"] = smollm2("bf16", device)[0]
    else:
        found["fp16"] = quantize(fresh(), "fp16")
    found["int8"] = quantize(fresh(), "int8")
    # CH11-OUTLIERS says why; what comes after a gate stays too wild for 8-bit activations
    smoothed = smooth(fresh(), tokenizer.encode(read_text("calibration")), alpha=0.65)
    weights_only = quantize(smoothed, "int8", only=("head", "*.down"))
    found["w8a8"] = quantize(weights_only, "w8a8")
    return found


def rungs_of(plain, models: dict, slots: int, sample: int) -> list:
    """All that serve many users. sample: the slowest rungs serve every so-manieth job."""
    from labkit_labs.ch14_ladder.rungs import Rung
    from labkit_labs.common import workload

    half = "bf16" if "bf16" in models else "fp16"

    def rung(name, dtype, serve, batch=1, sample=1, **how):
        return Rung(name, partial(serve, models[dtype], **how), dtype, batch, sample)

    def batched(name, serve, seats):
        return rung(name, "fp32", serve, batch=seats, slots=seats)

    engine = partial(
        rung, serve=partial(workload.continuous, slots=slots, prefix=True), batch=slots
    )
    return [
        Rung("KV cache", partial(workload.one_by_one, plain), sample=sample),
        rung("packed weights", "fp32", workload.one_by_one, sample=sample, captured=False),
        rung("one call a step", "fp32", workload.one_by_one, sample=sample),
        batched("static batch of 8", workload.static, min(slots, 8)),
        batched("continuous, 16 slots", workload.continuous, min(slots, 16)),
        batched(f"{slots} slots", workload.continuous, slots),
        engine("prefix reuse", "fp32"),
        engine("prompt lookup", "fp32", speculative="ngram"),
        engine("16-bit weights", half, speculative="ngram"),
        engine("8 bits", "w8a8", speculative="ngram"),
        engine("8 bits, 4 guesses in every step", "w8a8", speculative="ngram", drafts=4),
    ]


def rungs_of_one(plain, models: dict, timings: int) -> list:
    """All that serve one user at a time. timings: of a forward, to choose what lookup runs on."""
    from labkit_labs.ch12_speculation import watch
    from labkit_labs.ch14_ladder.rungs import Rung
    from labkit_labs.common import workload

    half = "bf16" if "bf16" in models else "fp16"
    # what checks several tokens fastest
    seconds = {dtype: watch.prices(models[dtype], timings)[16] for dtype in (half, "int8")}
    several = min(seconds, key=seconds.get)

    def alone(name, dtype, **how):
        return Rung(name, partial(workload.one_by_one, models[dtype], **how), dtype)

    def engine(name, dtype, **how):
        serve = partial(workload.continuous, models[dtype], slots=1, prefix=True, **how)
        return Rung(name, serve, dtype)

    return [
        Rung("KV cache", partial(workload.one_by_one, plain)),
        alone("packed weights", "fp32", captured=False),
        alone("one call a step", "fp32"),
        alone("16-bit weights", half),
        alone("int8 weights", "int8"),
        engine("prefix reuse", several),
        engine("prompt lookup", several, speculative="ngram"),
    ]


def run(
    device,
    *,
    requests,
    part,
    new,
    slots,
    alone,
    characters,
    copied,
    judged,
    timings,
    points,
    repeats,
    ends=0,
):
    """A row for each rung of three ladders: many users, one user, one user who has texts copied.

    requests: of the workload; part: first and last token kept of their prompts; new: tokens of a
    reply, None = each its own. slots: of the engine. alone: requests that one user has. characters,
    copied: see `copies`. judged: tokens of each text that quality is measured on. timings: see
    `rungs_of_one`. points: lengths that the naive loop is run at. repeats: rounds. ends: 1 = the
    naive loop and the top rungs only.
    """
    from labkit.weights import smollm2
    from labkit_labs.ch14_ladder import rungs
    from labkit_labs.common.workload import Job, jobs

    work = [Job(job.prompt[slice(*part)], new or job.new) for job in jobs()[:requests]]
    plain, tokenizer = smollm2("fp32", device, packed=False)
    models = variants(tokenizer, device)
    qualities = {dtype: rungs.quality(m, tokenizer, judged) for dtype, m in models.items()}
    sample = max(1, len(work) // 12)
    many = rungs_of(plain, models, slots, sample)
    one = rungs_of_one(plain, models, timings)
    compared = 1
    if ends:  # 10 minutes instead of 40
        many = many[-4:-1]
        one = one[-1:]
        compared = sample
    copying = copies(models["fp32"], tokenizer, characters, copied)
    climb = partial(rungs.climb, plain, qualities=qualities, points=points, repeats=repeats)
    return [
        *climb("throughput", work, many, compared=compared),
        *climb("one user", work[:alone], one),
        *climb("one user, copy-editing", copying, one),
    ]


def go(rows):
    wrong = [r["rung"] for r in rows if r["dtype"] == "fp32" and r["agreement"] < 1]
    if wrong:
        return (
            f"{', '.join(wrong)} should write the very tokens of the naive loop, and does not:"
            " compare their logits first"
        )


def plot(rows):
    rungs = {r["rung"]: r["multiple"] for r in where(rows, ladder="throughput")}
    return plotting.bars(
        rungs,
        x_label="times naive",
        form="{:,.0f}",
        highlight=max(rungs, key=rungs.get),
        alt="Throughput as a multiple of the naive loop: "
        + ", ".join(f"{rung} {multiple:.0f}" for rung, multiple in rungs.items()),
    )


def notice(rows):
    many = where(rows, ladder="throughput")
    highest = max(many, key=lambda r: r["multiple"])
    largest = sorted(many, key=lambda r: r["step"], reverse=True)[:4]
    steps = [f"{r['rung']} ({r['step']:.2f} times the rung below)" for r in largest]
    exact = min(r["agreement"] for r in where(rows, dtype="fp32"))
    measured = only(many, rung="8 bits")
    always = only(many, rung="8 bits, 4 guesses in every step")

    def step(ladder, rung):
        return f"{only(rows, ladder=ladder, rung=rung)['step']:.2f}"

    return (
        f"Rungs multiply, up to {highest['multiple']:.0f} times the naive loop. The largest are"
        f" {listed(steps)}. Of the tokens in fp32 at least {exact:.1%} are the naive loop's."
        " Guesses from the prompt are worth"
        f" {step('throughput', 'prompt lookup')} times the speed with many users in a step,"
        f" {step('one user', 'prompt lookup')} with one, and"
        f" {step('one user, copy-editing', 'prompt lookup')} where one has texts copied. Four of"
        " them in every step, full or not, make"
        f" {always['tokens_per_second']:,.1f} tokens a second, the engine's own choice"
        f" {measured['tokens_per_second']:,.1f}: times that scatter can mislead it. One user waits"
        " for bytes, and 16-bit weights are worth"
        f" {step('one user', '16-bit weights')} times the speed there; many wait for arithmetic,"
        f" and it is {step('throughput', '16-bit weights')}. A processor without bf16 gets FP16"
        " weights and sums in fp32."
    )


LAB = Lab(
    title="The ladder",
    objective=(
        "Serve 48 requests in twelve ways, from the naive loop to all that the course teaches, and"
        " say what each step is worth."
    ),
    asks="Does every rung in fp32 write what the naive loop writes?",
    notice=notice,
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
    sizes={
        "full": {
            "requests": 48,
            "part": (0, None),
            "new": None,
            "slots": 48,
            "alone": 8,
            "characters": None,
            "copied": 200,
            "judged": 2000,
            "timings": 5,
            "points": 4,
            "repeats": 3,
        },
        "quick": {
            "requests": 4,
            "part": (250, 290),
            "new": 3,
            "slots": 4,
            "alone": 2,
            "characters": 100,
            "copied": 4,
            "judged": 64,
            "timings": 1,
            "points": 2,
            "repeats": 1,
        },
    },
    threads=2,
    go=go,
    plot=plot,
    minutes=40,
)

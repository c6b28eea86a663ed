"""CH14-LADDER: one model, one machine, one workload; every step of the course switched on in turn, and what each is worth."""
from functools import partial

from labkit.cli.lab import Lab, main

COPY = "Correct the spelling of this text and change nothing else:\n\n"


def run(device="cpu", quick=False):
    import torch

    from labkit.quant import quantize, smooth, text
    from labkit.weights import smollm2
    from labkit_labs import ladder, serving

    torch.set_num_threads(2)
    work = [serving.Job(job.prompt[220:290], 6) for job in serving.jobs()[:4]] if quick else serving.jobs()
    rounds, slots = (1, 4) if quick else (3, 48)
    (plain, tokenizer), packed, half = smollm2("fp32", device, packed=False), smollm2("fp32", device)[0], smollm2("bf16", device)[0]
    only = quantize(smollm2("fp32", device, packed=False)[0], "int8")
    eight = smooth(smollm2("fp32", device, packed=False)[0], tokenizer.encode(text("calibration")))  # see CH11-INT8 and CH11-OUTLIERS
    eight = quantize(quantize(eight, "int8", only=("head",), rows=slots), "w8a8", rows=slots)
    models = {"fp32": packed, "bf16": half, "w8a8": eight, "int8": only}
    qualities = {dtype: ladder.quality(model, tokenizer, quick) for dtype, model in models.items()}
    every = max(1, len(work) // 12)
    Rung = ladder.Rung
    rows = ladder.climb("throughput", plain, work, [
        Rung("KV cache", partial(serving.one_by_one, plain), sample=every),
        Rung("packed weights", partial(serving.one_by_one, packed), sample=every),
        Rung("static batch of 8", partial(serving.static, packed, slots=min(slots, 8)), batch=min(slots, 8)),
        Rung("continuous, 16 slots", partial(serving.continuous, packed, slots=min(slots, 16)), batch=min(slots, 16)),
        Rung(f"{slots} slots", partial(serving.continuous, packed, slots=slots), batch=slots),
        Rung("prefix reuse", partial(serving.continuous, packed, slots=slots, prefix=True), batch=slots),
        Rung("bf16", partial(serving.continuous, half, slots=slots, prefix=True), "bf16", slots),
        Rung("int8", partial(serving.continuous, eight, slots=slots, prefix=True), "w8a8", slots),
        Rung("speculation in the batch", partial(serving.continuous, half, slots=slots, prefix=True, speculative="ngram"), "bf16", slots),
    ], qualities, rounds)
    solo = work[: 2 if quick else 8]
    rungs = lambda jobs: [
        Rung("KV cache", partial(serving.one_by_one, plain)),
        Rung("packed weights", partial(serving.one_by_one, packed)),
        Rung("bf16", partial(serving.one_by_one, half), "bf16"),
        Rung("int8 weights", partial(serving.one_by_one, only), "int8"),
        Rung("prompt lookup", partial(serving.continuous, only, slots=1, speculative="ngram"), "int8")]
    rows += ladder.climb("one user", plain, solo, rungs(solo), qualities, rounds)
    words = tokenizer.encode(text("course"))
    passages = [tokenizer.decode(words[at : at + 150]) for at in ((0,) if quick else (0, 400, 800))]
    copies = [serving.Job(tokenizer.chat(COPY + passage), 8 if quick else 120) for passage in passages]
    return rows + ladder.climb("one user, copy-editing", plain, copies, rungs(copies), qualities, rounds)


def go(rows):
    """Does every rung in fp32 write what the naive loop writes?"""
    wrong = [r["rung"] for r in rows if r["dtype"] == "fp32" and r["agreement"] < 1]
    return f"{', '.join(wrong)} should write the very tokens of the naive loop, and does not: compare their logits first" if wrong else None


def plot(rows):
    from labkit import plotting

    rungs = [r for r in rows if r["ladder"] == "throughput"]
    best = max(rungs, key=lambda r: r["multiple"])["rung"]
    return plotting.bars({r["rung"]: r["multiple"] for r in rungs}, x_label="times naive", form="{:,.0f}", highlight=best,
                         alt="Throughput as a multiple of the naive loop: " + ", ".join(f"{r['rung']} {r['multiple']:.0f}" for r in rungs))


LAB = Lab(
    id="CH14-LADDER", chapter="14", title="The ladder", minutes=25,
    objective="Serve 48 requests in ten ways, from the naive loop to all that the course teaches, and say what each step is worth.",
    needs="CH4B-LAB-09",
    notice="Rungs multiply, and most of the height is won by sharing one reading of the weights. In fp32 the tokens stay the same. What helps one "
           "user (fewer bytes, guesses) is not what helps fifty (more of them in a step): speculation gains alone and loses in the batch.",
    columns={"ladder": "ladder", "rung": "rung", "dtype": "dtype", "tokens_per_second": "tokens/s|,.1f",
             "multiple": "times naive|,.1f", "step": "times below|.2f",
             "bytes_per_token": "bytes a token|,.0f", "agreement": "same tokens|.1%",
             "perplexity_course": "perplexity, course|.2f", "perplexity_milton": "Milton|.2f"},
    run=run, plot=plot, go=go)

if __name__ == "__main__":
    main(LAB)

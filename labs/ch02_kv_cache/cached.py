"""CH02-CACHED: generate with a cache on the real model; tokens per second, and where the memory
goes.
"""

from functools import partial

from labkit import bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import progress
from labkit_labs.ch02_kv_cache.memory import growth


def generation(prompt: list[int], new: int, device: str):
    """A function that generates, on a model that is loaded and warm."""
    from labkit.weights import smollm2

    model, _ = smollm2("fp32", device)
    bench.time_decode(model, [prompt[:8]], 2)
    return partial(bench.time_decode, model, [prompt], new)


def run(device, *, contexts, new, repeats):
    """A row for each number of tokens in the prompt. new: tokens generated. repeats: rounds."""
    from labkit.weights import smollm2

    model, tokenizer = smollm2("fp32", device)
    config = model.config
    ceilings = bench.hardware("fp32", device)
    prompts = {context: bench.prompt(tokenizer, context) for context in contexts}

    def generate(context, new=new):
        return partial(bench.time_decode, model, [prompts[context]], new)

    runs = bench.rounds(
        {context: generate(context) for context in contexts},
        repeats=repeats,
        warmup={contexts[0]: generate(contexts[0], new=4)},
        label="rounds",
    )
    grown = {
        context: growth(generation, prompt, new, device)
        for context, prompt in progress(prompts.items(), "memory")
    }
    rows = []
    for context, times in runs.items():
        middle = context + new // 2
        decode = bench.summarise(
            [seconds for t in times for seconds in t.each],
            flops=formulas.decode_flops(config, middle),
            bytes=formulas.decode_bytes(config, middle, 1, "fp32"),
            hardware=ceilings,
        )
        prefill = bench.summarise(
            [t.first for t in times],
            flops=formulas.prefill_flops(config, context),
            bytes=formulas.weight_bytes(config, "fp32"),
            hardware=ceilings,
        )
        rows.append(
            decode.to_row(
                context=context,
                new=new,
                prefill_seconds=prefill.median,
                tokens_per_second=1 / decode.median,
                prefill_tokens_per_second=context / prefill.median,
                prefill_mfu=prefill.mfu,
                prefill_mbu=prefill.mbu,
                cache_bytes=formulas.kv_cache_bytes(config, context + new, 1, "fp32"),
                activation_bytes=round(formulas.activation_bytes(config, context, "fp32")),
                grown_bytes=grown[context],
            )
        )
    return rows


def go(rows):
    for r in rows:
        if r["prefill_tokens_per_second"] <= r["tokens_per_second"]:
            return (
                f"at {r['context']:,} tokens prefill is no faster per token than decode: look"
                " whether the prompt is fed in one step"
            )


def plot(rows):
    contexts = [r["context"] for r in rows]
    milliseconds = [1e3 * r["median"] for r in rows]
    return plotting.lines(
        contexts,
        {"a decoded token": milliseconds},
        x_label="tokens of context",
        y_label="milliseconds",
        alt="Milliseconds per decoded token by context: "
        + ", ".join(f"{ms:.1f} at {context:,}" for context, ms in zip(contexts, milliseconds)),
    )


def notice(rows):
    short = rows[0]
    long = rows[-1]
    return (
        f"Every step reads the whole cache: a token takes {long['median'] / short['median']:.2f}"
        f" times as long at {long['context']:,} tokens as at {short['context']:,}. Prefill does"
        " many tokens for one reading of the weights: there, it takes"
        f" {long['prefill_tokens_per_second'] / long['tokens_per_second']:.0f} times as many a"
        f" second. Memory grew by {long['grown_bytes'] / 1e6:,.1f} MB, where the cache takes"
        f" {long['cache_bytes'] / 1e6:,.1f} MB and a prompt's activations"
        f" {long['activation_bytes'] / 1e6:,.1f} MB: were the cache copied, it would be in there"
        " twice. Watched is the process: what lies in a GPU's own memory is not in it."
    )


LAB = Lab(
    title="Cached generation: speed and memory",
    objective=(
        "Generate with a cache on SmolLM2-135M; record tokens per second for prefill and decode,"
        " and what the memory grows by."
    ),
    asks="Does prefill take more tokens a second than decode?",
    notice=notice,
    columns={
        "context": "context",
        "prefill_tokens_per_second": "prefill tokens/s|,.0f",
        "prefill_mfu": "prefill MFU|.0%",
        "median": "s per token|.4f",
        "tokens_per_second": "tokens/s|.1f",
        "mfu": "MFU|.0%",
        "mbu": "MBU|.0%",
        "cache_bytes": "cache bytes|,",
        "activation_bytes": "activations|,",
        "grown_bytes": "memory grew|,",
    },
    run=run,
    sizes={
        "full": {"contexts": [64, 300, 1024, 2048], "new": 32, "repeats": 3},
        "quick": {"contexts": [32, 128], "new": 4, "repeats": 1},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=2,
)

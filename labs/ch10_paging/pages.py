"""CH10-PAGES: what a reservation wastes, what blocks waste, and what a step pays for memory that
lies in pieces.
"""

import statistics

from labkit.lab import Lab, Recorded

SLOTS, BLOCK_SIZES = 16, (1, 4, 16, 64, 256)


def memory(work, config):
    """A row per way to set memory aside, in bytes of an fp32 cache: the same schedule for all."""
    from labkit import formulas
    from labkit_labs.ch10_paging import paging as pages

    bytes_of = lambda tokens: formulas.kv_cache_bytes(config, tokens, 1, "fp32")
    longest = max(len(job.prompt) + job.new for job in work)
    ways = {
        f"a row each, {capacity:,} tokens": [
            (SLOTS * capacity, held, SLOTS) for _, held, _ in pages.occupancy(work, SLOTS, 1)
        ]
        for capacity in (config.max_context, longest)
    }
    ways |= {f"blocks of {size}": list(pages.occupancy(work, SLOTS, size)) for size in BLOCK_SIZES}
    ways["blocks of 16, prefix shared"] = list(pages.occupancy(work, SLOTS, 16, prefix=True))
    return [
        {
            "what": "memory",
            "way": way,
            "reserved_bytes": bytes_of(max(room for room, _, _ in steps)),
            "in_use": statistics.mean(held / room for room, held, _ in steps),
            "steps": len(steps),
            "requests_in_gib": (
                2**30 // bytes_of(round(statistics.mean(room / rows for room, _, rows in steps)))
            ),
        }
        for way, steps in ways.items()
    ]


def speed(model, prompts, new: int, rounds: int):
    """A row for the static cache and one for blocks of 16: the same requests in as many slots, in
    turn.
    """
    from labkit import bench
    from labkit.tables import progress
    from labkit_labs.ch10_paging import paging as pages

    ways = {"static cache": bench.time_decode, "engine, blocks of 16": pages.time_engine}
    times = {way: [] for way in ways}
    for i in progress(range(-1, rounds), "rounds"):
        for way, serve in ways.items():
            taken = serve(model, prompts, new if i >= 0 else 2)  # warm up first
            times[way] += [taken] if i >= 0 else []
    total = {
        way: bench.summarise([t.first + sum(t.each) for t in runs]) for way, runs in times.items()
    }
    step = {way: statistics.median(s for t in runs for s in t.each) for way, runs in times.items()}
    return [
        total[way].to_row(
            what="speed",
            way=way,
            tokens_per_second=new * len(prompts) / total[way].median,
            decode_step=step[way],
            multiple=bench.multiple(total["static cache"], total[way]),
            decode_multiple=step["static cache"] / step[way],
            same_tokens=runs[0].tokens == times["static cache"][0].tokens,
        )
        for way, runs in times.items()
    ]


def run(device="cpu", quick=False):
    import torch

    from labkit.weights import smollm2
    from labkit_labs.common import workload as serving

    torch.set_num_threads(1)
    work = serving.jobs()
    model, tokenizer = smollm2("fp32", device)
    prompts = [job.prompt[-60:] for job in work[:3]] if quick else [job.prompt for job in work[:8]]
    rows = memory(work, model.config) + speed(model, prompts, *((6, 1) if quick else (32, 5)))
    return Recorded(rows, blocks_prefix=shared_blocks(model, tokenizer))


def shared_blocks(model, tokenizer):
    """The blocks of a short run, recorded: three requests begin alike, the second ends there (copy
    on write), the fourth is another text.
    """
    from dataclasses import replace

    from labkit import Engine

    beginning = tokenizer.encode("A block holds the keys and values of a few tokens.")[:8]
    prompts = [
        beginning,
        beginning,
        beginning + tokenizer.encode(" Others share them."),
        tokenizer.encode("Who else reads this?"),
    ]
    engine = Engine(model, max_batch=3, n_blocks=12, block_size=4)
    for prompt in prompts:
        engine.add(prompt, 7, stop=())
        engine.step()
    engine.run()
    trace = engine.trace("blocks")
    words = [[tokenizer.decode([t]) for t in prompt] for prompt in prompts]
    return replace(trace, meta=trace.meta | {"prompts": words})


def go(rows):
    used = next(r["in_use"] for r in rows if r["way"] == "blocks of 16")
    if used < 0.9:
        return (
            f"only {used:.0%} of the blocks' memory holds tokens, where 90% and more is usual: look"
            " for blocks that are reserved too early"
        )
    for r in rows:
        if r["what"] == "speed" and not r["same_tokens"]:
            return (
                f"{r['way']} writes other tokens than the static cache: look at the block table,"
                " which sends a token to a wrong slot"
            )
        if r["what"] == "speed" and r["n"] > 1 and r["multiple"] < 0.9:
            return (
                f"{r['way']} has {r['multiple']:.2f} times the static cache's speed, where 0.9 and"
                " more is usual: look for a copy of the cache"
            )


def plot(rows):
    from labkit import plotting

    used = {
        r["way"]: 100 * r["in_use"]
        for r in rows
        if r["what"] == "memory" and "prefix" not in r["way"]
    }
    return plotting.bars(
        used,
        x_label="% of the reserved memory that holds tokens",
        form="{:.1f}",
        highlight="blocks of 16",
        alt="Share of reserved memory in use: "
        + ", ".join(f"{way} {share:.0f}%" for way, share in used.items()),
    )


LAB = Lab(
    asks="Do blocks of 16 waste less than a tenth, give the same tokens, and cost no speed?",
    title="What a reservation wastes",
    minutes=3,
    objective=(
        "Count the memory that static rows and blocks of several sizes set aside for 48 requests,"
        " how much of it holds tokens, and measure what blocks cost in speed."
    ),
    notice=(
        "A row for the longest context the model allows is 2% full, a row for the longest text of"
        " the day a third. Blocks waste only the end of each request's last block: of 16 tokens 2%,"
        " and smaller ones win little more. A beginning that all share, kept once, saves more than"
        " any block size. The tokens are the same."
    ),
    columns={
        "what": "what",
        "way": "memory set aside as",
        "reserved_bytes": "bytes at most|,",
        "in_use": "in use|.1%",
        "requests_in_gib": "requests in 1 GiB|,",
        "tokens_per_second": "tokens/s|.1f",
        "decode_step": "s per decode step|.4f",
        "multiple": "x static|.2f",
        "decode_multiple": "x static, decode|.2f",
        "same_tokens": "same tokens",
    },
    run=run,
    plot=plot,
    go=go,
)

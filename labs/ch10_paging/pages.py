"""CH10-PAGES: what a reservation wastes, what blocks waste, and what a step pays for memory that
lies in pieces.
"""

import statistics
from dataclasses import replace
from functools import partial

from labkit import bench, formulas, plotting
from labkit.lab import Lab, Recorded
from labkit.tables import only, where

SLOTS = 16
BLOCK_SIZES = (1, 4, 16, 64, 256)


def memory(work, config):
    """A row per way to set memory aside, in bytes of an fp32 cache: the same schedule for all."""
    from labkit_labs.ch10_paging import paging

    def bytes_of(tokens) -> int:
        return formulas.kv_cache_bytes(config, tokens, 1, "fp32")

    # of each step: tokens there is room for, tokens held, requests
    tokens = list(paging.occupancy(work, SLOTS, 1))
    longest = max(len(job.prompt) + job.new for job in work)
    ways = {
        f"a row each, {capacity:,} tokens": [
            (SLOTS * capacity, held, SLOTS) for _, held, _ in tokens
        ]
        for capacity in (config.max_context, longest)
    }
    for size in BLOCK_SIZES:
        ways[f"blocks of {size}"] = list(paging.occupancy(work, SLOTS, size))
    ways["blocks of 16, prefix shared"] = list(paging.occupancy(work, SLOTS, 16, prefix=True))
    rows = []
    for way, steps in ways.items():
        a_request = round(statistics.mean(room / requests for room, _, requests in steps))
        rows.append(
            {
                "what": "memory",
                "way": way,
                "reserved_bytes": bytes_of(max(room for room, _, _ in steps)),
                "in_use": statistics.mean(held / room for room, held, _ in steps),
                "steps": len(steps),
                "requests_in_gib": 2**30 // bytes_of(a_request),
            }
        )
    return rows


def speed(model, prompts, new: int, repeats: int):
    """A row for the static cache and one for blocks of 16: the same requests in as many slots, in
    turn.
    """
    from labkit_labs.ch10_paging import paging

    ways = {"static cache": bench.time_decode, "engine, blocks of 16": paging.time_engine}

    def loops(new):
        return {way: partial(serve, model, prompts, new) for way, serve in ways.items()}

    runs = bench.rounds(loops(new), repeats=repeats, warmup=loops(2), label="rounds")
    total = {way: bench.summarise([t.seconds for t in times]) for way, times in runs.items()}
    step = {
        way: statistics.median(seconds for t in times for seconds in t.each)
        for way, times in runs.items()
    }
    return [
        m.to_row(
            what="speed",
            way=way,
            tokens_per_second=new * len(prompts) / m.median,
            decode_step=step[way],
            multiple=bench.multiple(total["static cache"], m),
            decode_multiple=step["static cache"] / step[way],
            same_tokens=runs[way][0].tokens == runs["static cache"][0].tokens,
        )
        for way, m in total.items()
    ]


def run(device, *, requests, longest, new, repeats):
    """Rows of memory, and of speed.

    requests: that are timed. longest: tokens kept of their prompts, the last ones. new: tokens of a
    reply.
    """
    from labkit.weights import smollm2
    from labkit_labs.common import workload

    work = workload.jobs()
    model, tokenizer = smollm2("fp32", device)
    prompts = [job.prompt[-longest:] for job in work[:requests]]
    rows = memory(work, model.config) + speed(model, prompts, new, repeats)
    return Recorded(rows, blocks_prefix=shared_blocks(model, tokenizer))


def shared_blocks(model, tokenizer):
    """The blocks of a short run, recorded: the second request is the first one's text and must
    write into a shared block (copy on write), the third is another text, and the fourth begins like
    the first two. Memory is so small that the third is preempted, and that a kept block is evicted.
    """
    from labkit import Engine

    beginning = tokenizer.encode("A block holds the keys and values of a few tokens.")[:8]
    asked = [
        (beginning, 5),
        (beginning, 6),
        (tokenizer.encode("Who else reads this text?"), 10),
        (beginning + tokenizer.encode(" Others share them."), 5),
    ]
    engine = Engine(model, max_batch=3, n_blocks=8, block_size=4)
    for prompt, new in asked:
        engine.add(prompt, new, stop=())
        engine.step()
    engine.run()
    trace = engine.trace("blocks")
    words = [[tokenizer.decode([t]) for t in prompt] for prompt, _ in asked]
    return replace(trace, meta=trace.meta | {"prompts": words})


def go(rows):
    used = only(rows, way="blocks of 16")["in_use"]
    if used < 0.9:
        return (
            f"only {used:.0%} of the blocks' memory holds tokens, where 90% and more is usual: look"
            " for blocks that are reserved too early"
        )
    for r in where(rows, what="speed"):
        if not r["same_tokens"]:
            return (
                f"{r['way']} writes other tokens than the static cache: look at the block table,"
                " which sends a token to a wrong slot"
            )
        # one round says nothing about speed
        if r["n"] > 1 and r["multiple"] < 0.9:
            return (
                f"{r['way']} has {r['multiple']:.2f} times the static cache's speed, where 0.9 and"
                " more is usual: look for a copy of the cache"
            )


def plot(rows):
    used = {
        r["way"]: 100 * r["in_use"] for r in where(rows, what="memory") if "prefix" not in r["way"]
    }
    return plotting.bars(
        used,
        x_label="% of the reserved memory that holds tokens",
        form="{:.1f}",
        highlight="blocks of 16",
        alt="Share of reserved memory in use: "
        + ", ".join(f"{way} {share:.0f}%" for way, share in used.items()),
    )


def notice(rows):
    context, longest = (r for r in where(rows, what="memory") if r["way"].startswith("a row each"))
    single, small, blocks = (only(rows, way=f"blocks of {size}") for size in (1, 4, 16))
    shared = only(rows, way="blocks of 16, prefix shared")
    engine = only(rows, way="engine, blocks of 16")
    return (
        f"A row for the longest context the model allows is {context['in_use']:.1%} full, a row for"
        f" the longest text of the day {longest['in_use']:.1%}. Blocks waste only the end of each"
        f" request's last block: blocks of 16 tokens are {blocks['in_use']:.1%} full, blocks of 4"
        f" {small['in_use']:.1%}. A beginning that all share, kept once, takes"
        f" {shared['reserved_bytes'] / 1e6:,.1f} MB at most; without sharing blocks of 16 take"
        f" {blocks['reserved_bytes'] / 1e6:,.1f} MB, and blocks of 1"
        f" {single['reserved_bytes'] / 1e6:,.1f} MB. The engine with its blocks has"
        f" {engine['multiple']:.2f} times the speed of the static cache."
    )


LAB = Lab(
    title="What a reservation wastes",
    objective=(
        "Count the memory that static rows and blocks of several sizes set aside for 48 requests,"
        " how much of it holds tokens, and measure what blocks cost in speed."
    ),
    asks="Do blocks of 16 waste less than a tenth, give the same tokens, and cost no speed?",
    notice=notice,
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
    sizes={
        "full": {"requests": 8, "longest": 1024, "new": 32, "repeats": 5},
        "quick": {"requests": 3, "longest": 60, "new": 6, "repeats": 1},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=3,
)

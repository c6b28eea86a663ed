"""CH10-DRILLS: incidents on the real engine, each with one fault.

Find it from the numbers before you read its name.
"""

import statistics
from functools import partial

from labkit import bench, plotting
from labkit.lab import Lab
from labkit.tables import listed, only

SHARED = 256  # tokens that all prompts of the workload begin with


def cases(tokenizer, vocab: int, *, requests, shared, own, new, long, few, setup):
    """The drills of this lab: the ladder's first requests, and a long text of somebody else.

    shared, own: tokens kept of what prompts begin with, and of what follows. new: of a reply. long:
    tokens of the long text. few: blocks that are too few. setup: of a healthy engine.
    """
    from labkit_labs.ch10_paging import incidents
    from labkit_labs.common import corpus
    from labkit_labs.common.workload import Job, jobs

    work = [Job(job.prompt[SHARED - shared :][: shared + own], new) for job in jobs()[:requests]]

    def clock(i: int) -> list[int]:
        return tokenizer.encode(f"It is 14:03:{i:02}. ")

    text = Job(corpus.prose(tokenizer, long), new)
    return incidents.drills(work, text, clock, setup, few, vocab)


def run(device, *, repeats, **sizes):
    """A row for each drill: what a dashboard shows, medians of its seconds, and what the counts
    say. sizes: see `cases`.
    """
    from labkit.weights import smollm2
    from labkit_labs.ch10_paging import incidents

    model, tokenizer = smollm2("fp32", device)
    drills = cases(tokenizer, model.config.vocab_size, **sizes)
    played = bench.rounds(
        {drill.name: partial(incidents.play, model, drill) for drill in drills},
        repeats=repeats,
        warmup=0,
        label="rounds",
    )
    rows = []
    for each in played.values():
        row = each[0] | {key: statistics.median(r[key] for r in each) for key in incidents.TIMES}
        healthy = rows[0] if rows else row
        rows.append(
            row
            | {
                "n": len(each),
                "multiple": row["tokens_per_second"] / healthy["tokens_per_second"],
                "found": incidents.symptoms(row, healthy),
            }
        )
    return rows


def go(rows):
    for r in rows:
        if r["cause"] and r["found"] != r["cause"]:
            return (
                f"{r['run']}: the cause is {r['cause']}, and the counts speak for {r['found']}:"
                " compare this row with the healthy one"
            )


def plot(rows):
    speed = {r["run"]: r["tokens_per_second"] for r in rows}
    return plotting.bars(
        speed,
        x_label="tokens a second",
        form="{:,.0f}",
        highlight="healthy",
        alt="Tokens a second in each drill: "
        + ", ".join(f"{name} {value:.0f}" for name, value in speed.items()),
    )


def notice(rows):
    healthy, unfound, small, whole, refused = (
        only(rows, cause=cause)
        for cause in (
            "healthy",
            "prefix not found",
            "pool too small",
            "prefill not chunked",
            "drafts refused",
        )
    )
    switched = only(rows, cause=None)
    counts = [
        f"a prefix that is never found in a hit rate of {unfound['hit_rate']:.0%} beside"
        f" {healthy['hit_rate']:.0%}",
        f"a small pool in {small['preemptions']} preemptions",
        f"a prompt fed whole in a step of {whole['longest_step']:,} tokens that decodes had to wait"
        f" for, beside {healthy['longest_step']:,}",
        f"refused drafts in {refused['accepted']} accepted of {refused['drafts']:,}",
    ]
    return (
        f"Seconds say that something is wrong, counts say what: {listed(counts)}. Averages can hide"
        f" the long step: with it the engine makes {whole['multiple']:.2f} times the healthy one's"
        f" tokens a second, and somebody hears nothing for {whole['longest_gap']:.2f} s. An engine"
        f" that measures its drafts made {switched['drafts']:,} of the wrong ones."
    )


LAB = Lab(
    title="Incident drills",
    objective=(
        "Serve the same requests with one fault at a time, and find the fault from what a dashboard"
        " shows."
    ),
    asks="Do the counts alone name every fault, and none in the healthy run?",
    notice=notice,
    columns={
        "run": "run",
        "tokens_per_second": "tokens/s|.1f",
        "multiple": "x healthy|.2f",
        "ttft_p50": "TTFT p50, s|.2f",
        "ttft_p99": "p99|.2f",
        "tpot_p50": "TPOT p50, s|.3f",
        "tpot_p99": "p99|.3f",
        "longest_gap": "longest gap, s|.2f",
        "hit_rate": "prefix hits|.0%",
        "blocks_used": "blocks at most",
        "blocks_total": "of",
        "preemptions": "preempted",
        "longest_step": "longest step",
        "drafts": "drafts",
        "accepted": "accepted",
        "found": "the counts say",
        "cause": "cause",
    },
    run=run,
    sizes={
        "full": {
            "repeats": 3,
            "requests": 12,
            "shared": 256,
            "own": 120,
            "new": 32,
            "long": 1500,
            "few": 140,
            "setup": {"max_batch": 8, "n_blocks": 400, "block_size": 16, "token_budget": 128},
        },
        "quick": {
            "repeats": 1,
            "requests": 4,
            "shared": 32,
            "own": 12,
            "new": 8,
            "long": 64,
            "few": 33,
            "setup": {"max_batch": 4, "n_blocks": 400, "block_size": 4, "token_budget": 24},
        },
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=8,
)

"""CH10-DRILLS: incidents on the real engine, each with one fault.

Find it from the numbers before you read its name.
"""

import statistics

from labkit.lab import Lab


def cases(tokenizer, vocab: int, quick: bool):
    """The drills of this lab: the ladder's first requests, and a long text of somebody else."""
    from labkit_labs.ch10_paging import incidents as drills
    from labkit_labs.common import corpus as text
    from labkit_labs.common import workload as serving

    beginning, own, new, long, n, pool = (
        (32, 12, 8, 64, 4, 33) if quick else (256, 120, 32, 1500, 12, 140)
    )
    work = [
        serving.Job(job.prompt[256 - beginning :][: beginning + own], new)
        for job in serving.jobs()[:n]
    ]
    setup = {
        "max_batch": 4 if quick else 8,
        "n_blocks": 400,
        "block_size": 4 if quick else 16,
        "token_budget": 24 if quick else 128,
    }
    clock = lambda i: tokenizer.encode(f"It is 14:03:{i:02}. ")
    return drills.drills(
        work, serving.Job(text.prose(tokenizer, long), new), clock, setup, pool, vocab
    )


def run(device="cpu", quick=False):
    import torch

    from labkit.tables import progress
    from labkit.weights import smollm2
    from labkit_labs.ch10_paging import incidents as drills

    torch.set_num_threads(1)
    model, tokenizer = smollm2("fp32", device)
    these, played = cases(tokenizer, model.config.vocab_size, quick), []
    for _ in progress(range(1 if quick else 3), "rounds"):
        played.append([drills.play(model, drill) for drill in these])
    rows = []
    for each in zip(*played):
        row = each[0] | {key: statistics.median(r[key] for r in each) for key in drills.TIMES}
        healthy = rows[0] if rows else row
        rows.append(
            row
            | {
                "n": len(each),
                "multiple": row["tokens_per_second"] / healthy["tokens_per_second"],
                "found": drills.symptoms(row, healthy),
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
    from labkit import plotting

    speed = {r["run"]: r["tokens_per_second"] for r in rows}
    return plotting.bars(
        speed,
        x_label="tokens a second",
        form="{:,.0f}",
        highlight="healthy",
        alt="Tokens a second in each drill: "
        + ", ".join(f"{name} {value:.0f}" for name, value in speed.items()),
    )


LAB = Lab(
    asks="Do the counts alone name every fault, and none in the healthy run?",
    title="Incident drills",
    minutes=8,
    objective=(
        "Serve the same requests with one fault at a time, and find the fault from what a dashboard"
        " shows."
    ),
    notice=(
        "Seconds say that something is wrong, counts say what. A prefix that is never found shows"
        " in the hit rate, a small pool in preemptions, a prompt fed whole in the longest step that"
        " decodes had to wait for, refused drafts in drafts beside accepted ones. Averages hide the"
        " long step: tokens a second need not fall. An engine that measures its drafts makes fewer"
        " of the wrong ones."
    ),
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
    plot=plot,
    go=go,
)

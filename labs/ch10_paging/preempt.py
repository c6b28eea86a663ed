"""CH10-PREEMPT: a pool that is too small, and the two ways out: compute a request's keys and values
again, or copy them out and back.
"""

from labkit.lab import Lab

SLOTS, SHARES = 16, (1.0, 0.75, 0.5, 0.3)


def live(model, work, block_size: int):
    """The row of a real engine with half the blocks that its requests ask for, and the trace of one
    with enough.
    """
    from labkit_labs.ch10_paging import paging as pages

    most = sum(-(-(len(job.prompt) + job.new) // block_size) for job in work)
    enough, half = (pages.served(model, work, n, block_size) for n in (most, most // 2))
    return {
        "what": "engine",
        "case": "half of it",
        "n_blocks": most // 2,
        "preemptions": half.stats.preemptions,
        "same_tokens": enough.run() == half.run(),
    }, enough.trace()


def pools(work, cost):
    """A row per size of the pool: the real scheduler, all requests there at once, and steps as long
    as `cost` says.
    """
    from labkit_labs.ch10_paging import paging as pages
    from labkit_labs.common import simulator

    arrivals = [simulator.Arrival(0.0, len(job.prompt) - 256, job.new, shared=256) for job in work]
    most, rows = max(room for room, _, _ in pages.occupancy(work, SLOTS, 16)) // 16, []
    computed = sum(len(job.prompt) + job.new - 1 for job in work)  # tokens that pass the model once
    for share in SHARES:
        fed = []
        count = lambda tokens, context: fed.append(tokens) or cost(tokens, context)  # noqa: B023
        report = simulator.simulate(
            arrivals,
            count,
            max_batch=SLOTS,
            n_blocks=round(share * most),
            token_budget=512,
            prefix_cache=False,
        )
        rows.append(
            report.row(
                what="pool",
                case=f"{share:.0%} of what is asked for",
                n_blocks=round(share * most),
                recomputed=sum(fed) - computed,
            )
        )
    return [r | {"multiple": r["tokens_per_second"] / rows[0]["tokens_per_second"]} for r in rows]


def ways_out(model, words, lengths, repeats: int, device):
    """A row per length: prefill it again, in turn with copying its cache to other memory and back."""
    from labkit import bench
    from labkit_labs.ch10_paging import paging as pages

    rows = []
    for length in lengths:
        swap, moved = pages.swapper(model, length, device)
        ways = {
            "recompute": lambda: bench.time_decode(model, [words[:length]], 1).first,
            "swap": swap,
        }
        times = bench.interleave(ways, warmup=1, repeats=repeats, device=device)
        rows.append(
            times["swap"].to_row(
                what="way out",
                case=f"{length} tokens",
                moved_bytes=moved,
                recompute=times["recompute"].median,
                swap=times["swap"].median,
                multiple=bench.multiple(times["recompute"], times["swap"]),
                even_at=moved / times["recompute"].median,
            )
        )
    return rows


def by_formula(name: str, gpu: str, length: int):
    """The same for a larger model on a named GPU, by formula: prefill at its peak is the least that
    recomputing takes.
    """
    from labkit import formulas, presets
    from labkit_labs.common import gpus

    moved = 2 * formulas.kv_cache_bytes(presets[name], length)
    seconds = (
        formulas.prefill_flops(presets[name], length) / gpus.named(gpu).ceilings.flops_per_second
    )
    return {
        "what": "way out, by formula",
        "case": f"{name} on {gpu}, {length:,} tokens",
        "moved_bytes": moved,
        "recompute": seconds,
        "even_at": moved / seconds,
    }


def run(device="cpu", quick=False):
    import torch

    from labkit.weights import smollm2
    from labkit_labs.common import corpus as text
    from labkit_labs.common import simulator
    from labkit_labs.common import workload as serving

    torch.set_num_threads(1)
    model, tokenizer = smollm2("fp32", device)
    work, words = serving.jobs(), text.prose(tokenizer, 2048)
    short = (
        [serving.Job(job.prompt[-16:], 12) for job in work[:3]]
        if quick
        else [serving.Job(job.prompt, 32) for job in work[:8]]
    )
    row, trace = live(model, short, 4 if quick else 16)
    rows = [*pools(work, simulator.CostModel.fit(trace)), row]
    rows += ways_out(
        model, words, (32, 64) if quick else (64, 256, 1024, 2048), 1 if quick else 5, device
    )
    return rows + [by_formula(name, "H100", 2048) for name in ("llama3-8b", "llama3-70b")]


def go(rows):
    of = {r["case"]: r for r in rows if r["what"] == "pool"}
    enough = of[f"{SHARES[0]:.0%} of what is asked for"]
    least = of[f"{SHARES[-1]:.0%} of what is asked for"]
    if enough["preemptions"] or enough["recomputed"]:
        return (
            f"{enough['n_blocks']} blocks are enough, and yet {enough['preemptions']} requests were"
            " preempted: look who holds blocks too long"
        )
    if not least["recomputed"]:
        return (
            f"with {least['n_blocks']} blocks nothing was computed twice: look whether the pool is"
            " as small as it should be"
        )
    live = next(r for r in rows if r["what"] == "engine")
    if not (live["preemptions"] and live["same_tokens"]):
        return (
            f"the engine preempted {live['preemptions']} times, and its tokens are"
            f" {'the same' if live['same_tokens'] else 'others'}: they must be the same, and it"
            " must have happened"
        )


def plot(rows):
    from labkit import plotting

    again = {f"{r['n_blocks']} blocks": r["recomputed"] for r in rows if r["what"] == "pool"}
    return plotting.bars(
        again,
        x_label="tokens computed again",
        form="{:,.0f}",
        alt="Tokens computed again by size of the pool: "
        + ", ".join(f"{name} {n:,}" for name, n in again.items()),
    )


LAB = Lab(
    asks="Does a small pool preempt, a large one not, and do the tokens stay the same?",
    title="A pool too small",
    minutes=2.5,
    objective=(
        "Shrink the pool of blocks under the same 48 requests, count what is computed twice, and"
        " compare computing again with swapping."
    ),
    notice=(
        "Preemption changes no token: it costs work done twice, and rows that stay empty. Swapping"
        " moves bytes, recomputing multiplies: the last column is the link at which both take as"
        " long, and below it recomputing wins. On a CPU the cache moves within one memory, so"
        " swapping wins by far; a GPU's link to its host comes close to that number, and long texts"
        " in a large model cost more to compute."
    ),
    columns={
        "what": "what",
        "case": "case",
        "n_blocks": "blocks",
        "tokens_per_second": "tokens/s|.1f",
        "rows_per_step": "rows a step|.1f",
        "preemptions": "preempted",
        "recomputed": "computed twice|,",
        "same_tokens": "same tokens",
        "moved_bytes": "bytes moved|,",
        "recompute": "recompute, s|.4f",
        "swap": "swap, s|.5f",
        "multiple": "multiple|.2f",
        "even_at": "even at, bytes/s|,.0f",
    },
    run=run,
    plot=plot,
    go=go,
)

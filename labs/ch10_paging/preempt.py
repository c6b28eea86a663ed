"""CH10-PREEMPT: a pool that is too small, and the two ways out: compute a request's keys and values
again, or copy them out and back.
"""

from functools import partial

from labkit import bench, formulas, plotting, presets
from labkit.lab import Lab
from labkit.tables import listed, only, span, where
from labkit_labs.common import gpus, simulator

SLOTS = 16
SHARED = 256  # tokens that all prompts begin with
SHARES = (1.0, 0.75, 0.5, 0.3)  # of the blocks that are asked for
LARGER = (("llama3-8b", "H100", 2048), ("llama3-70b", "H100", 2048))


def live(model, work, block_size: int):
    """The row of a real engine with half the blocks that its requests ask for, and the trace of one
    with enough.
    """
    from labkit_labs.ch10_paging import paging

    most = sum(-(-(len(job.prompt) + job.new) // block_size) for job in work)
    enough, half = (paging.served(model, work, n, block_size) for n in (most, most // 2))
    row = {
        "what": "engine",
        "case": "half of it",
        "n_blocks": most // 2,
        "preemptions": half.stats.preemptions,
        "same_tokens": enough.run() == half.run(),
    }
    return row, enough.trace()


def pools(work, cost):
    """A row per size of the pool: the real scheduler, all requests there at once, and steps as long
    as `cost` says.
    """
    from labkit_labs.ch10_paging import paging

    arrivals = [
        simulator.Arrival(0.0, len(job.prompt) - SHARED, job.new, shared=SHARED) for job in work
    ]
    most = max(room for room, _, _ in paging.occupancy(work, SLOTS, 16)) // 16
    once = sum(len(job.prompt) + job.new - 1 for job in work)  # tokens that pass the model
    rows = []
    for share in SHARES:
        fed = []
        report = simulator.simulate(
            arrivals,
            partial(noted, fed, cost),
            max_batch=SLOTS,
            n_blocks=round(share * most),
            token_budget=512,
            prefix_cache=False,
        )
        row = report.row(
            what="pool",
            case=f"{share:.0%} of what is asked for",
            n_blocks=round(share * most),
            recomputed=sum(fed) - once,
        )
        enough = rows[0] if rows else row
        rows.append(row | {"multiple": row["tokens_per_second"] / enough["tokens_per_second"]})
    return rows


def noted(fed: list[int], cost, tokens: int, context: int) -> float:
    """What a step costs, and a note of how many tokens it was fed."""
    fed.append(tokens)
    return cost(tokens, context)


def ways_out(model, words, lengths, repeats: int, device):
    """A row per length: prefill it again, in turn with copying its cache out and back."""
    from labkit_labs.ch10_paging import paging

    def recompute(length) -> float:
        return bench.time_decode(model, [words[:length]], 1).first

    rows = []
    for length in lengths:
        swap, moved = paging.swapper(model, length, device)
        ways = {"recompute": partial(recompute, length), "swap": swap}
        times = bench.interleave(ways, warmup=1, repeats=repeats, device=device)
        again = times["recompute"]
        rows.append(
            times["swap"].to_row(
                what="way out",
                case=f"{length} tokens",
                moved_bytes=moved,
                recompute=again.median,
                swap=times["swap"].median,
                multiple=bench.multiple(again, times["swap"]),
                even_at=moved / again.median,
            )
        )
    return rows


def by_formula(name: str, gpu: str, length: int):
    """The same for a larger model on a named GPU, by formula: prefill at its peak is the least that
    recomputing takes.
    """
    config = presets[name]
    moved = 2 * formulas.kv_cache_bytes(config, length)
    peak = gpus.named(gpu).ceilings.flops_per_second
    seconds = formulas.prefill_flops(config, length) / peak
    return {
        "what": "way out, by formula",
        "case": f"{name} on {gpu}, {length:,} tokens",
        "moved_bytes": moved,
        "recompute": seconds,
        "even_at": moved / seconds,
    }


def run(device, *, requests, longest, new, block_size, lengths, repeats):
    """Rows of pools, of a real engine, and of the ways out.

    requests, longest, new, block_size: of the engine; its prompts' last tokens are kept. lengths:
    tokens of a request that has to make room.
    """
    from labkit.weights import smollm2
    from labkit_labs.common import corpus
    from labkit_labs.common.workload import Job, jobs

    model, tokenizer = smollm2("fp32", device)
    work = jobs()
    short = [Job(job.prompt[-longest:], new) for job in work[:requests]]
    row, trace = live(model, short, block_size)
    words = corpus.prose(tokenizer, 2048)
    return [
        *pools(work, simulator.CostModel.fit(trace)),
        row,
        *ways_out(model, words, lengths, repeats, device),
        *(by_formula(*larger) for larger in LARGER),
    ]


def pool(rows, share: float) -> dict:
    return only(rows, what="pool", case=f"{share:.0%} of what is asked for")


def go(rows):
    enough = pool(rows, SHARES[0])
    least = pool(rows, SHARES[-1])
    engine = only(rows, what="engine")
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
    if not (engine["preemptions"] and engine["same_tokens"]):
        return (
            f"the engine preempted {engine['preemptions']} times, and its tokens are"
            f" {'the same' if engine['same_tokens'] else 'others'}: they must be the same, and it"
            " must have happened"
        )


def plot(rows):
    again = {f"{r['n_blocks']} blocks": r["recomputed"] for r in where(rows, what="pool")}
    return plotting.bars(
        again,
        x_label="tokens computed again",
        form="{:,.0f}",
        alt="Tokens computed again by size of the pool: "
        + ", ".join(f"{name} {n:,}" for name, n in again.items()),
    )


def notice(rows):
    enough = pool(rows, SHARES[0])
    least = pool(rows, SHARES[-1])
    measured = where(rows, what="way out")
    swaps = [r["multiple"] for r in measured]
    links = [
        f"{r['even_at'] / 1e9:.2f} GB/s ({r['case']})"
        for r in where(rows, what="way out, by formula")
    ]
    return (
        "Preemption changes no token: it costs work done twice, and rows that stay empty. With"
        f" {least['n_blocks']} blocks instead of {enough['n_blocks']}, {least['recomputed']:,}"
        f" tokens are computed twice, a step has {least['rows_per_step']:.1f} rows instead of"
        f" {enough['rows_per_step']:.1f}, and the speed is {least['multiple']:.2f} times that of"
        " enough blocks. Swapping moves bytes, recomputing multiplies: here, computing again takes"
        f" {span(swaps, ',.1f')} times as long as a swap. The last column is the link at which both"
        f" take as long, and below it recomputing wins: {listed(links)}, at the GPU's peak. Compare"
        " that with a GPU's link to its host."
    )


LAB = Lab(
    title="A pool too small",
    objective=(
        "Shrink the pool of blocks under the same 48 requests, count what is computed twice, and"
        " compare computing again with swapping."
    ),
    asks="Does a small pool preempt, a large one not, and do the tokens stay the same?",
    notice=notice,
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
    sizes={
        "full": {
            "requests": 8,
            "longest": 1024,
            "new": 32,
            "block_size": 16,
            "lengths": (64, 256, 1024, 2048),
            "repeats": 5,
        },
        "quick": {
            "requests": 3,
            "longest": 16,
            "new": 12,
            "block_size": 4,
            "lengths": (32, 64),
            "repeats": 1,
        },
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=2.5,
)

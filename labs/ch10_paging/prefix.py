"""CH10-PREFIX: the first token of a prompt whose beginning was computed before, and what the order
of a prompt costs.
"""

import statistics

from labkit.lab import Lab

OWN = 20  # tokens of a request that no other has


def first_token(model, words, length: int, rounds: int):
    """The row of a system prompt of `length` tokens: known, and in turn with one that differs in
    its first token.
    """
    from labkit import bench
    from labkit_labs.ch10_paging import paging as pages

    engine = pages.one_row(model, length + OWN)
    pages.read(engine, [words[:length]])
    seconds = {"cold": [], "warm": []}
    for i in range(rounds + 1):  # the first round warms up
        own = words[length + i * OWN : length + (i + 1) * OWN]
        for name, head in (("cold", 1000 + i), ("warm", words[0])):
            computed, found, taken = pages.read(engine, [[head, *words[1:length], *own]])
            seconds[name] += taken if i else []
    cold, warm = bench.summarise(seconds["cold"]), bench.summarise(seconds["warm"])
    return warm.to_row(
        what="known beginning",
        case=f"{length} tokens",
        prompt_tokens=length + OWN,
        found=found,
        computed=computed,
        ttft=warm.median,
        ttft_without=cold.median,
        multiple=bench.multiple(cold, warm),
    )


def orders(tokenizer, words, stable: int, requests: int):
    """place -> prompts: stable tokens, some of each request's own, and at one place a line that
    gives the time.
    """
    system, own = words[:stable], [words[stable + i * OWN :][:OWN] for i in range(requests)]
    clock = [tokenizer.encode(f"It is 14:03:{i:02}. ") for i in range(requests)]
    return {
        "head": [now + system + mine for now, mine in zip(clock, own)],
        "middle": [
            system[: stable // 2] + now + system[stable // 2 :] + mine
            for now, mine in zip(clock, own)
        ],
        "end": [system + mine + now for now, mine in zip(clock, own)],
    }


def compare(model, what: str, cases: dict, without: list, rounds: int):
    """A row per case: prompts served with reuse, in turn with `without`, which is (prompts, reuse)."""
    from labkit.tables import progress
    from labkit_labs.ch10_paging import paging as pages

    cases = {None: without} | {case: (prompts, True) for case, prompts in cases.items()}
    runs = {case: [] for case in cases}
    for _ in progress(range(rounds), what):
        for case, (prompts, prefix) in cases.items():
            runs[case].append(
                pages.read(pages.one_row(model, max(map(len, prompts)), prefix), prompts)
            )
    ttft = {
        case: statistics.median(s for _, _, taken in each for s in taken[1:])
        for case, each in runs.items()
    }
    return [
        {
            "what": what,
            "case": case,
            "prompt_tokens": computed + found,
            "found": found,
            "computed": computed,
            "ttft": ttft[case],
            "ttft_without": ttft[None],
            "multiple": ttft[None] / ttft[case],
        }
        for case, ((computed, found, _), *_) in runs.items()
        if case
    ]


def run(device="cpu", quick=False):
    import torch

    from labkit.tables import progress
    from labkit.weights import smollm2
    from labkit_labs.ch10_paging import bills as prices
    from labkit_labs.common import corpus as text

    torch.set_num_threads(1)
    model, tokenizer = smollm2("fp32", device)
    words, rounds = text.prose(tokenizer, 1400), 1 if quick else 7
    stable, requests, turns = (64, 2, 3) if quick else (256, 6, 8)
    rows = [
        first_token(model, words, n, rounds)
        for n in progress((64,) if quick else (256, 512, 1024), "beginnings")
    ]
    asked = orders(tokenizer, words, stable, requests)
    rows += compare(model, "time of day at the", asked, (asked["head"], False), min(rounds, 3))
    # each is all that came before and 60 tokens more
    transcripts = [words[: stable + 60 * turn] for turn in range(turns)]
    rows += compare(
        model, "agent", {f"{turns} turns": transcripts}, (transcripts, False), min(rounds, 3)
    )
    lists = prices.published()
    return [
        row
        | {
            f"bill_{name}": prices.input_share(row["computed"], row["found"], price)
            for name, price in lists.items()
        }
        for row in rows
    ]


def go(rows):
    for r in rows:
        if r["what"] == "known beginning" and r["computed"] != OWN:
            return (
                f"{r['computed']} tokens were computed where {OWN} were new: look which block of"
                " the beginning is not found"
            )
    found = {r["case"]: r["found"] for r in rows if r["what"] == "time of day at the"}
    if not 0 == found["head"] < found["middle"] < found["end"]:
        return (
            f"with the time at the head {found['head']}, in the middle {found['middle']}, at the"
            f" end {found['end']} tokens are found: each must be more than the one before, and the"
            " first none"
        )


def pays(rows):
    for r in rows:
        if r["what"] == "known beginning" and r["n"] > 1 and r["multiple"] < 5:
            return (
                f"a known beginning of {r['case']} is worth {r['multiple']:.1f} times, where 5 is"
                " usual: look what else the first token waits for"
            )


def plot(rows):
    from labkit import plotting

    share = {
        f"{r['what']} {r['case']}".replace("agent", "agent,"): (
            100 * r["computed"] / r["prompt_tokens"]
        )
        for r in rows
    }
    return plotting.bars(
        share,
        x_label="% of the prompts' tokens that had to be computed",
        form="{:.0f}",
        highlight="time of day at the end",
        alt="Share of prompt tokens computed: "
        + ", ".join(f"{name} {value:.0f}%" for name, value in share.items()),
    )


LAB = Lab(
    asks=(
        "Is a known beginning found whole, and does a changing head break it? Is the first token"
        " after a known beginning five times as fast?"
    ),
    title="Same prompt, two bills",
    minutes=3,
    objective=(
        "Measure the first token of a prompt whose beginning is known, and count what a changing"
        " line and a growing transcript cost."
    ),
    notice=(
        "A known beginning is not computed again, so the wait is for the request's own tokens: the"
        " longer the beginning, the larger the gain. One changing line at the head loses all of it,"
        " in the middle all after it, at the end nothing. An agent without reuse computes its"
        " transcript anew at every turn. Where writing into the cache has a price, a prompt that"
        " never hits costs more than without a cache."
    ),
    columns={
        "what": "what",
        "case": "case",
        "prompt_tokens": "prompt tokens|,",
        "found": "found|,",
        "computed": "computed|,",
        "ttft": "s to first token|.3f",
        "ttft_without": "without reuse|.3f",
        "multiple": "times as fast|.1f",
        "bill_gpt-5": "input bill, GPT-5|.0%",
        "bill_sonnet-4.5": "Sonnet 4.5|.0%",
        "bill_deepseek-v3": "DeepSeek-V3|.0%",
    },
    run=run,
    plot=plot,
    go=go,
    pays=pays,
)

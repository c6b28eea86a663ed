"""CH10-PREFIX: the first token of a prompt whose beginning was computed before, and what the order
of a prompt costs.
"""

import statistics
from functools import partial
from itertools import count

from labkit import bench, plotting
from labkit.lab import Lab
from labkit.tables import listed, only, progress, span, where
from labkit_labs.ch10_paging import bills

OWN = 20  # tokens of a request that no other has
WITHOUT = "without reuse"


def first_token(model, words, length: int, repeats: int):
    """The row of a system prompt of `length` tokens: known, and in turn with one that differs in
    its first token.
    """
    from labkit_labs.ch10_paging import paging

    engine = paging.one_row(model, length + OWN)
    paging.read(engine, [words[:length]])

    def ask(heads, starts):
        start = next(starts)
        own = words[start : start + OWN]
        return paging.read(engine, [[next(heads), *words[1:length], *own]])

    # in a round both have the same own tokens, which no other round has
    starts = {kind: count(length, OWN) for kind in ("cold", "warm")}
    # a head that was never seen; a head that always was
    heads = {"cold": count(1000), "warm": count(words[0], 0)}
    runs = bench.rounds(
        {kind: partial(ask, heads[kind], starts[kind]) for kind in ("cold", "warm")},
        repeats=repeats,
    )
    cold, warm = (
        bench.summarise([seconds for _, _, (seconds,) in runs[kind]]) for kind in ("cold", "warm")
    )
    computed, found, _ = runs["warm"][-1]
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
    system = words[:stable]
    half = stable // 2
    prompts = {"head": [], "middle": [], "end": []}
    for i in range(requests):
        own = words[stable + i * OWN :][:OWN]
        now = tokenizer.encode(f"It is 14:03:{i:02}. ")
        prompts["head"].append(now + system + own)
        prompts["middle"].append(system[:half] + now + system[half:] + own)
        prompts["end"].append(system + own + now)
    return prompts


def compare(model, what: str, cases: dict, without: list, repeats: int):
    """A row per case: prompts served with reuse, in turn with `without`, which are served without.

    Nothing warms up: of each run the first prompt is left out.
    """
    from labkit_labs.ch10_paging import paging

    def serve(prompts, prefix):
        return paging.read(paging.one_row(model, max(map(len, prompts)), prefix), prompts)

    runs = bench.rounds(
        {WITHOUT: partial(serve, without, False)}
        | {case: partial(serve, prompts, True) for case, prompts in cases.items()},
        repeats=repeats,
        warmup=0,
        label=what,
    )
    ttft = {
        case: statistics.median(s for _, _, seconds in each for s in seconds[1:])
        for case, each in runs.items()
    }
    rows = []
    for case in cases:
        computed, found, _ = runs[case][0]
        rows.append(
            {
                "what": what,
                "case": case,
                "prompt_tokens": computed + found,
                "found": found,
                "computed": computed,
                "ttft": ttft[case],
                "ttft_without": ttft[WITHOUT],
                "multiple": ttft[WITHOUT] / ttft[case],
            }
        )
    return rows


def run(device, *, beginnings, stable, requests, turns, repeats, repeats_cold):
    """A row for each known beginning, for each place of a line that changes, and for an agent, each
    with the bills of its input.

    beginnings: their tokens. stable: tokens that stay. requests: with the time in them. turns: of
    the agent. repeats, repeats_cold: rounds of beginnings, and of the others.
    """
    from labkit.weights import smollm2
    from labkit_labs.common import corpus

    model, tokenizer = smollm2("fp32", device)
    words = corpus.prose(tokenizer, 1400)
    rows = [first_token(model, words, n, repeats) for n in progress(beginnings, "beginnings")]
    asked = orders(tokenizer, words, stable, requests)
    rows += compare(model, "time of day at the", asked, asked["head"], repeats_cold)
    # each is all that came before and 60 tokens more
    transcripts = [words[: stable + 60 * turn] for turn in range(turns)]
    rows += compare(model, "agent", {f"{turns} turns": transcripts}, transcripts, repeats_cold)
    for row in rows:
        for name, price in bills.published().items():
            row[f"bill_{name}"] = bills.input_share(row["computed"], row["found"], price)
    return rows


def go(rows):
    for r in where(rows, what="known beginning"):
        if r["computed"] != OWN:
            return (
                f"{r['computed']} tokens were computed where {OWN} were new: look which block of"
                " the beginning is not found"
            )
    found = {r["case"]: r["found"] for r in where(rows, what="time of day at the")}
    if not 0 == found["head"] < found["middle"] < found["end"]:
        return (
            f"with the time at the head {found['head']}, in the middle {found['middle']}, at the"
            f" end {found['end']} tokens are found: each must be more than the one before, and the"
            " first none"
        )


def pays(rows):
    for r in where(rows, what="known beginning"):
        # one round says nothing about speed
        if r["n"] > 1 and r["multiple"] < 5:
            return (
                f"a known beginning of {r['case']} is worth {r['multiple']:.1f} times, where 5 is"
                " usual: look what else the first token waits for"
            )


def plot(rows):
    share = {}
    for r in rows:
        name = f"{r['what']} {r['case']}".replace("agent", "agent,")
        share[name] = 100 * r["computed"] / r["prompt_tokens"]
    return plotting.bars(
        share,
        x_label="% of the prompts' tokens that had to be computed",
        form="{:.0f}",
        highlight="time of day at the end",
        alt="Share of prompt tokens computed: "
        + ", ".join(f"{name} {value:.0f}%" for name, value in share.items()),
    )


def notice(rows):
    known = where(rows, what="known beginning")
    gains = [f"{r['multiple']:.1f} times as fast after {r['case']}" for r in known]
    agent = only(rows, what="agent")
    places = {r["case"]: r for r in where(rows, what="time of day at the")}
    found = [f"{r['found']:,} at the {place}" for place, r in places.items()]
    never = [value for key, value in places["head"].items() if key.startswith("bill_")]
    return (
        "A known beginning is not computed again, so the wait is for the request's own tokens: the"
        f" first token comes {listed(gains)}. One changing line decides how many of the prompts'"
        f" {places['head']['prompt_tokens']:,} tokens are found:"
        f" {listed(found)}. An agent without reuse computes its transcript anew at every turn;"
        f" with it, {agent['found'] / agent['prompt_tokens']:.0%} is found, and its first tokens"
        f" come {agent['multiple']:.1f} times as fast. Where writing into the cache has a"
        " price, a prompt that never hits costs more than without a cache: by these lists"
        f" {span(never, '.0%')} of it."
    )


LAB = Lab(
    title="Same prompt, two bills",
    objective=(
        "Measure the first token of a prompt whose beginning is known, and count what a changing"
        " line and a growing transcript cost."
    ),
    asks=(
        "Is a known beginning found whole, and does a changing head break it? Is the first token"
        " after a known beginning five times as fast?"
    ),
    notice=notice,
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
    sizes={
        "full": {
            "beginnings": (256, 512, 1024),
            "stable": 256,
            "requests": 6,
            "turns": 8,
            "repeats": 7,
            "repeats_cold": 3,
        },
        "quick": {
            "beginnings": (64,),
            "stable": 64,
            "requests": 2,
            "turns": 3,
            "repeats": 1,
            "repeats_cold": 1,
        },
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=3,
)

"""CH08-FAIR: a rigged benchmark, and the checks that catch it.

Two *identical* models are compared, so a fair result is 1.

Six tricks, all seen in the wild, each make "ours" look faster. What a run did is written down by
the code that ran it, not by who claims something, and six checks read only that. Every check must
fail on the rigged run, and none on the fair one.
"""

import os
from dataclasses import dataclass, replace

from labkit import ModelConfig
from labkit.lab import Lab

MODEL = ModelConfig(1024, 256, 4, 8, 8, 32, 704, 1024)
TRICKS = ("seed", "warm-up", "dtype", "prompt length", "threads", "matched parameters")


@dataclass(frozen=True)
class Setup:
    """How one side is run. The defaults are fair if both sides have them."""

    seed: int = 0  # draws the workload: how many tokens a user asks for
    warmup: int = 1
    dtype: str = "fp32"
    prompt: int = 96
    threads: int = 1
    d_ff: int = MODEL.d_ff


def rig(theirs: Setup, ours: Setup, trick: str) -> tuple[Setup, Setup]:
    """The two setups with one more trick."""
    # one more than can run: they wait for each other
    handicap = {"warm-up": {"warmup": 0}, "threads": {"threads": os.cpu_count() + 1}}
    help = {
        "seed": {"seed": min(range(50), key=asked)},
        "dtype": {"dtype": "bf16"},
        "prompt length": {"prompt": 16},
        "matched parameters": {"d_ff": 64},
    }
    return replace(theirs, **handicap.get(trick, {})), replace(ours, **help.get(trick, {}))


def asked(seed: int) -> int:
    """New tokens that a user asks for: the workload, as a seed draws it."""
    import random

    return random.Random(seed).randint(4, 24)


# what of the record each reads
CHECKS = dict(zip(TRICKS, ("written", "warmup", "dtype", "prompt", "threads", "parameters")))


def check(name: str, theirs: dict, ours: dict) -> str | None:
    """None if the two records agree in what this check reads, or the difference."""
    key = CHECKS[name]
    return None if theirs[key] == ours[key] else f"{key}: theirs {theirs[key]}, ours {ours[key]}"


def contestant(setup: Setup, device: str):
    """(a function that serves the workload, the record of what it really did)."""
    import torch

    import labkit
    from labkit.dtypes import DTYPES

    torch.manual_seed(0)
    model = labkit.GPT(MODEL.replace(d_ff=setup.d_ff)).to(device, DTYPES[setup.dtype]).eval()
    record = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(model.dtype),
        "warmup": 0,
    }

    def serve(timed: bool = True):
        torch.set_num_threads(setup.threads)
        prompt = list(range(setup.prompt))
        reply = labkit.generate(model, [prompt], asked(setup.seed), stop=())[0]
        record.update(
            threads=torch.get_num_threads(),
            prompt=len(prompt),
            written=len(reply),
            warmup=record["warmup"] + (not timed),
        )

    return serve, record


def compare(theirs: Setup, ours: Setup, device: str, rounds: int) -> tuple[float, dict, dict]:
    """How many times faster ours is, and both records.

    In turn, round by round; a side that is not warmed up comes fresh to every round.
    """
    import statistics
    import time

    import torch

    seconds, made, threads = {"theirs": [], "ours": []}, {}, torch.get_num_threads()
    try:
        for _ in range(rounds):
            for side, setup in (("theirs", theirs), ("ours", ours)):
                if side not in made or setup.warmup == 0:
                    made[side] = contestant(setup, device)
                    for _ in range(setup.warmup):
                        made[side][0](timed=False)
                start = time.perf_counter()
                made[side][0]()
                seconds[side].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return (
        statistics.median(seconds["theirs"]) / statistics.median(seconds["ours"]),
        made["theirs"][1],
        made["ours"][1],
    )


def run(device="cpu", quick=False):
    from labkit.tables import progress

    rounds, rigged = 3 if quick else 11, (Setup(), Setup())
    fair_multiple, *fair = compare(*rigged, device, rounds)
    alone = {
        trick: compare(*rig(Setup(), Setup(), trick), device, rounds)[0]
        for trick in progress(TRICKS, "tricks")
    }
    for trick in TRICKS:
        rigged = rig(*rigged, trick)
    multiple, *records = compare(*rigged, device, rounds)
    rows = [
        {
            "run": "fair",
            "multiple": fair_multiple,
            "n": rounds,
            "failed": sum(check(c, *fair) is not None for c in CHECKS),
        }
    ]
    rows += [
        {
            "run": f"one trick: {t}",
            "multiple": alone[t],
            "n": rounds,
            "check": t,
            "on_fair": check(t, *fair) or "pass",
            "on_rigged": check(t, *records) or "pass",
        }
        for t in TRICKS
    ]
    return [
        *rows,
        {
            "run": "all tricks",
            "multiple": multiple,
            "n": rounds,
            "failed": sum(check(c, *records) is not None for c in CHECKS),
        },
    ]


def go(rows):
    for r in rows:
        if r.get("check") and r["on_rigged"] == "pass":
            return (
                f"the check of {r['check']} passes on the rigged run: it can't fail, so mend it"
                " before you trust any comparison"
            )
        if r.get("check") and r["on_fair"] != "pass":
            return (
                f"the check of {r['check']} fails on the fair run ({r['on_fair']}): look at what"
                " the two sides don't share"
            )
    limit = 1.15 if rows[0]["n"] > 10 else 1.6
    if not 1 / limit <= rows[0]["multiple"] <= limit:
        return (
            f"two identical models come out {rows[0]['multiple']:.2f} apart: no multiple below that"
            " means anything on this machine now"
        )


def plot(rows):
    from labkit import plotting

    return plotting.bars(
        {r["run"]: r["multiple"] for r in rows},
        x_label="times faster, for two identical models",
        form="{:.2f}",
        highlight="fair",
        alt="How many times faster the same model looks: "
        + ", ".join(f"{r['run']} {r['multiple']:.2f}" for r in rows),
    )


LAB = Lab(
    asks="Does every check catch its trick, none the fair run, and do equal models come out equal?",
    title="A rigged benchmark, and six checks",
    minutes=0.4,
    objective=(
        "Make a model look several times faster than itself, and catch each trick by a check that"
        " reads what the run really did."
    ),
    notice=(
        "The fair run says how much of a difference is noise on your machine. Some tricks give"
        " nothing here and much elsewhere; together they make a headline. No check asks for"
        " intentions: each reads a record that the run itself wrote. Keep such a record with your"
        " own results."
    ),
    columns={
        "run": "run",
        "multiple": "times faster|.2f",
        "n": "rounds",
        "check": "check",
        "on_fair": "on the fair run",
        "on_rigged": "on the rigged run",
        "failed": "checks failed",
    },
    run=run,
    plot=plot,
    go=go,
)

"""CH08-FAIR: a rigged benchmark, and the checks that catch it.

Two *identical* models are compared, so a fair result is 1.

Six tricks, all seen in the wild, each make "ours" look faster. What a run did is written down by
the code that ran it, not by who claims something, and six checks read only that. Every check must
fail on the rigged run, and none on the fair one.
"""

import os
import random
import statistics
from dataclasses import dataclass, replace

from labkit import ModelConfig, bench, plotting
from labkit.lab import Lab
from labkit.tables import only, progress, span

MODEL = ModelConfig(
    vocab_size=1024,
    d_model=256,
    n_layers=4,
    n_heads=8,
    n_kv_heads=8,
    head_dim=32,
    d_ff=704,
    max_context=1024,
)
CHECKS = {  # a trick -> what of a side's record gives it away
    "seed": "written",
    "warm-up": "warmup",
    "dtype": "dtype",
    "prompt length": "prompt",
    "threads": "threads",
    "matched parameters": "parameters",
}
TRICKS = tuple(CHECKS)


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
    handicap = {
        "warm-up": {"warmup": 0},
        # one more than can run: they wait for each other
        "threads": {"threads": os.cpu_count() + 1},
    }
    boost = {
        "seed": {"seed": min(range(50), key=asked)},
        "dtype": {"dtype": "bf16"},
        "prompt length": {"prompt": 16},
        "matched parameters": {"d_ff": 64},
    }
    return replace(theirs, **handicap.get(trick, {})), replace(ours, **boost.get(trick, {}))


def asked(seed: int) -> int:
    """New tokens that a user asks for: the workload, as a seed draws it."""
    return random.Random(seed).randint(4, 24)


def check(name: str, theirs: dict, ours: dict) -> str | None:
    """None if the two records agree in what this check reads, or the difference."""
    key = CHECKS[name]
    return None if theirs[key] == ours[key] else f"{key}: theirs {theirs[key]}, ours {ours[key]}"


class Side:
    """A model that serves the workload as its setup says, and the record of what it really did."""

    def __init__(self, setup: Setup, device: str):
        import torch

        import labkit
        from labkit.dtypes import DTYPES

        torch.manual_seed(0)
        config = MODEL.replace(d_ff=setup.d_ff)
        self.setup = setup
        self.model = labkit.GPT(config).to(device, DTYPES[setup.dtype]).eval()
        self.record = {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "dtype": str(self.model.dtype),
            "warmup": 0,
        }

    def serve(self) -> None:
        import torch

        import labkit

        torch.set_num_threads(self.setup.threads)
        prompt = list(range(self.setup.prompt))
        reply = labkit.generate(self.model, [prompt], asked(self.setup.seed), stop=())[0]
        self.record["threads"] = torch.get_num_threads()
        self.record["prompt"] = len(prompt)
        self.record["written"] = len(reply)

    def warm_up(self) -> None:
        for _ in range(self.setup.warmup):
            self.serve()
            self.record["warmup"] += 1


def compare(theirs: Setup, ours: Setup, device: str, rounds: int) -> tuple[float, dict, dict]:
    """How many times faster ours is, and both records.

    In turn, round by round; a side that is not warmed up comes fresh to every round.
    """
    import torch

    sides: dict[str, Side] = {}

    def serving(name: str, setup: Setup):
        def seconds() -> float:
            if name not in sides or setup.warmup == 0:
                sides[name] = Side(setup, device)
                sides[name].warm_up()
            return bench.timed(sides[name].serve, device)[0]

        return seconds

    # each side sets its own, and what was set before comes back
    threads = torch.get_num_threads()
    try:
        took = bench.rounds(
            {"theirs": serving("theirs", theirs), "ours": serving("ours", ours)},
            repeats=rounds,
            warmup=0,
            device=device,
        )
    finally:
        torch.set_num_threads(threads)
    multiple = statistics.median(took["theirs"]) / statistics.median(took["ours"])
    return multiple, sides["theirs"].record, sides["ours"].record


def run(device, *, rounds):
    """Rows of the fair run, of each trick alone, and of all together."""
    fair = Setup(), Setup()
    rigged = fair
    for trick in TRICKS:
        rigged = rig(*rigged, trick)
    fair_multiple, *fair_records = compare(*fair, device, rounds)
    alone = {
        trick: compare(*rig(*fair, trick), device, rounds)[0]
        for trick in progress(TRICKS, "tricks")
    }
    multiple, *records = compare(*rigged, device, rounds)

    def whole(name, multiple, records) -> dict:
        failed = sum(check(trick, *records) is not None for trick in TRICKS)
        return {"run": name, "multiple": multiple, "n": rounds, "failed": failed}

    return [
        whole("fair", fair_multiple, fair_records),
        *(
            {
                "run": f"one trick: {trick}",
                "multiple": alone[trick],
                "n": rounds,
                "check": trick,
                "on_fair": check(trick, *fair_records) or "pass",
                "on_rigged": check(trick, *records) or "pass",
            }
            for trick in TRICKS
        ),
        whole("all tricks", multiple, records),
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
    return plotting.bars(
        {r["run"]: r["multiple"] for r in rows},
        x_label="times faster, for two identical models",
        form="{:.2f}",
        highlight="fair",
        alt="How many times faster the same model looks: "
        + ", ".join(f"{r['run']} {r['multiple']:.2f}" for r in rows),
    )


def notice(rows):
    alone = [r["multiple"] for r in rows if r["run"].startswith("one trick")]
    return (
        f"The fair run ({only(rows, run='fair')['multiple']:.2f} times faster) says how much of a"
        " difference is noise on your machine. One trick alone makes the same model look"
        f" {span(alone)} times as fast, and what gives nothing here may give much elsewhere. All"
        f" together make a headline: {only(rows, run='all tricks')['multiple']:.2f} times. No check"
        " asks for intentions: each reads a record that the run itself wrote. Keep such a record"
        " with your own results."
    )


LAB = Lab(
    title="A rigged benchmark, and six checks",
    objective=(
        "Make a model look several times faster than itself, and catch each trick by a check that"
        " reads what the run really did."
    ),
    asks="Does every check catch its trick, none the fair run, and do equal models come out equal?",
    notice=notice,
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
    sizes={"full": {"rounds": 11}, "quick": {"rounds": 3}},
    go=go,
    plot=plot,
    minutes=0.4,
)

"""What the tests of every chapter need to know about chapter 01."""

import math
import statistics

from labkit import formulas
from tests.cases import LabCase

LABS = {
    "flops": LabCase(
        steady=True,
        doctored=[
            ({"model": "tiny"}, {"flops": 1}, "look for a part of the model"),
            ({"model": "llama3-8b"}, {"flops": 1}, "the formula says"),
        ],
    ),
    "protocol": LabCase(
        calm=[({}, {"spread": 0.01})],
        real=True,
        doctored=[
            (
                {"what": "decode", "protocol": "warm, median of all"},
                {"spread": 0.8},
                "80% of the median apart",
            ),
        ],
    ),
    "roofline": LabCase(
        real=True,
        calm=[
            ({}, {"mfu": 0.1, "mbu": 0.5}),
            ({"batch": 1}, {"tokens_per_second": 20.0}),
            ({"batch": 8}, {"tokens_per_second": 100.0}),
        ],
        doctored=[
            ({"what": "prefill"}, {"mfu": 1.3}, "no step is faster than its ceiling"),
            ({"what": "decode"}, {"mbu": 1.2}, "120% MBU"),
            ({"what": "decode", "batch": 8}, {"tokens_per_second": 19.0}, "look what else runs"),
        ],
    ),
    "launch": LabCase(
        calm=[({"way": "one call"}, {"multiple": 4.0})],
        doctored=[
            ({"way": "one call"}, {"gap": 0.2}, "not the same step"),
            ({"way": "one call"}, {"gap": float("nan")}, "nan of the largest apart"),
            ({"way": "one call"}, {"calls": 10**6, "captured": True}, "nothing was captured"),
            (
                {"way": "one call"},
                {"calls": 1, "multiple": 0.7, "captured": True},
                "look what else runs",
            ),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    pairs = lambda c, t: 4 * c.n_layers * c.n_heads * c.head_dim * t
    return [
        ("01.1", lambda c, t: right["01.1"](c, t) - pairs(c, t), "matrices alone"),
        ("01.1", lambda c, t: right["01.1"](c, t) // 2, "half of it"),
        (
            "01.1",
            lambda c, t: right["01.1"](c, t) + 2 * c.vocab_size * c.d_model,
            "counts the embedding",
        ),
        ("01.1", lambda c, t: 2 * formulas.parameters(c), "the rule of thumb"),
        ("01.1", lambda c, t: right["01.1"](c, t) - pairs(c, t) // 2, "pays once for each key"),
        (
            "01.1",
            lambda c, t: (
                right["01.1"](c, t)
                + 4 * c.n_layers * c.d_model * c.head_dim * (c.n_heads - c.n_kv_heads)
            ),
            "have their own",
        ),
        (
            "01.1",
            lambda c, t: (
                right["01.1"](c, t) - pairs(c, t) * (c.n_heads - c.n_kv_heads) // c.n_heads
            ),
            "query heads look",
        ),
        ("01.2", lambda f, w, c, b: f / (b * (w + c)), "reads the weights 64 times"),
        ("01.2", lambda f, w, c, b: f / (w + c), "Each has its own"),
        ("01.2", lambda f, w, c, b: b * f / (w + b * c), "counts the requests twice"),
        ("01.2", lambda f, w, c, b: f / w, "leaves the caches out"),
        ("01.2", lambda f, w, c, b: (w + b * c) / f, "turn it over"),
        ("01.4", lambda f, r, n, *m: "arithmetic" if f > r else "memory", "Compare seconds"),
        (
            "01.4",
            lambda f, r, n, p, s, e: "arithmetic" if f / p > r / s else "memory",
            "launches alone take",
        ),
        ("01.4", lambda f, r, n, p, s, e: f / p, "return"),
        ("01.3", lambda c, t, gpu: math.ceil(gpu.ridge), "Caches are read, too"),
        ("01.3", lambda c, t, gpu: math.inf, "there is such a batch"),
        (
            "01.3",
            lambda c, t, gpu: min(right["01.3"](c, t, gpu), 4000),
            "their caches grow with them",
        ),
        ("01.3", lambda c, t, gpu: right["01.3"](c, t, gpu) + 1, "not the first"),
        ("01.5", lambda m: measured(m, waits=False), "Let the machine wait"),
        ("01.5", lambda m: measured(m, repeats=1, warmup=0), "one unlucky run"),
        ("01.5", lambda m: measured(m, warmup=0, repeats=15, pick=0), "is cold and counts"),
        ("01.5", lambda m: 1 / measured(m), "Divide the old one's time"),
        ("01.5", lambda m: measured(m, repeats=40, in_turn=False), "must take turns"),
        ("01.5", lambda m: measured(m, repeats=15, in_turn=False), "must take turns"),
        (
            "01.5",
            lambda m: measured(m, middle=lambda t: statistics.mean(t[1:])),
            "a few long runs decide",
        ),
        ("01.5", lambda m: [measured(m), 1.25][1], "measure, don't recall"),
    ]


def measured(
    machine, warmup=1, repeats=15, waits=True, in_turn=True, pick=None, middle=statistics.median
) -> float:
    """How many times as fast, with a rule broken."""
    times = {"old": [], "new": []}

    def run(version):
        start = machine.now
        machine.hand_over(version)
        if waits:
            machine.wait()
        times[version].append(machine.now - start)

    order = ["old", "new"] * repeats if in_turn else ["old"] * repeats + ["new"] * repeats
    for version in ["old", "new"] * warmup + order:
        run(version)
    one = {v: middle(t) if pick is None else t[pick] for v, t in times.items()}
    return one["old"] / one["new"]

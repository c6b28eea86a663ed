"""What the tests of every chapter need to know about chapter 08."""

from labkit import formulas
from tests.cases import LabCase, stored

LABS = {
    "fair": LabCase(
        calm=[({"run": "fair"}, {"multiple": 1.0, "iqr": 0.0})],
        doctored=[
            ({"check": "dtype"}, {"on_rigged": "pass"}, "it can't fail"),
            ({"check": "seed"}, {"on_fair": "written: theirs 3, ours 4"}, "fails on the fair run"),
            ({"run": "fair"}, {"multiple": 3.0}, "3.00 apart"),
        ],
    ),
    "shell": LabCase(
        steady=True,
        doctored=[
            (
                {"variant": "MLA"},
                {"shapes": ["[74, 128] -> [74, 64]"]},
                "must not change the contract",
            ),
            ({"variant": "MoE"}, {"shell": 2}, "2 tensors of the shell"),
        ],
    ),
    "quality": LabCase(
        rows=stored("ch08/quality"),
        doctored=[
            ({"variant": "MQA"}, {"parameters": 104_000}, "match them before you compare"),
            ({"variant": "MHA"}, {"recall_min": 0.9}, "MHA recalls 90% from one seed"),
            (
                {"variant": "SWA hybrid"},
                {"recall_min": 0.4},
                "one of its layers keeps every token",
            ),
            ({"variant": "SWA"}, {"recall_max": 0.9}, "look for a leak"),
        ],
    ),
    "matched": LabCase(
        calm=[({}, {"multiple": 2.0}), ({"variant": "MHA again"}, {"multiple": 1.0})],
        doctored=[
            ({"variant": "MLA"}, {"active_parameters": 1}, "match them before you compare"),
            ({"variant": "SWA"}, {"cache_bytes": 1}, "look at what its cache keeps"),
            ({"variant": "MHA"}, {"does_not": ["prefix reuse"]}, "mend the engine"),
            (
                {"variant": "MHA again", "context": 1024},
                {"multiple": 2.0},
                "the machine is busy",
            ),
            ({"variant": "SWA", "context": 1024}, {"multiple": 1.0}, "look at what is read"),
        ],
    ),
    "order": LabCase(
        steady=True,
        doctored=[
            ({"id": "CH04-ABSORBED"}, {"needs": "CH08-FAIR"}, "comes before CH08-FAIR"),
        ],
    ),
    "pretraining": LabCase(
        steady=True,
        rows=[
            {
                "design": "MHA, G = 32",
                "meets": True,
                "why_not": "fits 3 users",
                "largest_batch": 3,
                "users": 64,
                "context": 131072,
                "gpu": "L4",
                "wanted": 30.0,
            }
        ],
        doctored=[({}, {"meets": False}, "change the target before you train")],
    ),
    "text": LabCase(
        rows=[
            {"variant": name, "active_parameters": 91_968, "nats": 1.5} | {"verdict": verdict}
            for name, verdict in {
                "MHA": "not told apart",
                "MHA again": "not told apart",
                "GQA": "not told apart",
                "MLA": "worse",
                "DeltaNet": "better",
            }.items()
        ],
        doctored=[
            ({"variant": "MLA"}, {"active_parameters": 99_000}, "match them before you compare"),
            ({"variant": "GQA"}, {"nats": 2.5}, "which is no reading yet"),
            ({"variant": "DeltaNet"}, {"nats": 0.3}, "shows it what comes next"),
            ({"variant": "MHA again"}, {"verdict": "worse"}, "are the same design"),
        ],
    ),
}

# (what is known of a deployment, what the guide should say, by which rule, {other rule: its wish})
LOCAL, MEMORY, LONG = "local → SWA", "memory → GQA or MLA", "ultra-long → linear hybrid"
DIAGNOSIS, TRAINED, ONE = "diagnosis first", "what is trained in stays in", "one change at a time"
SITUATIONS = [
    # nothing is measured, or nothing runs out
    ({}, "measure first", DIAGNOSIS, {}),
    ({"limit": "nothing"}, "change nothing", DIAGNOSIS, {}),
    (
        {"limit": "nothing", "asked": "MLA"},
        "change nothing",
        "popularity is no reason",
        {"popularity": "MLA"},
    ),
    # no layer causes it
    (
        {"limit": "launches", "asked": "GQA"},
        "change nothing",
        DIAGNOSIS,
        {"popularity": "GQA"},
    ),
    (
        {"limit": "bytes", "context": 2048, "users": 1},
        "change nothing",
        DIAGNOSIS,
        {MEMORY: "GQA", LOCAL: "SWA hybrid"},
    ),
    ({"limit": "room", "users": 4}, "change nothing", DIAGNOSIS, {MEMORY: "GQA"}),
    ({"limit": "first token", "context": 2048}, "change nothing", DIAGNOSIS, {}),
    # nothing may be trained
    (
        {"limit": "room", "training": "none"},
        "change nothing",
        TRAINED,
        {MEMORY: "GQA", LOCAL: "SWA hybrid"},
    ),
    # memory
    ({"limit": "room"}, "GQA", MEMORY, {LOCAL: "SWA hybrid"}),
    ({"limit": "room", "text": "near"}, "GQA", MEMORY, {LOCAL: "SWA"}),
    ({"limit": "room", "asked": "MLA"}, "GQA", MEMORY, {"popularity": "MLA"}),
    ({"limit": "room", "users": 40}, "MLA", MEMORY, {LOCAL: "SWA hybrid"}),
    (
        {"limit": "bytes", "context": 131072, "users": 3, "tokens_per_second": 100.0},
        "MLA",
        MEMORY,
        {LONG: "DeltaNet hybrid"},
    ),
    # windows
    ({"limit": "room", "users": 64, "text": "near"}, "SWA", LOCAL, {MEMORY: "MLA"}),
    (
        {"limit": "room", "users": 40, "text": "near", "frees_windows": False},
        "MLA",
        MEMORY,
        {LOCAL: "SWA"},
    ),
    # very long texts
    (
        {"limit": "room", "context": 262144, "users": 6},
        "DeltaNet hybrid",
        LONG,
        {MEMORY: "MLA"},
    ),
    (
        {"limit": "room", "context": 262144, "users": 6, "needs": ("prefix reuse",)},
        "SWA hybrid",
        LONG,
        {MEMORY: "MLA"},
    ),
    # capacity
    ({"limit": "quality", "gpu": "H200"}, "MoE", "capacity → MoE", {}),
    # two changes, or none that would do
    (
        {"limit": "room", "users": 120},
        "SWA hybrid",
        ONE,
        {MEMORY: "MLA", LOCAL: "SWA hybrid"},
    ),
    (
        {"limit": "quality", "asked": "MoE"},
        "change the target",
        ONE,
        {"capacity → MoE": "MoE", "popularity": "MoE"},
    ),
]


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    close = lambda twin, m: "nothing" if abs(m - 1) <= abs(twin - 1) else None

    def first_that_fits(matrix, users, needs, most):
        return next((name for name, r in matrix.items() if r["fits"] >= users), "none")

    def fewest_lines(matrix, users, needs, most):
        fit = {n: r for n, r in matrix.items() if r["fits"] >= users and r["lines"] <= most}
        return min(fit, key=lambda n: fit[n]["lines"], default="none")

    def most_users(matrix, users, needs, most):
        fit = {
            n: r
            for n, r in matrix.items()
            if r["fits"] >= users and r["lines"] <= most and not set(needs) & set(r["does_not"])
        }
        return max(fit, key=lambda n: fit[n]["fits"], default="none")

    def no_budget(matrix, users, needs, most):
        return right["08.3"](matrix, users, needs, 10**6)

    both = lambda a, b: [k for k in a if k in b and a[k] != b[k] and k != "variant"]

    return [
        ("08.2", lambda w, a, b: a / b, "What else does a step read"),
        ("08.2", lambda w, a, b: (w + b) / (w + a), "is below 1"),
        ("08.2", lambda w, a, b: (w + a) / b, "off something"),
        ("08.2", lambda w, a, b: a - b, "expected"),
        ("08.1", lambda twin, m: "faster" if m > 1 else "slower", "How far from 1"),
        (
            "08.1",
            lambda twin, m: "faster" if m > twin else "slower" if m < 1 else "nothing",
            "other side of 1",
        ),
        (
            "08.1",
            lambda twin, m: "nothing" if abs(m - 1) < 0.05 else "faster" if m > 1 else "slower",
            "other side of 1",
        ),
        ("08.1", lambda twin, m: m > twin, "say one of"),
        ("08.1", lambda twin, m: close(twin, m) or "faster", "How far from 1"),
        ("08.5", lambda a, b: [k for k in a if a[k] != b.get(k)], "may differ"),
        ("08.5", both, "only one of them wrote down"),
        ("08.5", lambda a, b: [], "expected"),
        ("08.5", lambda a, b: a == b, "give the names"),
        (
            "08.5",
            lambda a, b: [k for k in a if k != "variant" and a[k] != b.get(k)],
            "only one of them wrote down",
        ),
        ("08.3", first_that_fits, "costs less"),
        ("08.3", fewest_lines, "something that is needed"),
        ("08.3", most_users, "costs less"),
        ("08.3", no_budget, "than the budget"),
        ("08.3", lambda *a: "none", "one would do"),
        ("08.4", lambda c: right["08.4"](c) - 1, "still weighs more"),
        (
            "08.4",
            lambda c: int(formulas.parameters(c) / formulas.kv_cache_bytes(c, 1)) + 1,
            "mixes two sizes",
        ),
        (
            "08.4",
            lambda c: formulas.weight_bytes(c) / formulas.kv_cache_bytes(c, 1),
            "tokens come whole",
        ),
        (
            "08.4",
            lambda c: int(formulas.weight_bytes(c) / formulas.kv_cache_bytes(c, 1, 1, "fp32")) + 1,
            "mixes two sizes",
        ),
    ]

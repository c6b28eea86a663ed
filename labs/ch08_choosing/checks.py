"""Checks of chapter 08, choosing.

Each returns what was right, or raises Wrong with what to look at.
"""

import math

from labkit import formulas, results
from labkit.checks import call, expect
from labkit.published import presets
from labkit.tables import only
from labkit_labs.ch08_choosing.matched import variants
from labkit_labs.ch08_choosing.situation import LONGEST


def by_bytes(f):
    """08.2: how many times as fast, if bytes read were all that counts."""
    rows = results.load("ch08/matched")["rows"]
    row = lambda name, context: only(rows, variant=name, context=context)
    shell = variants()["MHA"]
    table = shell.vocab_size * shell.d_model  # of embeddings: held, and a row of it read
    for fewer, more, context in (
        ("MLA", "GQA", LONGEST),
        ("GQA", "MHA", 1024),
        ("DeltaNet", "MHA", 8192),
    ):
        weights = 4 * (row(fewer, context)["active_parameters"] - table)
        ours, theirs = (row(name, context)["cache_bytes"] for name in (fewer, more))
        want, got = (weights + theirs) / (weights + ours), call(f, weights, theirs, ours)
        where = f"{fewer} against {more} at {context:,} tokens"
        expect(
            not math.isclose(got, theirs / ours, rel_tol=1e-6),
            f"{where}: {got:.2f} compares what is kept. What else does a step read?",
        )
        expect(
            not math.isclose(got, 1 / want, rel_tol=1e-6),
            f"{where}: {got:.2f} is below 1, though the second reads less: which time goes on top?",
        )
        expect(
            not math.isclose(got, (weights + theirs) / ours, rel_tol=1e-6),
            f"{where}: {got:.2f} lets one of the two off something that both have to read.",
        )
        expect(math.isclose(got, want, rel_tol=1e-6), f"{where}: {got:.3f}, expected {want:.3f}.")
    r = {name: row(name, LONGEST) for name in ("GQA", "MLA")}
    weights = 4 * (r["MLA"]["active_parameters"] - table)
    said = (weights + r["GQA"]["cache_bytes"]) / (weights + r["MLA"]["cache_bytes"])
    return (
        f"bytes alone say {said:.2f} for MLA against GQA at {LONGEST:,} tokens; the clock said"
        f" {r['GQA']['median'] / r['MLA']['median']:.2f}."
    )


def told_apart(f):
    """08.1: does a multiple say more than the control does?"""
    cases = [  # the twin's multiple, a variant's, what it says
        (1.03, 1.72, "faster"),
        (1.03, 1.02, "nothing"),
        (1.03, 0.98, "nothing"),
        (1.03, 0.95, "slower"),
        (0.97, 1.02, "nothing"),
        (0.97, 1.05, "faster"),
        (0.80, 1.15, "nothing"),
        (0.80, 0.78, "slower"),
        (1.00, 1.01, "faster"),
    ]
    given = [call(f, twin, multiple) for twin, multiple, _ in cases]
    words = {"faster", "slower", "nothing"}
    for (twin, multiple, _), got in zip(cases, given):
        expect(got in words, f"twin {twin}, variant {multiple}: say one of {sorted(words)}.")
    for (twin, multiple, want), got in zip(cases, given):
        where = f"twin {twin:.2f}, variant {multiple:.2f}"
        if want == "nothing" and (multiple - 1) * (twin - 1) < 0:
            expect(
                got == want,
                f"{where}: you say {got!r}. The twin might as well have come out on the other side"
                " of 1: who is first and who is second is chance.",
            )
        expect(
            got == want,
            f"{where}: you say {got!r}, expected {want!r}. How far from 1 is the same design, and"
            " how far is this?",
        )
    return "nine cases; what is as far from 1 as the control is, on either side, says nothing."


def what_differs(f):
    """08.5: what of two records of a run is not the same."""
    fair = {"variant": "MHA", "dtype": "fp32", "threads": 1, "prompt": 96, "warmup": 2}
    cases = [
        (fair, fair | {"variant": "GQA"}, []),
        (fair, fair | {"variant": "GQA", "threads": 2, "dtype": "bf16"}, ["dtype", "threads"]),
        (fair, {k: v for k, v in fair.items() if k != "warmup"}, ["warmup"]),
        (fair | {"seed": 0}, fair | {"prefix_hits": 640}, ["prefix_hits", "seed"]),
        (fair, fair | {"warmup": 0}, ["warmup"]),
    ]
    for theirs, ours, want in cases:
        got = call(f, dict(theirs), dict(ours))
        expect(
            isinstance(got, list | tuple | set),
            f"give the names of what differs, as a list, not {got!r}.",
        )
        got = sorted(got)
        apart = f"{sorted(set(theirs.items()) ^ set(ours.items()))}"
        expect(
            "variant" not in got,
            "the variant may differ: it is the one thing that you compare.",
        )
        expect(
            got == want or set(theirs) == set(ours),
            f"what only one of them wrote down is a difference, too; you say {got}, expected"
            f" {want}.",
        )
        expect(got == want, f"of {apart} you say {got}, expected {want}.")
    return "five pairs of records, among them one that says nothing of its warm-up."


def choose(f):
    """08.3: from the matrix, the design that meets the target and gives up least."""
    matrix = {
        "MHA": {"fits": 3, "lines": 0, "does_not": []},
        "GQA": {"fits": 13, "lines": 0, "does_not": []},
        "MLA": {"fits": 45, "lines": 89, "does_not": []},
        "SWA hybrid": {"fits": 71, "lines": 0, "does_not": ["freeing what no layer sees"]},
        "DeltaNet hybrid": {"fits": 48, "lines": 81, "does_not": ["prefix reuse"]},
    }
    cases = [  # users, needs, most lines, the answer
        (3, [], 0, "MHA"),
        (10, [], 100, "GQA"),
        (40, ["freeing what no layer sees"], 100, "DeltaNet hybrid"),
        (40, ["freeing what no layer sees", "prefix reuse"], 100, "MLA"),
        (40, [], 100, "SWA hybrid"),
        (40, ["freeing what no layer sees"], 50, "none"),
        (60, ["freeing what no layer sees"], 100, "none"),
    ]
    for users, needs, most, want in cases:
        got = call(f, {k: dict(v) for k, v in matrix.items()}, users, list(needs), most)
        where = f"{users} users, needs {needs or 'nothing'}, at most {most} lines"
        expect(
            got == "none" or got in matrix,
            f'{where}: give a name of the matrix or "none", not {got!r}.',
        )
        row = matrix.get(got)
        expect(not row or row["fits"] >= users, f"{where}: {got} holds too few users.")
        lost = set(needs) & set(row["does_not"]) if row else ()
        expect(not lost, f"{where}: {got} does without something that is needed.")
        expect(
            not row or row["lines"] <= most,
            f"{where}: {got} has more lines of its own than the budget.",
        )
        expect(got != "none" or want == "none", f"{where}: you say none, but one would do.")
        expect(
            got == want,
            f"{where}: {got} would do, but so would one that costs less, or as much and stands"
            " before it.",
        )
    return "seven targets, two of which nothing meets."


def outweighs(f):
    """08.4: from which context on one text's cache outweighs the model."""
    for name in ("llama3-8b", "llama3-70b", "qwen3-0.6b", "deepseek-v3"):
        c = presets[name]
        weights, token = formulas.weight_bytes(c), formulas.kv_cache_bytes(c, 1)
        want, got = math.floor(weights / token) + 1, call(f, c)
        where = name
        expect(got == int(got), f"{where}: tokens come whole, not {got}.")
        expect(
            got != math.floor(weights / (2 * token)) + 1,
            f"{where}: {got:,} mixes two sizes of number. Weights and cache are both in bf16.",
        )
        expect(
            got != want - 1,
            f"{where}: at {got:,} the model still weighs more. From where on does it not?",
        )
        expect(got == want, f"{where}: {got:,}, expected {want:,}: divide what by what?")
    return (
        "122,533 tokens for Llama-3-8B, 10,395 for Qwen3-0.6B, 19 million for DeepSeek-V3: long is"
        " a property of a model."
    )


CHECKS = {
    "08.1": told_apart,
    "08.2": by_bytes,
    "08.3": choose,
    "08.4": outweighs,
    "08.5": what_differs,
}

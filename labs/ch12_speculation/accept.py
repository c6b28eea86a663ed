"""CH12-ACCEPT: the rule that makes guesses cost the text nothing, two rules that look as good, and
what an accepted guess is worth.

A rule is right if its tokens are distributed as the target's, whatever the draft: counts, and a
chi-square test (Pearson 1900), decide.
"""

from labkit import plotting
from labkit.lab import Lab
from labkit.tables import progress, span, where

SMALL = (0.40, 0.25, 0.15, 0.12, 0.08)  # a target on paper
CAUGHT = 1e-6  # a p-value that no right rule has
RATES = (0.3, 0.5, 0.7, 0.9)  # how often a draft is kept
LENGTHS = (1, 2, 4, 8)  # drafts in a check
# what a draft costs, in steps of the target
CHEAP = 0.05
DEAR = 0.4


def keeps_the_likely(drafts, p, q, g):
    """Wrong: one draft is kept if the target finds it at least half as likely as its favourite;
    otherwise the target draws.
    """
    if p[0, drafts[0]] >= p[0].max() / 2:
        return drafts
    return p[0].multinomial(1, generator=g).tolist()


def corrects_from_p(drafts, p, q, g):
    """Wrong: one draft is kept as by the right rule, but in place of a refused one the target draws
    from p, not from max(0, p - q).
    """
    drawn = 1 if q is None else q[0, drafts[0]]
    if p.new_empty(()).uniform_(generator=g) * drawn < p[0, drafts[0]]:
        return drafts
    return p[0].multinomial(1, generator=g).tolist()


def drafts_for(p):
    """name -> q [V] that a draft is drawn from, for a target p [V] in falling order; None: the
    draft is certain, and is p's favourite.
    """
    return {
        "certain": None,
        "good": 0.8 * p + 0.2 / len(p),
        "uniform": p.new_full(p.shape, 1 / len(p)),
        "bad": p.flip(0),
    }


def places(model, tokenizer, n):
    """SmolLM2's distributions over its five likeliest tokens, at the first n places of a text where
    each has more than 3 %: [n,5].
    """
    from labkit import Sampling, logits
    from labkit.quant import read_text
    from labkit.sampling import probabilities

    tokens = tokenizer.encode(read_text("course"))[:80]
    p = probabilities(logits(model, tokens), Sampling(temperature=1.0, top_k=5))  # [T,V]
    top = p.cpu().topk(5, dim=-1).values
    return top[top[:, -1] > 0.03][:n]


def replies(rule, p, q, k: int, runs: int, seed: int = 0) -> list[list[int]]:
    """What a rule makes of `runs` checks of k drafts, for the target p [V].

    Drafts are drawn from q [V]; None: all are token 0.
    """
    import torch

    g = torch.Generator().manual_seed(seed)
    drafts = torch.zeros(runs, k, dtype=torch.long)
    drawn_from = None
    if q is not None:
        drafts = q.multinomial(runs * k, replacement=True, generator=g).view(runs, k)
        drawn_from = q.expand(k, -1)
    return [rule(d, p.expand(k + 1, -1), drawn_from, g) for d in drafts.tolist()]


def p_value(made: list[list[int]], p) -> float:
    """Of Pearson's test: the chance that first tokens drawn from p [V] are counted as far from it
    as these, or further.
    """
    expected = len(made) * p.double()
    counts = expected.new_tensor([tokens[0] for tokens in made]).long().bincount(minlength=len(p))
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(statistic.new_tensor((len(p) - 1) / 2).igammac(statistic / 2))


def run(device, *, runs, real):
    """A row for each target and draft with the p-values of three rules, and rows of what accepted
    drafts are worth.

    runs: checks that a p-value is counted from. real: how many of SmolLM2's distributions.
    """
    import torch

    from labkit.weights import smollm2

    targets = {"on paper": torch.tensor(SMALL)}
    for i, p in enumerate(places(*smollm2("fp32", device), real), 1):
        targets[f"SmolLM2, place {i}"] = p
    return tested(targets, runs) + worth(runs // 2)


def tested(targets: dict, runs: int) -> list[dict]:
    """Three rules with every target and draft."""
    from labkit.speculative import accept

    rules = (accept, keeps_the_likely, corrects_from_p)
    cases = [
        (target, p, draft, q) for target, p in targets.items() for draft, q in drafts_for(p).items()
    ]
    rows = []
    for seed, (target, p, draft, q) in enumerate(progress(cases, "rules")):
        made = {rule.__name__: replies(rule, p, q, 1, runs, seed) for rule in rules}
        rows.append(
            {
                "target": target,
                "draft": draft,
                "overlap": float(p[0] if q is None else p.minimum(q).sum()),
                "kept": sum(len(tokens) == 2 for tokens in made["accept"]) / runs,
                "runs": runs,
                **{rule: p_value(tokens, p) for rule, tokens in made.items()},
            }
        )
    return rows


def worth(runs: int) -> list[dict]:
    """Tokens of a check and the speed-up they make, by the formula, and tokens counted."""
    import torch

    from labkit.speculative import accept

    rows = []
    for a, k in progress([(a, k) for a in RATES for k in LENGTHS], "tokens per check"):
        # whatever the draft is, the target wants token 0
        made = replies(accept, torch.tensor([1.0, 0.0]), torch.tensor([a, 1 - a]), k, runs)
        tokens = (1 - a ** (k + 1)) / (1 - a)  # Leviathan et al. (2023), equation 1
        rows.append(
            {
                "a": a,
                "k": k,
                "tokens": tokens,
                "counted": sum(map(len, made)) / len(made),
                "cheap": tokens / (1 + k * CHEAP),
                "dear": tokens / (1 + k * DEAR),
            }
        )
    return rows


def go(rows):
    rules = [r for r in rows if "draft" in r]
    for r in rules:
        if not r["accept"] > 1e-4:
            return (
                f"draft {r['draft']}, {r['target']}: the right rule's p-value is {r['accept']:.0e};"
                " look at what follows a refusal"
            )
    for name in ("keeps_the_likely", "corrects_from_p"):
        if not any(r[name] < CAUGHT for r in rules):
            return (
                f"{name} passes with every draft: a test that catches nothing proves nothing; count"
                " more checks"
            )
    for r in (r for r in rows if "k" in r):
        if not abs(r["counted"] / r["tokens"] - 1) < 0.1:
            return (
                f"{r['k']} drafts at {r['a']} gave {r['counted']:.2f} tokens, by formula"
                f" {r['tokens']:.2f}: look for the target's own token"
            )


def plot(rows):
    shown = where(rows, a=0.7)
    lines = {
        name: [r[key] for r in shown]
        for name, key in {
            "tokens a check": "tokens",
            f"speed-up, c = {CHEAP}": "cheap",
            f"speed-up, c = {DEAR}": "dear",
        }.items()
    }
    return plotting.lines(
        LENGTHS,
        lines,
        marks={"no drafts": 1.0},
        x_label="drafts in a check, each kept with probability 0.7",
        alt=f"With {', '.join(map(str, LENGTHS))} drafts in a check: "
        + "; ".join(f"{name} " + ", ".join(f"{y:.2f}" for y in ys) for name, ys in lines.items()),
    )


def notice(rows):
    rules = [r for r in rows if "draft" in r]
    kept = [r["kept"] for r in rules]
    # the formula's rows with the likeliest drafts
    highest = max(r["a"] for r in rows if "a" in r)
    paper = where(rows, a=highest)
    few = paper[0]
    many = paper[-1]
    best = max(paper, key=lambda r: r["dear"])

    right = [r["accept"] for r in rules]

    def told(rule):
        caught = sum(r[rule] < CAUGHT for r in rules)
        hides = max(rules, key=lambda r: r[rule])
        return (
            f"caught by {caught} of {len(rules)}, and with the draft that is {hides['draft']}"
            f" ({hides['target']}) has a p-value of {hides[rule]:.1e}"
        )

    return (
        f"The right rule's p-values go from {min(right):.1e} to {max(right):.1e}, whatever the"
        f" draft: that only changes how often it is kept, {span(kept, '.0%')}, which is the overlap"
        f" of p and q. Keeping the likely is {told('keeps_the_likely')}; correcting from p is"
        f" {told('corrects_from_p')}. A good draft is seldom refused, so a wrong correction hardly"
        f" shows. Test with several. From {few['k']} to {many['k']} drafts, each kept with"
        f" probability {highest:.1f}, tokens per check grow from {few['tokens']:.2f} to"
        f" {many['tokens']:.2f}; where a draft is dear, the speed-up is best with"
        f" {best['k']}: {best['dear']:.2f}."
    )


LAB = Lab(
    title="The rule that loses nothing",
    objective=(
        "Test the rule of acceptance, and two wrong ones, against the target's distribution; then"
        " count what an accepted guess is worth."
    ),
    asks="Does the right rule pass with every draft, and each wrong one fail with some?",
    notice=notice,
    columns={
        "target": "target",
        "draft": "draft",
        "overlap": "overlap of p, q|.3f",
        "kept": "kept|.3f",
        "accept": "p-value, right rule|.1e",
        "keeps_the_likely": "keeps the likely|.1e",
        "corrects_from_p": "corrects from p|.1e",
        "a": "acceptance",
        "k": "drafts",
        "tokens": "tokens a check|.2f",
        "counted": "counted|.2f",
        "cheap": f"speed-up, c = {CHEAP}|.2f",
        "dear": f"c = {DEAR}|.2f",
    },
    run=run,
    sizes={"full": {"runs": 10_000, "real": 3}, "quick": {"runs": 600, "real": 1}},
    go=go,
    plot=plot,
    minutes=0.6,
)

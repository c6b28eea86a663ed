"""CH00-SAMPLED: does the NumPy sampler draw what it promises, and what does a text get from it?

On SmolLM2's real logits after a sentence: 10,000 draws by each setting, against the setting's own
probabilities (Pearson's chi-square test) and, as the control, against those of another setting.
Then whole texts by each setting: which share of their groups of four tokens stood there before
(greedy text repeats itself: Holtzman et al. 2020), beside people's prose of the same length.
"""

import math

import numpy as np

from labkit import plotting
from labkit.lab import Lab
from labkit.tables import only, progress, where
from labkit_labs.ch00_one_token.sampling import draw, probabilities

SENTENCE = "The cat sat on the"
SETTINGS = {
    "greedy": {"temperature": 0.0},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 1": {"temperature": 1.0},
    "top-k 40": {"temperature": 1.0, "top_k": 40},
    "top-p 0.9": {"temperature": 1.0, "top_p": 0.9},
    "temperature 1.5": {"temperature": 1.5},
}
CONTROL = {"temperature": 1.2}  # whose probabilities the draws at temperature 1 are held against
STARTS = (
    "The cat sat on the",
    "In the year 1850 the town",
    "My grandmother used to say that",
    "The river was wide and",
    "On the first day of school",
    "The reason why ships float is",
)
GROUP = 4
PEOPLE = "people's prose"


def run(device, *, draws, new, starts):
    """A row for each setting's draws, then one for each setting's texts. new: tokens of a text."""
    from labkit import Sampling, generate, logits
    from labkit.sampling import probabilities as theirs
    from labkit.weights import smollm2
    from labkit_labs.common import corpus

    model, tokenizer = smollm2("fp32", device)
    scores = logits(model, tokenizer.encode(SENTENCE))[-1].float().cpu()
    rows = []
    for name, setting in SETTINGS.items():
        if not setting["temperature"]:
            continue
        p = probabilities(scores.numpy(), **setting)
        made = drawn(p, draws)
        other = probabilities(scores.numpy(), **CONTROL)
        rows.append(
            {
                "what": "draws",
                "setting": name,
                "draws": draws,
                "kept": int((p > 0).sum()),
                "top": float(p.max()),
                "word": tokenizer.decode([int(p.argmax())]),
                "p_value": p_value(made, p),
                "p_value_control": p_value(made, other),
                "gap": float(np.abs(p - theirs(scores, Sampling(**setting)).numpy()).max()),
            }
        )
    prompts = [tokenizer.encode(text) for text in STARTS[:starts]]
    for name, setting in progress(SETTINGS.items(), "texts"):
        samplings = [Sampling(**setting, seed=i) for i in range(len(prompts))]
        texts = generate(model, prompts, new, sampling=samplings, stop=())
        rows.append(text_row(name, texts, tokenizer))
    prose = corpus.prose(tokenizer, new * len(prompts))
    parts = [prose[i : i + new] for i in range(0, len(prose), new)]
    return [*rows, text_row(PEOPLE, parts, tokenizer)]


def text_row(name, texts, tokenizer):
    return {
        "what": "texts",
        "setting": name,
        "texts": len(texts),
        "tokens": len(texts[0]),
        "repeats": float(np.mean([repeats(text) for text in texts])),
        "text": tokenizer.decode(texts[0][:40]),
    }


def drawn(p, draws, seed=0):
    """How often each token comes in so many draws: [V]."""
    generator = np.random.default_rng(seed)
    return np.bincount([draw(p, generator) for _ in range(draws)], minlength=len(p))


def p_value(counts, p):
    """Of Pearson's test: the chance of counts as far from p [V] as these, or further. Tokens of
    which fewer than five are expected are counted together.
    """
    import torch

    expected = counts.sum() * p
    often = expected >= 5
    seen = np.append(counts[often], counts[~often].sum())
    due = np.append(expected[often], expected[~often].sum())
    if due[-1] < 5:
        # too few to be tested, unless there can be none
        if due[-1] == 0 and seen[-1]:
            return 0.0
        seen, due = seen[:-1], due[:-1]
    statistic = float(((seen - due) ** 2 / due).sum())
    half = torch.tensor((len(due) - 1) / 2, dtype=torch.float64)
    return float(torch.igammac(half, torch.tensor(statistic / 2, dtype=torch.float64)))


def repeats(tokens, group=GROUP):
    """The share of a text's groups of tokens that stood in it before."""
    groups = [tuple(tokens[i : i + group]) for i in range(len(tokens) - group + 1)]
    return 1 - len(set(groups)) / len(groups)


def go(rows):
    for r in where(rows, what="draws"):
        if r["gap"] > 1e-5:
            return (
                f"{r['setting']}: a probability differs by {r['gap']:.1e} from labkit's: look at"
                " the order of the filters, and at the last token that is kept"
            )
        if r["p_value"] < 1e-4:
            return (
                f"{r['setting']}: counts like these come by chance with a probability of"
                f" {r['p_value']:.0e}: look at the draw"
            )
    plain = only(rows, what="draws", setting="temperature 1")
    if plain["p_value_control"] > 1e-6:
        return (
            f"draws at temperature 1 pass for those at {CONTROL['temperature']}"
            f" (p = {plain['p_value_control']:.3f}): the test is too weak; draw more"
        )
    greedy, warm = (
        only(rows, what="texts", setting=name)["repeats"] for name in ("greedy", "temperature 1")
    )
    if not greedy > 2 * warm:
        return (
            f"greedy text repeats {greedy:.0%} of its groups, text at temperature 1 {warm:.0%}:"
            " look whether both go on for long enough"
        )


def plot(rows):
    texts = {r["setting"]: r["repeats"] for r in where(rows, what="texts")}
    return plotting.bars(
        texts,
        x_label="share of groups of four tokens that stood there before",
        form="{:.0%}",
        highlight="greedy",
        alt="Share of a text's groups of four tokens that stood there before: "
        + ", ".join(f"{name} {share:.0%}" for name, share in texts.items()),
    )


def notice(rows):
    draws = where(rows, what="draws")
    text = lambda name: only(rows, what="texts", setting=name)["repeats"]
    plain = only(rows, what="draws", setting="temperature 1")
    control = plain["p_value_control"]
    seldom = "below 1e-300" if control == 0 else f"1e{math.log10(control):.0f}"
    return (
        f"{draws[0]['draws']:,} draws by each setting are what its probabilities say (the smallest"
        f" p-value is {min(r['p_value'] for r in draws):.2f}); held against those of a higher"
        f" temperature the draws at temperature 1 have a p-value of {seldom}. Greedy"
        f" text repeats {text('greedy'):.0%} of its groups of {GROUP} tokens, text at temperature 1"
        f" {text('temperature 1'):.0%}, people's prose {text(PEOPLE):.0%}."
    )


LAB = Lab(
    title="From logits to a text",
    objective=(
        "Draw from SmolLM2's real logits by five settings and test the counts; then write texts by"
        " each, and count how much of them stood there before."
    ),
    asks=(
        "Do the draws fit their own setting's probabilities and not another's, and does greedy text"
        " repeat more than twice as much as text at temperature 1?"
    ),
    notice=notice,
    columns={
        "what": "what",
        "setting": "setting",
        "kept": "tokens left|,",
        "word": "likeliest",
        "top": "its share|.1%",
        "p_value": "p-value|.3f",
        "p_value_control": "against another|.1e",
        "repeats": "repeats|.0%",
        "text": "begins",
    },
    run=run,
    sizes={
        "full": {"draws": 10_000, "new": 128, "starts": len(STARTS)},
        "quick": {"draws": 2_000, "new": 64, "starts": 2},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=1,
)

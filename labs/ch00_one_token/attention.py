"""CH00-ATTENTION: what each of SmolLM2's heads looks at.

"The cat sat", its weights in every layer and head. Then twelve sentences with an "it": how much of
a late word's attention the first word gets, and in how many sentences a head's largest weight, the
first word's apart, goes from "it" to the thing that is meant. Each is asked again where the answer
should be another: with the words in another order, and from "was", which means nothing.
"""

import numpy as np

from labkit import plotting
from labkit.lab import Lab
from labkit.tables import progress

TEXT = "the cat sat"
# (sentence, the thing that "it" is): half of them name it last, half have another thing in between
SENTENCES = [
    ("In summer my sister painted the fence because it was", "fence"),
    ("After dinner a waiter dropped the bottle because it was", "bottle"),
    ("At school the teacher closed the book because it was", "book"),
    ("At noon a farmer sold the horse because it was", "horse"),
    ("At night the king burned the letter because it was", "letter"),
    ("Last week my mother returned the lamp because it was", "lamp"),
    ("In winter the bridge over the river fell because it was", "bridge"),
    ("Last year the tree behind my house died because it was", "tree"),
    ("At noon the boat near the beach sank because it was", "boat"),
    ("At home the plant beside the window grew because it was", "plant"),
    ("Last night the car before our gate burned because it was", "car"),
    ("In spring the wall around the garden broke because it was", "wall"),
]
LATE = 4  # a word is late from this position on
ORDERS = 5  # of the words before "because", drawn anew


def run(device, *, sentences, orders):
    """A row for the whole model, then two for each layer: its heads, and "the cat sat"."""
    from labkit.reference import TinyGPT
    from labkit.weights import smollm2
    from labkit_labs.ch00_one_token.watched import Watched, watch

    smol, tokenizer = smollm2("fp32", "cpu", packed=False)
    model = Watched(smol.config, TinyGPT.of(smol).weights)
    chosen = SENTENCES[::2][:sentences] if sentences < len(SENTENCES) else SENTENCES
    words = [(tokenizer.encode(text), tokenizer.encode(f" {thing}")) for text, thing in chosen]
    draw = np.random.default_rng(0)

    right = [shares(watch(model, ids), ids, *thing) for ids, thing in progress(words, "sentences")]
    mixed = [
        shares(watch(model, other), other, *thing)
        for ids, thing in progress(words, "other orders")
        for other in (reordered(ids, tokenizer, draw) for _ in range(orders))
    ]
    mean = lambda seen, what: np.mean([s[what] for s in seen], axis=0)  # [L,H]
    found, was, shuffled = mean(right, "it"), mean(right, "was"), mean(mixed, "it")
    first, first_mixed, second = mean(right, "first"), mean(mixed, "first"), mean(right, "second")
    layer, head = np.unravel_index(found.argmax(), found.shape)
    cat = watch(model, tokenizer.encode(TEXT))
    total = {
        "what": "model",
        "sentences": len(words),
        "heads": found.size,
        "over_half": int((first > 0.5).sum()),
        "over_half_reordered": int((first_mixed > 0.5).sum()),
        "second_over_half": int((second > 0.5).sum()),
        "layer": int(layer),
        "head": int(head),
        "from_it": float(found[layer, head]),
        "from_was": float(was[layer, head]),
        "from_it_reordered": float(shuffled[layer, head]),
        "first": float(first.mean()),
        "first_reordered": float(first_mixed.mean()),
        "second": float(second.mean()),
    }
    layers = [
        {
            "what": "layer",
            "layer": i,
            "over_half": int((first[i] > 0.5).sum()),
            "over_half_reordered": int((first_mixed[i] > 0.5).sum()),
            "first": float(first[i].mean()),
            "first_reordered": float(first_mixed[i].mean()),
            "second": float(second[i].mean()),
            "from_it": float(found[i].max()),
            "from_was": float(was[i].max()),
            "from_it_reordered": float(shuffled[i].max()),
        }
        for i in range(len(found))
    ]
    texts = [
        {
            "what": TEXT,
            "layer": i,
            "words": [tokenizer.decode([t]) for t in tokenizer.encode(TEXT)],
            # by head, by query: the weights of the words so far
            "weights": [
                [[round(float(w), 4) for w in row[: t + 1]] for t, row in enumerate(head)]
                for head in heads
            ],
        }
        for i, heads in enumerate(cat)
    ]
    return [total, *layers, *texts]


def reordered(ids: list[int], tokenizer, draw) -> list[int]:
    """The same words, all that stands before "because" in another order."""
    end = ids.index(*tokenizer.encode(" because"))
    return [*(int(i) for i in draw.permutation(ids[:end])), *ids[end:]]


def shares(weights, ids, thing) -> dict:
    """By layer and head, [L,H]: the mean share of the first and of the second word in what a late
    word looks at; and whether "it" (the last but one), and "was" (the last), look at the thing most
    of all words but the first and themselves.
    """
    late = weights[:, :, LATE:]
    most = lambda query: weights[:, :, query, 1:query].argmax(-1) + 1 == ids.index(thing)
    return {
        "first": late[..., 0].mean(-1),
        "second": late[..., 1].mean(-1),
        "it": most(len(ids) - 2),
        "was": most(len(ids) - 1),
    }


def of(rows, what):
    return [r for r in rows if r["what"] == what]


def go(rows):
    (model,) = of(rows, "model")
    for row in of(rows, TEXT):
        for head, queries in enumerate(row["weights"]):
            for word, weights in zip(row["words"], queries):
                if abs(sum(weights) - 1) > 1e-3:
                    return (
                        f"in layer {row['layer']}, head {head}, the weights of {word!r} sum to"
                        f" {sum(weights):.3f}: look at the softmax, and along which axis it goes"
                    )
    if not model["over_half"] or model["second_over_half"] > model["over_half"] / 4:
        return (
            f"the first word takes over half in {model['over_half']} heads and the second in"
            f" {model['second_over_half']}: look whether the weights are read by query"
        )
    if abs(model["over_half"] - model["over_half_reordered"]) > model["over_half"] / 4:
        return (
            f"in another order the first word takes over half in {model['over_half_reordered']}"
            f" heads instead of {model['over_half']}: then it is the word and not the place"
        )
    if model["sentences"] < len(SENTENCES):
        return None  # a best head of few sentences is chance
    if model["from_it_reordered"] > model["from_it"] - 0.2:
        return (
            f"in another order of the words the best head still finds the thing in"
            f" {model['from_it_reordered']:.0%}, after {model['from_it']:.0%}: look whether the"
            ' words before "because" were moved'
        )
    if model["from_was"] < model["from_it"] - 0.25:
        return (
            f'from "was" the best head finds the thing in {model["from_was"]:.0%}, from "it" in'
            f" {model['from_it']:.0%}: it tells the two apart, and the chapter says that it doesn't"
        )


def plot(rows):
    layers = of(rows, "layer")
    shares = {
        "the first word": [r["first"] for r in layers],
        "the first, words reordered": [r["first_reordered"] for r in layers],
        "the second word": [r["second"] for r in layers],
    }
    return plotting.lines(
        [r["layer"] for r in layers],
        shares,
        x_label="layer",
        y_label="share of a late word's attention",
        alt="Mean share of a late word's attention by layer: "
        + "; ".join(
            f"{name} from {min(each):.2f} to {max(each):.2f}" for name, each in shares.items()
        ),
    )


def notice(rows):
    (model,) = of(rows, "model")
    return (
        f"In {model['over_half']} of {model['heads']} heads a late word gives over half of its"
        f" attention to the first word, in another order of the words in"
        f" {model['over_half_reordered']}: it goes to the place, not to the word. The second word"
        f" gets that much in {model['second_over_half']}. The best head (layer {model['layer']},"
        f' head {model["head"]}) looks from "it" at the thing meant in {model["from_it"]:.0%} of'
        f' {model["sentences"]} sentences, from "was" in {model["from_was"]:.0%}, from "it" after'
        f" reordered words in {model['from_it_reordered']:.0%}: it was picked as the best of"
        f" {model['heads']}, so only the distance to the controls says anything."
    )


LAB = Lab(
    title="What the heads look at",
    objective=(
        "Read the attention weights of all of SmolLM2's heads: on three words, and on sentences in"
        " which a word must find another; then with the words in another order."
    ),
    asks=(
        "Do the weights of each word sum to 1, and does the first word take over half in about as"
        " many heads when another word stands there?"
    ),
    notice=notice,
    columns={
        "what": "what",
        "layer": "layer",
        "over_half": "heads: first word over half",
        "over_half_reordered": "the same, reordered",
        "first": "to the first word|.0%",
        "first_reordered": "reordered|.0%",
        "second": "to the second|.0%",
        "from_it": "it → thing, best head|.0%",
        "from_was": "was → thing|.0%",
        "from_it_reordered": "it → thing, reordered|.0%",
    },
    run=run,
    sizes={
        "full": {"sentences": len(SENTENCES), "orders": ORDERS},
        "quick": {"sentences": 4, "orders": 1},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=0.8,
    cpu_only=True,
)

"""CH00-NEIGHBOURS: do directions in SmolLM2's embedding table mean something?

Three questions to the table alone, before any layer: are a word's nearest words of its kind, is
"more than one" a direction, and is it another direction than "female"? Each is asked again of a
table in which every row's numbers stand in an order of their own: same numbers, no direction left.
"""

import numpy as np

from labkit import plotting
from labkit.lab import Lab
from labkit.tables import where

KINDS = {
    "animals": "cat dog horse cow bird fish lion mouse",
    "colours": "red blue green yellow black white brown purple",
    "numbers": "two three four five six seven eight nine",
    "days": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday weekend",
    "cities": "Paris London Berlin Rome Moscow Tokyo Madrid Chicago",
    "jobs": "doctor teacher lawyer nurse farmer writer driver singer",
}
# the first half of each list gives the direction, the second is asked
PAIRS = {
    "more than one": (
        "cat cats, dog dogs, car cars, tree trees, book books, river rivers, house houses,"
        " bird birds, star stars, road roads, song songs, horse horses, window windows, city cities"
    ),
    "female": (
        "king queen, man woman, boy girl, father mother, son daughter, brother sister,"
        " uncle aunt, husband wife, actor actress, prince princess"
    ),
}
SHOWN = "cat"  # whose nearest neighbours are kept
CONTROL = "shuffled"


def shuffled(embedding, seed=0):
    """The table with the numbers of each row in an order of their own."""
    return np.random.default_rng(seed).permuted(embedding, axis=1)


def cosines(a, b):
    """Each row of a [n,D] with each of b [m,D]: [n,m]."""
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit(a) @ unit(b).T


def run(device, *, pairs):
    """A row for each kind of words, for each two directions, and for the words next to "cat", of
    both tables. pairs: of each direction, at most.
    """
    from labkit.weights import smollm2

    model, tokenizer = smollm2("fp32", "cpu", packed=False)
    table = model.state_dict()["embed.weight"].numpy()  # [V,D]
    ids = lambda words: [token(tokenizer, word) for word in words.split()]
    kinds = {kind: ids(words) for kind, words in KINDS.items()}
    couples = {
        name: np.array([ids(pair) for pair in listed.split(", ")[:pairs]])
        for name, listed in PAIRS.items()
    }
    rows = []
    for name, embedding in (("SmolLM2", table), (CONTROL, shuffled(table))):
        rows += of_kinds(name, embedding, kinds)
        rows += of_directions(name, embedding, couples)
        rows += next_to(name, embedding, tokenizer)
    return rows


def token(tokenizer, word: str) -> int:
    """The one token of a word with its space. ValueError for a word of several."""
    ids = tokenizer.encode(f" {word}")
    if len(ids) != 1:
        raise ValueError(f"{word!r} is {len(ids)} tokens, and this lab is about single ones")
    return ids[0]


def of_kinds(table, embedding, kinds):
    """How many of a word's nearest are of its kind, among the words of all kinds."""
    every = [token for tokens in kinds.values() for token in tokens]
    kind_of = np.repeat(np.arange(len(kinds)), [len(tokens) for tokens in kinds.values()])
    near = cosines(embedding[every], embedding[every])
    np.fill_diagonal(near, -np.inf)
    rows = []
    for i, (kind, tokens) in enumerate(kinds.items()):
        k = len(tokens) - 1
        nearest = np.argsort(-near[kind_of == i], axis=1)[:, :k]
        apart = near[kind_of == i][:, kind_of != i]
        inside = near[kind_of == i][:, kind_of == i]
        rows.append(
            {
                "what": "kind",
                "table": table,
                "of": kind,
                "same_kind": float((kind_of[nearest] == i).mean()),
                "chance": k / (len(every) - 1),
                "cosine": float(inside[np.isfinite(inside)].mean()),
                "cosine_others": float(apart.mean()),
            }
        )
    return rows


def of_directions(table, embedding, couples):
    """What a direction, found on half of its pairs, is to the other half, and to other pairs."""
    steps = {name: embedding[pair[:, 1]] - embedding[pair[:, 0]] for name, pair in couples.items()}
    half = lambda each: len(each) // 2
    rows = []
    for name, found_on in steps.items():
        direction = found_on[: half(found_on)].mean(axis=0)
        for asked, each in steps.items():
            rest = cosines(each[half(each) :], direction[None])
            rows.append(
                {
                    "what": "direction",
                    "table": table,
                    "of": name,
                    "asked": asked,
                    "cosine": float(rest.mean()),
                    "least": float(rest.min()),
                }
            )
    return rows


def next_to(table, embedding, tokenizer, n=8):
    """The words nearest to one word, of all the vocabulary."""
    word = token(tokenizer, SHOWN)
    near = cosines(embedding[[word]], embedding)[0]
    near[word] = -1
    return [
        {
            "what": "neighbour",
            "table": table,
            "of": SHOWN,
            "place": place + 1,
            "word": tokenizer.decode([int(i)]),
            "cosine": float(near[i]),
        }
        for place, i in enumerate(np.argsort(-near)[:n])
    ]


def mean(rows, key, **values):
    return float(np.mean([r[key] for r in where(rows, **values)]))


def go(rows):
    kinds = lambda table: mean(rows, "same_kind", what="kind", table=table)
    chance = rows[0]["chance"]
    if kinds("SmolLM2") < 3 * chance:
        return (
            f"of a word's nearest {kinds('SmolLM2'):.0%} are of its kind, and chance gives"
            f" {chance:.0%}: look whether the rows are those of the words"
        )
    if kinds(CONTROL) > 2 * chance:
        return (
            f"in the shuffled table {kinds(CONTROL):.0%} of a word's nearest are of its kind:"
            " look whether each row has an order of its own"
        )
    for r in where(rows, what="direction", table=CONTROL):
        if abs(r["cosine"]) > 0.2:
            return (
                f"in the shuffled table {r['of']!r} has a cosine of {r['cosine']:.2f} with pairs"
                f" of {r['asked']!r}: look whether each row has an order of its own"
            )
    for r in where(rows, what="direction", table="SmolLM2"):
        same = r["of"] == r["asked"]
        if same and r["cosine"] < 0.2:
            return (
                f"{r['of']!r} has a cosine of {r['cosine']:.2f} with pairs that it was not found"
                " on: look whether a pair's order is the same in all"
            )
        if not same and abs(r["cosine"]) > 0.2:
            return (
                f"{r['of']!r} has a cosine of {r['cosine']:.2f} with the pairs of {r['asked']!r}:"
                " the two are meant to be two directions"
            )


def plot(rows):
    shares = {
        f"{r['of']}{'' if r['table'] == 'SmolLM2' else ', shuffled'}": r["same_kind"]
        for r in where(rows, what="kind")
    }
    return plotting.bars(
        shares,
        x_label="nearest words of the same kind",
        form="{:.0%}",
        alt="Share of a word's nearest words that are of its kind: "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
    )


def notice(rows):
    kinds = lambda table: mean(rows, "same_kind", what="kind", table=table)
    cosine = lambda of, asked: mean(
        rows, "cosine", what="direction", table="SmolLM2", of=of, asked=asked
    )
    more, female = PAIRS
    return (
        f"Of a word's nearest {kinds('SmolLM2'):.0%} are of its kind; in the shuffled table"
        f" {kinds(CONTROL):.0%}, where chance gives {rows[0]['chance']:.0%}. The step from one to"
        f" many points the way of steps that it was not found on with a cosine of"
        f" {cosine(more, more):.2f}, the step from male to female with"
        f" {cosine(female, female):.2f}; across the two it is {cosine(more, female):.2f} and"
        f" {cosine(female, more):.2f}."
    )


LAB = Lab(
    title="Directions that mean something",
    objective=(
        "Look for kinds of words and for two directions in SmolLM2's embedding table, and in one"
        " whose rows are shuffled."
    ),
    asks=(
        "Are a word's nearest of its kind at least three times as often as by chance, only in the"
        " real table, and do both directions hold for pairs that they were not found on?"
    ),
    notice=notice,
    columns={
        "what": "what",
        "table": "table",
        "of": "of",
        "asked": "asked of",
        "word": "word",
        "same_kind": "nearest of its kind|.0%",
        "chance": "by chance|.0%",
        "cosine": "cosine|.2f",
        "cosine_others": "with others|.2f",
    },
    run=run,
    sizes={"full": {"pairs": 14}, "quick": {"pairs": 8}},
    threads=1,
    go=go,
    plot=plot,
    minutes=0.1,
    cpu_only=True,
)

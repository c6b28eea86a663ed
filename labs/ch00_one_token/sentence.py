"""CH00-SENTENCE: one sentence, followed from its words to the next ones.

"The cat sat" as ids and vectors; the scores and shares of its last word in one head; then what
SmolLM2 holds likely to come next, and what it writes when the likeliest is taken each time. The
clip of chapter 00 shows these numbers.
"""

import numpy as np

from labkit.lab import Lab
from labkit_labs.ch00_one_token.attention import TEXT
from labkit_labs.ch00_one_token.watched import Watched

LAYER, HEAD = (
    9,
    4,
)  # counted from 0: a head in which each of the three words gets a share to be seen
NUMBERS = 8  # of a token's vector, the first
CANDIDATES = 5


class Asked(Watched):
    """Watched, with the scores before their softmax: `scores[i]` is [H,T,S], without its mask."""

    def forward(self, ids, cache=None, start=None):
        self.scores = []
        return super().forward(ids, cache, start)

    def look(self, q, k, v, pos):
        keys = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
        self.scores.append(np.einsum("the,she->hts", q, keys) / q.shape[-1] ** 0.5)
        return super().look(q, k, v, pos)


def run(device, *, new):
    """A row for each token of the text, each candidate for the next one, each token written."""
    from labkit.reference import TinyGPT
    from labkit.weights import smollm2

    smol, tokenizer = smollm2("fp32", "cpu", packed=False)
    model = Asked(smol.config, TinyGPT.of(smol).weights)
    ids = tokenizer.encode(TEXT)
    likely = probabilities(model, ids)
    vectors, scores, shares = (
        model.weights["embed.weight"][ids],
        model.scores[LAYER][HEAD, -1],
        model.seen[LAYER][HEAD, -1],
    )
    tokens = [
        {
            "what": "token",
            "text": tokenizer.decode([id]),
            "id": id,
            "vector": [round(float(x), 4) for x in vector[:NUMBERS]],
            "layer": LAYER,
            "head": HEAD,
            "score": float(score),
            "share": float(share),
        }
        for id, vector, score, share in zip(ids, vectors, scores, shares)
    ]
    candidates = [
        {
            "what": "candidate",
            "text": tokenizer.decode([int(id)]),
            "id": int(id),
            "share": float(likely[id]),
        }
        for id in likely.argsort()[::-1][:CANDIDATES]
    ]
    written = []
    for _ in range(new):
        likely = probabilities(model, ids)
        ids = [*ids, int(likely.argmax())]
        written.append(
            {
                "what": "written",
                "text": tokenizer.decode(ids[-1:]),
                "id": ids[-1],
                "share": float(likely.max()),
            }
        )
    return [*tokens, *candidates, *written]


def probabilities(model, ids) -> np.ndarray:
    """Of each token of the vocabulary, to come next."""
    logits = model.forward(ids)[-1].astype(np.float64)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def of(rows, what):
    return [r for r in rows if r["what"] == what]


def go(rows):
    tokens, candidates, written = (of(rows, w) for w in ("token", "candidate", "written"))
    weights = np.exp([r["score"] for r in tokens])
    for r, share in zip(tokens, weights / weights.sum()):
        if not abs(r["share"] - share) < 1e-3:
            return (
                f"{r['text']!r} has a share of {r['share']:.3f}, and the softmax of the scores"
                f" gives {share:.3f}: look whether both are of the same head"
            )
    if candidates[0]["id"] != written[0]["id"]:
        return (
            f"{candidates[0]['text']!r} is the likeliest, and {written[0]['text']!r} is written:"
            " look whether the text was read to its end"
        )


def notice(rows):
    tokens, candidates, written = (of(rows, w) for w in ("token", "candidate", "written"))
    most = max(tokens, key=lambda r: r["share"])
    return (
        f"In layer {most['layer']}, head {most['head']}, counted from 0, the last word gives"
        f" {most['share']:.0%} to “{most['text'].strip()}”. The likeliest next token,"
        f" “{candidates[0]['text'].strip()}”, has a probability of {candidates[0]['share']:.0%}:"
        f" one step later it is text like all before it, and {len(written)} steps give"
        f" “{''.join(r['text'] for r in written).strip()}”."
    )


LAB = Lab(
    title="One sentence, from its words to the next",
    objective=(
        "Follow a sentence through SmolLM2: tokens, ids, vectors, one head's scores and shares, the"
        " candidates for the next token, and the text that grows by it."
    ),
    asks="Are the shares the softmax of the scores, and is the likeliest candidate written?",
    notice=notice,
    columns={
        "what": "what",
        "text": "token",
        "id": "id",
        "score": "score|.2f",
        "share": "share|.1%",
    },
    run=run,
    sizes={"full": {"new": 4}, "quick": {"new": 1}},
    threads=1,
    go=go,
    minutes=0.2,
    cpu_only=True,
)

"""From logits to the next token, in NumPy: temperature, top-k, top-p, and a draw."""

import numpy as np

from labkit.reference import softmax


def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0):
    """What is drawn from: logits [V] -> probabilities [V].

    top_k: 0 = off. Filters follow transformers' order: top-k, top-p.
    """
    scores = np.asarray(logits, np.float64) / temperature
    if top_k:
        kth = np.sort(scores)[-top_k]
        scores = np.where(scores < kth, -np.inf, scores)
    if top_p < 1:
        order = np.argsort(-scores, kind="stable")
        p = softmax(scores)[order]
        before = np.cumsum(p) - p  # what likelier ones have
        scores[order[before >= top_p]] = -np.inf
    return softmax(scores)


def draw(p, generator):
    """One token of p [V]: where a random number between 0 and 1 falls
    when the probabilities are laid end to end.
    """
    ends = np.cumsum(p)
    at = generator.random() * ends[-1]
    return int(np.searchsorted(ends, at, side="right"))

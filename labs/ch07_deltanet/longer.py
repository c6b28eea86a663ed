"""A variant of the recall task, trained as long as one likes."""

from __future__ import annotations

from labkit_labs.common import recall


def learn(variant: str, seed: int, steps: int) -> dict:
    """Train a variant of the recall task so long, and what it recalls: {pairs: share}."""
    model, _ = recall.train(recall.variants()[variant], seed, steps, every=steps + 1)
    return {str(pairs): recall.recall(model, pairs) for pairs in recall.PAIRS}

"""Decoding in NumPy: with everything recomputed, with a cache, and with a
logger that shows what was recomputed.
"""

import hashlib

import numpy as np

from labkit.reference.tinygpt import Cache


def naive_loop(model, prompt, new):
    """Greedy: run the model over the whole text at every step."""
    ids = list(prompt)
    for _ in range(new):
        logits = model.forward(ids)
        ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :]


def cached_loop(model, prompt, new):
    """Greedy: run the model over the prompt, then over one token a step."""
    ids = list(prompt)
    cache = Cache(model.config.n_layers)
    for _ in range(new):
        fresh = ids[cache.length :]
        logits = model.forward(fresh, cache)
        ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :]


def key_fingerprints(model, prompt, new, layer=-1):
    """Decode naively and hash, at every step, the prompt's keys that the step
    has just computed again in one layer: the last, unless told otherwise. (In
    the first they depend on token and position alone, whatever the mask.)

    The prefix hashed is fixed: a growing one gives a new hash each step
    whatever the keys are. A matrix product may round its last bits
    differently for another number of rows, so it computes in float64 and
    hashes 4 digits after the point.
    """
    model = type(model)(
        model.config,
        {name: w.astype(np.float64) for name, w in model.weights.items()},
    )
    ids, seen = list(prompt), []
    for _ in range(new):
        fresh = Cache(model.config.n_layers)
        logits = model.forward(ids, fresh)
        # + 0.0 makes -0.0 and 0.0 the same bytes
        keys = np.round(fresh.keys[layer][: len(prompt)], 4) + 0.0
        seen.append(hashlib.sha256(keys.tobytes()).hexdigest()[:12])
        ids.append(int(logits[-1].argmax()))
    return seen

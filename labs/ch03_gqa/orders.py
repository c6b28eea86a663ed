"""Which key/value head a query head reads, and what becomes of a model when that goes wrong.

In the Llama family query head h reads key/value head h // (H / G): neighbours share. Dealt out like
cards, it would be h % G. A model trained one way and run the other has all its shapes right.
"""

import numpy as np


def dealt(model):
    """A copy whose query heads read their key/value heads as if these were dealt out like cards.

    The engine stays as it is: each query head moves to a place whose key head is the wrong one, and
    its share of the output moves with it.
    """
    import torch

    import labkit

    c = model.config
    H, G, E = c.n_heads, c.n_kv_heads, c.head_dim
    # the place g * (H / G) + j reads key head g: into it goes query head j * G + g
    moved = torch.arange(H).view(H // G, G).T.flatten()
    made = labkit.GPT(c).to(model.device, model.dtype).eval()
    weights = model.state_dict()
    for name, weight in weights.items():
        if name.endswith(".mixer.qkv.weight"):
            heads = weight.unflatten(0, (-1, E))
            weights[name] = torch.cat([heads[:H][moved], heads[H:]]).flatten(0, 1)
        if name.endswith(".mixer.out.weight"):
            weights[name] = weight.unflatten(1, (H, E))[:, moved].flatten(1)
    made.load_state_dict(weights)
    return made


# -- heads in NumPy, for models of G key/value heads: weights by name ------------------------------


def untied(model, expand):
    """A multi-head twin of a NumPy model: `expand` copies its key and value heads [G,E,D] out to
    [H,E,D].
    """
    c = model.config
    weights = dict(model.weights)
    for name in attention_matrices(weights):
        q, k, v = split(weights[name], c)
        weights[name] = np.concatenate([q, expand(k), expand(v)]).reshape(-1, c.d_model)
    return type(model)(c.replace(n_kv_heads=c.n_heads), weights)


def pooled(model):
    """Its key heads averaged into one, and its value heads."""
    c = model.config
    weights = dict(model.weights)
    for name in attention_matrices(weights):
        q, k, v = split(weights[name], c)
        one = [heads.mean(0, keepdims=True) for heads in (k, v)]
        weights[name] = np.concatenate([q, *one]).reshape(-1, c.d_model)
    return type(model)(c.replace(n_kv_heads=1), weights)


def twins(model):
    """All its key heads copies of the first, and its value heads."""
    c = model.config
    weights = dict(model.weights)
    for name in attention_matrices(weights):
        q, k, v = split(weights[name], c)
        k, v = (np.repeat(heads[:1], len(heads), axis=0) for heads in (k, v))
        weights[name] = np.concatenate([q, k, v]).reshape(-1, c.d_model)
    return type(model)(c, weights)


def turned(model, R):
    """Turn the last value head by the rotation R [E,E], and turn it back
    in the output of the query heads that read it.
    """
    c, weights = model.config, dict(model.weights)
    for name in attention_matrices(weights):
        q, k, v = split(weights[name], c)
        v = np.concatenate([v[:-1], R @ v[-1:]])
        out = weights[name.replace("qkv", "out")].reshape(c.d_model, c.n_heads, -1).copy()
        readers = slice(-(c.n_heads // c.n_kv_heads), None)
        out[:, readers] = out[:, readers] @ R.T
        weights[name] = np.concatenate([q, k, v]).reshape(-1, c.d_model)
        weights[name.replace("qkv", "out")] = out.reshape(c.d_model, -1)
    return type(model)(c, weights)


def attention_matrices(weights) -> list[str]:
    return [name for name in weights if name.endswith("mixer.qkv.weight")]


def split(qkv, config):
    """Queries [H,E,D], keys and values [G,E,D] of the matrix that makes them."""
    heads = qkv.reshape(-1, config.head_dim, config.d_model)
    H, G = config.n_heads, config.n_kv_heads
    return np.split(heads, [H, H + G])

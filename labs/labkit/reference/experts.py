"""Mixture of experts: a router sends each token to A of X small feed-forward
layers, so most weights rest.
"""

import numpy as np

from labkit.reference.layers import softmax, swiglu


def route(
    x,
    router,
    active,
    scoring="softmax",
    renormalise=True,
    bias=None,
    scale=1.0,
    groups=1,
    active_groups=1,
):
    """Choose experts: x [T,D] · router [X,D] -> (experts [T,A], weights
    [T,A]), best first.

    "softmax" lets experts compete (Shazeer et al. 2017; Mixtral, Jiang et al.
    2024); "sigmoid" scores each alone, and `bias` [X], which the training
    moves to even out the load, helps to choose but never weighs. With
    `groups`, only experts of the best `active_groups` may be chosen, so that
    a token visits few machines (DeepSeek-AI 2024, DeepSeek-V3, section
    2.1.2).
    """
    logits = x @ router.T  # [T,X]
    scores = (
        softmax(logits) if scoring == "softmax" else 1 / (1 + np.exp(-logits))
    )
    wanted = scores if bias is None else scores + bias
    if groups > 1:  # a group is worth its two best experts
        grouped = wanted.reshape(len(x), groups, -1)
        rank = np.argsort(
            np.argsort(-np.sort(grouped)[..., -2:].sum(axis=-1))
        )
        wanted = np.where(
            (rank < active_groups)[..., None], grouped, -np.inf
        ).reshape(wanted.shape)
    experts = np.argsort(-wanted, axis=1, kind="stable")[:, :active]
    weights = np.take_along_axis(scores, experts, axis=1)
    if renormalise:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return experts, weights * scale


def moe(x, experts, weights, gate_up, down):
    """Each expert once, for the tokens that chose it: gate_up [X,2F,D] · down
    [X,D,F] · x [T,D] -> [T,D].
    """
    out = np.zeros_like(x)
    for e in np.unique(experts):  # an expert nobody chose is not read
        token, place = np.nonzero(experts == e)
        out[token] += weights[token, place][:, None] * swiglu(
            x[token], gate_up[e], down[e]
        )
    return out


def expert_load(experts, n_experts):
    """How many tokens each expert got: [X]. Even is T A / X."""
    return np.bincount(experts.ravel(), minlength=n_experts)

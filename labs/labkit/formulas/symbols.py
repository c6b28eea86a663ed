"""The formulas themselves, in the course's alphabet: D model, H heads, G key/value heads, E head size, F feed-forward, V vocabulary.

T tokens fed, S tokens attended to, b bits per element, B requests in the batch, n tokens of a whole reply.
"""
from __future__ import annotations


def attention_weights(D, H, G, E):
    """Elements of the query, key, value and output projections of one layer."""
    return D * (H + 2 * G) * E + H * E * D


def swiglu_weights(D, F):
    """Elements of gate, up and down."""
    return 3 * D * F


def gelu_weights(D, F):
    """Elements of up and down."""
    return 2 * D * F


def projection_flops(T, W):
    """Every weight is multiplied and added once per token: 2 FLOPs each, for W weights."""
    return 2 * T * W


def attention_flops(T, S, H, E):
    """Scores and weighted values: H heads, T queries, S keys, E numbers each, twice."""
    return 4 * H * E * T * S


def kv_bits_per_token(G, E, b):
    """One key and one value for each of G heads, in one layer."""
    return 2 * G * E * b


def activation_elements(T, D, F, V):
    """Elements alive at once in the widest moment of a layer: residual, norm, gate and up, silu, product; then one row of logits."""
    return T * (2 * D + 4 * F) + V


def naive_attention_terms(n):
    """Query-key pairs when step t attends from all t tokens to all t: the sum of squares, so O(n^3)."""
    return n * (n + 1) * (2 * n + 1) / 6


def cached_attention_terms(n):
    """Query-key pairs when step t attends from one token: O(n^2)."""
    return n * (n + 1) / 2


def attainable_flops(I, peak, bandwidth):
    """Roofline: what intensity I (FLOPs per byte) lets a machine reach (Williams et al. 2009)."""
    return min(peak, I * bandwidth)


def latex(name: str) -> str:
    """A formula as LaTeX, made from its Python source."""
    import latexify

    from labkit.config import UnknownName

    if name not in globals() or name == "latex":
        raise UnknownName("formula", name, [k for k, v in globals().items() if callable(v)])
    return latexify.get_latex(globals()[name], use_math_symbols=True)

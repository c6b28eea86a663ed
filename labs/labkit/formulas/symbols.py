"""The formulas themselves, in the course's alphabet: D model, H heads, G key/value heads, E head
size, F feed-forward, V vocabulary.

T tokens fed, S tokens attended to, b bits per element, B requests in the batch, n tokens of a whole
reply; X experts, A active ones. MLA: C latent and C_q query latent, a head of E_n + E_r numbers for
scores (E_r of them rotated) and E_v for values. Delta rule: H_k key and H_v value heads of d_k and
d_v numbers, a convolution over n tokens.
"""

from __future__ import annotations


def attention_weights(D, H, G, E):
    """Elements of the query, key, value and output projections of one layer."""
    return D * (H + 2 * G) * E + H * E * D


def mla_weights(D, H, C, C_q, E_n, E_r, E_v):
    """Elements of multi-head latent attention: queries by way of C_q, latent and shared RoPE key,
    keys and values out of the latent, output.
    """
    return D * C_q + C_q * H * (E_n + E_r) + D * (C + E_r) + C * H * (E_n + E_v) + H * E_v * D


def delta_channels(H_k, H_v, d_k, d_v):
    """Queries, keys and values of one token: what the short convolution runs over."""
    return 2 * H_k * d_k + H_v * d_v


def delta_weights(D, H_k, H_v, d_k, d_v, n):
    """Elements of a gated DeltaNet: queries, keys, values, output gate, decay and step size; the
    convolution; the output.
    """
    return (
        D * (2 * H_k * d_k + 2 * H_v * d_v + 2 * H_v)
        + n * (2 * H_k * d_k + H_v * d_v)
        + H_v * d_v * D
    )


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


def latent_prefill_flops(T, S, H, E_n, E_r, E_v):
    """MLA with its keys and values made again: scores over E_n + E_r numbers, values of E_v.

    Making them is a projection.
    """
    return 2 * H * T * S * (E_n + E_r + E_v)


def latent_decode_flops(T, S, H, C, E_r):
    """MLA absorbed: every head scores the latent and the RoPE key, and weighs the latent.

    Fewer bytes, more FLOPs than above.
    """
    return 2 * H * T * S * (2 * C + E_r)


def delta_flops(T, H_v, d_k, d_v):
    """Ask the memory, correct it, read it: three passes over each head's d_k x d_v state, 2 FLOPs
    an element. No S: context is free.
    """
    return 6 * H_v * d_k * d_v * T


def delta_chunk_flops(T, n, H_v, d_k, d_v):
    """What chunks of n tokens add to `delta_flops`: key-key and query-key products, the corrections
    weighed, and the inverse of the chunk's system times keys and values. More work, in fewer steps.
    """
    return 2 * H_v * n * T * (3 * d_k + 2 * d_v)


def kv_bits_per_token(G, E, b):
    """One key and one value for each of G heads, in one layer."""
    return 2 * G * E * b


def kv_bytes_per_token(L, G, E, b):
    """A key and a value for each of G heads of E numbers in each of L layers; b bytes a number."""
    return 2 * L * G * E * b


def latent_bits_per_token(C, E_r, b):
    """One latent and one RoPE key for all heads, in one layer: C is key and value at once."""
    return (C + E_r) * b


def delta_state_bits(H_k, H_v, d_k, d_v, n, b):
    """One matrix a head, kept in 32 bits because it is added to at every token, and the last n - 1
    inputs of the convolution.
    """
    return 32 * H_v * d_k * d_v + (n - 1) * (2 * H_k * d_k + H_v * d_v) * b


def experts_read(X, A, B):
    """Experts that a batch touches: each of B tokens misses a given one with probability 1 - A/X,
    if routing is even and independent.
    """
    return X * (1 - (1 - A / X) ** B)


def activation_elements(T, D, F, V):
    """Elements alive at once in the widest moment of a layer: residual, norm, gate and up, silu,
    product; then one row of logits.
    """
    return T * (2 * D + 4 * F) + V


def naive_attention_terms(n):
    """Query-key pairs when step t attends from all t tokens to all t: the sum of squares, so
    O(n^3).
    """
    return n * (n + 1) * (2 * n + 1) / 6


def cached_attention_terms(n):
    """Query-key pairs when step t attends from one token: O(n^2)."""
    return n * (n + 1) / 2


def attainable_flops(I, peak, bandwidth):
    """Roofline: what intensity I (FLOPs per byte) lets a machine reach (Williams et al. 2009)."""
    return min(peak, I * bandwidth)

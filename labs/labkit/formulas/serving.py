"""What serving costs beyond one step of one model: guesses, bills, links between machines, fleets.

Letters beside those of `symbols`: k drafts a check, each accepted with probability alpha and made
in c of a check's time; L layers; W a sliding window; P GPUs; s bits of the scale that g numbers
share. Money is in dollars, prices per million tokens; what is cached costs r of the price.
"""

from __future__ import annotations

import math


def tokens_per_check(alpha, k):
    """Tokens that one check of k drafts gives on average, its own included (Leviathan et al. 2023,
    equation 1): the i-th draft counts if all before it did.
    """
    return sum(alpha**i for i in range(k + 1))


def speculation_speedup(alpha, k, c):
    """How many times faster drafts make decoding where a check takes no longer than a step: tokens
    it gives, over what it and its drafts take (Leviathan et al. 2023, theorem 3.8).
    """
    return sum(alpha**i for i in range(k + 1)) / (1 + k * c)


def all_right(e, n):
    """The chance that n steps are all right, if each goes wrong with probability e, whatever the
    others did: small errors compound.
    """
    return (1 - e) ** n


def receptive_field(L, W):
    """Tokens that L sliding layers can hand on to the last one, itself included: each reaches W - 1
    further back.
    """
    return L * (W - 1) + 1


def prompt_bill(T, S, n, p_in, p_out, r):
    """Dollars for one request: T new tokens of prompt, S that are cached, n of reply."""
    return ((T + r * S) * p_in + n * p_out) / 10**6


def agent_tokens(n, T, a):
    """Prompt tokens of n turns that each send everything so far: T at first, a more each turn. The
    sum of a line, so it grows with the square of n.
    """
    return n * T + a * n * (n - 1) / 2


def agent_tokens_reused(n, T, a):
    """The same with a prefix cache: each token is read once."""
    return T + a * (n - 1)


def agent_bill(n, T, a, p_in, r):
    """Dollars for the prompts of n turns, where what was sent before costs r of its price; r = 1 is
    no reuse.
    """
    return (r * (n * T + a * n * (n - 1) / 2) + (1 - r) * (T + a * (n - 1))) * p_in / 10**6


def format_bits(b, g, s):
    """Bits a number takes, the scale (and minimum) of its group included."""
    return b + s / g


def rate_distortion(b):
    """The least mean squared error of numbers from a normal distribution at b bits each, as a share
    of their variance (Shannon 1959): each bit quarters it.
    """
    return 2 ** (-2 * b)


def tensor_parallel_bytes(T, D, L, b, P):
    """Bytes that each of P GPUs sends for T tokens: two all-reduces of the residual stream a layer,
    each twice around a ring in pieces of 1/P.
    """
    return 4 * L * T * D * (b / 8) * ((P - 1) / P)


def pipeline_parallel_bytes(T, D, b, P):
    """Bytes that pass between P stages for T tokens: the residual stream, once at each border."""
    return (P - 1) * T * D * b / 8


def pipeline_bubble(P, m):
    """Share of time that P stages wait while m microbatches pass through (Huang et al. 2019): the
    last begins P - 1 late.
    """
    return (P - 1) / (m + P - 1)


def expert_parallel_bytes(T, D, A, L, b, P):
    """Bytes sent for T tokens whose A experts lie on P GPUs, evenly: to them and back, once each in
    L layers of experts, but for the share that is at home.
    """
    return 2 * L * T * A * D * (b / 8) * ((P - 1) / P)


def transfer_seconds(n, bandwidth, latency):
    """Seconds to move n bytes of cache over a link."""
    return latency + n / bandwidth


def gpus_needed(users, rate, throughput):
    """GPUs for users who all get `rate` tokens/s at once, at `throughput` tokens/s a GPU."""
    return math.ceil(users * rate / throughput)


def dollars_per_million(price, throughput):
    """Dollars for a million tokens on a GPU that costs `price` an hour and gives `throughput`
    tokens/s.
    """
    return 10**6 * price / (3600 * throughput)

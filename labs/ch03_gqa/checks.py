"""Checks of chapter 03, grouped-query attention.

Each returns what was right, or raises Wrong with what to look at.
"""

import tracemalloc

import numpy as np

from labkit import formulas, reference
from labkit.checks import call, expect
from labkit.published import presets

SHAPES = ((8, 8), (8, 2), (9, 3), (32, 8), (6, 1))  # query heads, key/value heads


def kv_head(f):
    """03.1: which key/value head a query head reads."""
    for H, G in SHAPES:
        got = [call(f, h, H, G) for h in range(H)]
        where = f"{H} query heads over {G}"
        expect(
            all(isinstance(g, (int, np.integer)) for g in got),
            f"{where}: a head's number is a whole one, not {got[-1]!r}. Divide with //.",
        )
        want = [h * G // H for h in range(H)]
        expect(
            got == want or got != [h % G for h in range(H)],
            f"{where}: h % G deals the heads out like cards, 0, 1, 2, 0, 1, 2. Here neighbours"
            " share.",
        )
        expect(
            got == want or got != [h // G for h in range(H)],
            f"{where}: h // G makes groups of {G} queries. How many queries share one of {G}"
            " key/value heads?",
        )
        expect(max(got) < G, f"{where}: there is no key/value head {max(got)}; count from 0.")
        expect(got == want, f"{where}: they read {got}; neighbours share, so {want[:4]} and so on.")
    return "neighbours share, from MHA to MQA."


# -- 03.5: orders of copying, right and wrong ------------------------------------------------------


def neighbours(k, H):
    """As in the Llama family."""
    return np.repeat(k, H // k.shape[1], axis=1)


def cards(k, H):
    """All heads in turn, then all again."""
    return np.tile(k, (1, H // k.shape[1], 1))


def the_first_only(k, H):
    """Every query head reads key head 0."""
    return np.repeat(k[:, :1], H, axis=1)


def backwards(k, H):
    """Neighbours share, but the groups are counted from the end."""
    return np.repeat(k[:, ::-1], H // k.shape[1], axis=1)


def right_order(f):
    """03.5: the test that tells a right order from wrong ones."""
    ask = lambda expand: bool(call(f, expand))
    expect(
        ask(neighbours),
        "it calls the right order wrong: neighbours share a key head.",
    )
    expect(
        not ask(the_first_only),
        "it passes a function by which every query head reads key head 0: with one key head there"
        " is nothing to mix up. Take at least two.",
    )
    expect(
        not ask(cards),
        "it passes heads that are dealt out like cards. With as many queries as keys, or one key"
        " head, both orders are the same: choose sizes in which they part, and look at all heads.",
    )
    expect(
        not ask(backwards),
        "it passes groups that are counted from the end: compare the heads one by one, not only"
        " which of them are equal.",
    )
    return "the right order passes; cards, one head for all and groups from the end are caught."


# -- the others ------------------------------------------------------------------------------------


def grouped(f):
    """03.2: attention of one token without copies."""
    draw = np.random.default_rng(1)
    for S, H, G, E in ((5, 4, 4, 8), (5, 4, 1, 8), (7, 6, 2, 8), (4096, 32, 2, 64)):
        q = draw.standard_normal((H, E)).astype(np.float32)
        k, v = draw.standard_normal((2, S, G, E)).astype(np.float32)
        at, last = np.arange(S), np.array([S - 1])
        want = reference.attention(q[None], k, v, last, at)[0]
        dealt = reference.attention(q[None], cards(k, H), cards(v, H), last, at)[0]
        tracemalloc.start()
        got = np.asarray(call(f, q, k, v))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        where = f"{H} query heads over {G}, {S:,} keys"
        expect(
            got.shape == (H, E),
            f"{where}: return an output for each head, {(H, E)}, not shape"
            f" {got.shape}: fold the two head axes into one again.",
        )
        expect(
            np.allclose(got, want, atol=1e-4) or not np.allclose(got, dealt, atol=1e-4),
            f"{where}: the query heads are dealt out like cards. Neighbours share: which of q's two"
            " head axes has to come first?",
        )
        expect(
            np.allclose(got, want, atol=1e-4),
            f"{where}: off by {np.abs(got - want).max():.2g}. Divide scores by the root of E, and"
            " take the softmax over the keys.",
        )
        copied = 2 * S * H * E * 4
        expect(
            S < 1000 or peak < copied / 4,
            f"{where}: right, but it took {peak / 1e6:.0f} MB beside q, k and v. Copied out,"
            f" keys and values are {copied / 1e6:.0f} MB: let the axes do it.",
        )
    return "MHA, MQA and what lies between, and nothing copied out."


def pooled(f):
    """03.4: the matrix of queries, keys and values with fewer heads."""
    draw = np.random.default_rng(2)
    for H, G, to, E, D in ((4, 4, 2, 3, 5), (9, 3, 1, 2, 4), (8, 8, 8, 2, 3), (8, 4, 2, 2, 3)):
        qkv = draw.standard_normal(((H + 2 * G) * E, D))
        heads = qkv.reshape(-1, E, D)
        groups = heads[H:].reshape(2, to, G // to, E, D)
        want = np.concatenate([heads[:H], groups.mean(2).reshape(-1, E, D)]).reshape(-1, D)
        got = np.asarray(call(f, qkv, H, G, to))
        where = f"{H} query heads, {G} key/value heads into {to}"
        expect(
            got.shape != ((to + 2 * to) * E, D) or got.shape == want.shape,
            f"{where}: queries stay as many as before; only keys and values are pooled.",
        )
        expect(
            got.shape == want.shape,
            f"{where}: shape {got.shape}, expected {want.shape}: H queries,"
            " then the keys, then as many values, of E rows each.",
        )
        strided = heads[H:].reshape(2, G // to, to, E, D).mean(1).reshape(-1, E, D)
        expect(
            np.allclose(got, want) or not np.allclose(got[H * E :], strided.reshape(-1, D)),
            f"{where}: heads 0 and {to} were averaged. Neighbours share, so neighbours are pooled.",
        )
        expect(
            np.allclose(got[: H * E], heads[:H].reshape(-1, D)),
            f"{where}: the queries changed. They are the first H * E rows.",
        )
        expect(
            np.allclose(got, want),
            f"{where}: keys or values are off. Average whole heads of E rows, keys with keys and"
            " values with values.",
        )
    return "queries untouched, neighbours averaged, keys and values apart."


def most_heads(f):
    """03.3: the most key/value heads with which all users fit."""
    for name, memory, context, users in (
        ("llama3-8b", 80e9, 32_768, 16),
        ("llama3-8b", 80e9, 8_192, 16),
        ("smollm2-135m", 24e9, 8_192, 300),
        ("llama3-8b", 24e9, 8_192, 100),
    ):
        c = presets[name]
        fits = lambda G: (
            formulas.largest_batch(c.replace(n_kv_heads=G), memory, context) >= users  # noqa: B023
        )
        divisors = [G for G in range(1, c.n_heads + 1) if c.n_heads % G == 0]
        want = max((G for G in divisors if fits(G)), default=0)
        got = call(f, c, memory, context, users)
        where = f"{name}, {users} users of {context:,} tokens, {memory / 1e9:.0f} GB"
        expect(got == int(got), f"{where}: heads are counted in whole numbers, not {got}.")
        expect(
            got == 0 or c.n_heads % int(got) == 0,
            f"{where}: {got} key/value heads can't be shared evenly by {c.n_heads} query heads.",
        )
        expect(got == 0 or fits(int(got)), f"{where}: with {got} heads not all of them fit.")
        expect(
            want > 0 or got == 0,
            f"{where}: not even one head is small enough; return 0.",
        )
        expect(
            got == want,
            f"{where}: {got} fit, but so do more. Each head left out costs quality: return the"
            " most that fit.",
        )
    return "as many as fit, a divisor of the query heads, and 0 where even one is too many."


CHECKS = {
    "03.1": kv_head,
    "03.2": grouped,
    "03.3": most_heads,
    "03.4": pooled,
    "03.5": right_order,
}

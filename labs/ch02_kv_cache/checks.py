"""Checks of chapter 02, the KV cache.

Each returns what was right, or raises Wrong with what to look at.
"""

import numpy as np

from labkit import formulas
from labkit.checks import call, expect
from labkit.published import presets
from labkit_labs.ch02_kv_cache import breakages


def broken_append(answer):
    """02.1: what a cache that forgets to append does to the query's view."""
    expect(
        isinstance(answer, (int, np.integer)),
        f"give a whole number, the keys seen, not {type(answer).__name__}.",
    )
    expect(
        answer != 12,
        "12 would be a cache that works: 8 prompt tokens and 4 new ones. This one never appends"
        " after the prompt.",
    )
    expect(
        answer != 8,
        "8 are the prompt's, kept from prefill. One more key needs no append: whose?",
    )
    expect(
        answer == 9,
        f"not {answer}: count the prompt's keys, then those of tokens whose append was skipped,"
        " then the query's own.",
    )
    return (
        "8 prompt keys and its own: tokens in between were computed, used once and lost. The text"
        " derails, and nothing raises."
    )


def cached_mask(f):
    """02.2: who may look at whom when T new tokens follow `past` cached ones."""
    one = np.asarray(call(f, 1, 5))
    expect(
        one.shape != (1, 1),
        "for 1 new token after 5 the mask is (1, 1): it hides the cache. Its columns are all keys,"
        " old and new.",
    )
    expect(
        one.shape != (6, 6),
        "a 6 x 6 mask has rows for queries that are not there: rows are the new tokens only.",
    )
    expect(
        one.shape == (1, 6), f"for 1 new token after 5 the mask must be (1, 6), not {one.shape}."
    )
    for T, past in ((1, 0), (1, 5), (4, 0), (3, 5), (7, 2)):
        want = np.arange(past + T) <= np.arange(past, past + T)[:, None]
        got = np.asarray(call(f, T, past))
        expect(got.dtype == bool, f"use True for 'may look': the mask has dtype {got.dtype}.")
        expect(
            got.shape == want.shape,
            f"{T} new tokens after {past}: shape {got.shape}, expected {want.shape}.",
        )
        expect(
            not np.array_equal(got, np.tri(T, past + T, dtype=bool)) or past == 0,
            f"{T} new tokens after {past}: row 0 sees only key 0. It is token {past}: shift the"
            " triangle to the right by what is cached.",
        )
        expect(
            np.array_equal(got, want),
            f"{T} new tokens after {past}: row i is token {past} + i and may look at keys 0 to"
            f" {past} + i.",
        )
    return "first token, decode, prompt and chunk: every row sees the past and itself."


def isolated(f):
    """02.3: the test that catches a request's leak into the next."""
    ask = lambda kind: bool(call(f, kind, breakages.FIRST, breakages.SECOND))
    expect(
        ask(breakages.Server),
        "it calls a good server leaky. Two different prompts get different replies from any server:"
        " compare replies to the same prompt.",
    )
    expect(
        not ask(breakages.Shared),
        "it passes a server that keeps one cache for all requests. There a reply depends on what"
        " was asked before: let that show.",
    )
    expect(
        not ask(breakages.Sticky),
        "it passes a server that clears its cache only for a prompt it has seen before. Asking one"
        " prompt twice does not show that; a second, other prompt does.",
    )
    expect(
        not ask(breakages.PartialReset),
        "it passes a server that resets one layer of four: compare more than whether there is an"
        " answer.",
    )
    return "a good server passes; a shared cache, a half reset and a forgetful one are caught."


def cache_bytes(f):
    """02.4: bytes of a cache, from the sizes."""
    for name, context, batch in (
        ("gpt2-124m", 1024, 1),
        ("smollm2-135m", 2048, 4),
        ("llama3-70b", 10_000, 32),
        ("qwen3-0.6b", 32_768, 1),
    ):
        c = presets[name]
        want, got = formulas.kv_cache_bytes(c, context, batch), call(f, c, context, batch, 2)
        expect(
            got != want * c.n_heads // c.n_kv_heads or c.n_heads == c.n_kv_heads,
            f"{name}: {got:,} counts {c.n_heads} query heads; only the {c.n_kv_heads} key/value"
            " heads are stored.",
        )
        expect(
            got * 2 != want or name == "qwen3-0.6b",
            f"{name}: {got:,} is half of it; keys and values are both stored.",
        )
        expect(
            name != "qwen3-0.6b" or got * 2 != want,
            "qwen3-0.6b: use head_dim, which is not d_model / n_heads here.",
        )
        expect(
            batch == 1 or got * batch != want,
            f"{name}: {got:,} is the cache of one request; the batch has {batch}.",
        )
        expect(
            got == want,
            f"{name}, {context:,} tokens, batch {batch}: {got:,} bytes, expected {want:,}.",
        )
    return "four models, bytes exact, grouped heads included."


def crossover(f):
    """02.5: the context at which a batch's caches weigh as much as the model."""
    for name, batch in (("smollm2-135m", 1), ("llama3-70b", 32), ("gpt2-124m", 8)):
        c = presets[name]
        got = call(f, c, batch)
        heavier = lambda t, c=c, batch=batch: (
            formulas.kv_cache_bytes(c, t, batch) >= formulas.weight_bytes(c)
        )
        expect(got == int(got), f"{name}: a context is a whole number of tokens, not {got}.")
        expect(
            heavier(int(got)),
            f"{name}, batch {batch}: at {int(got):,} tokens the caches are still lighter than the"
            " weights.",
        )
        expect(
            not heavier(int(got) - 1),
            f"{name}, batch {batch}: {int(got):,} is not the first such context; the caches are"
            " heavier before.",
        )
    return "the first context at which the caches outweigh the model, for three models."


def tiles_visited(f):
    """02.6: tiles of a causal prompt that are not skipped."""
    for T, tile in ((12, 4), (4096, 64), (10, 4), (5, 8)):
        n = -(-T // tile)
        want, got = n * (n + 1) // 2, call(f, T, tile)
        where = f"{T:,} tokens in tiles of {tile}"
        expect(
            got != n * n or n == 1,
            f"{where}: {got:,} is the whole square. Tiles wholly behind the diagonal hold only keys"
            " of the future, and are not visited.",
        )
        expect(
            got != (T // tile) * (T // tile + 1) // 2 or T % tile == 0,
            f"{where}: the last tile is not full, but it is a tile: round up.",
        )
        expect(
            got != n * (n - 1) // 2,
            f"{where}: {got:,} leaves the diagonal out. A tile on it is half past, and is visited.",
        )
        expect(
            got == want,
            f"{where}: {got:,} visited, expected {want:,}. The i-th tile of queries meets i tiles"
            " of keys.",
        )
    return "the lower triangle of tiles, diagonal included, also where the last one is not full."


def merged(f):
    """02.7: two partial softmaxes into one."""
    draw = np.random.default_rng(1)
    for scale in (1.0, 4000.0):
        scores, values = draw.standard_normal(12) * scale, draw.standard_normal((12, 4))
        part = lambda s, v: (s.max(), np.exp(s - s.max()).sum(), np.exp(s - s.max()) @ v)
        got = [
            np.asarray(a)
            for a in call(f, part(scores[:7], values[:7]), part(scores[7:], values[7:]))
        ]
        expect(len(got) == 3, f"return top, total and out: three things, not {len(got)}.")
        top, total, out = part(scores, values)
        expect(
            np.isfinite(got[1]).all() and np.isfinite(got[2]).all(),
            "scores near 4,000 overflow: take the common maximum out before exp.",
        )
        expect(
            np.allclose(got[0], top),
            f"top is the larger of the two maxima, {top:.3g}, not {float(got[0]):.3g}.",
        )
        expect(
            np.allclose(got[1], total),
            "total: each sum must be scaled by exp(its top - the common top) before they are"
            " added.",
        )
        expect(
            np.allclose(got[2], out), "out: the weighted values need the same scaling as the sums."
        )
    return "two halves make the whole, also for scores that would overflow."


CHECKS = {
    "02.1": broken_append,
    "02.2": cached_mask,
    "02.3": isolated,
    "02.4": cache_bytes,
    "02.5": crossover,
    "02.6": tiles_visited,
    "02.7": merged,
}

"""Checks of chapter 00, one token at a time.

Each returns what was right, or raises Wrong with what to look at.
"""

import numpy as np

from labkit import reference
from labkit.checks import call, expect


def cosine(f):
    """00.1: how far two vectors point the same way, whatever their lengths."""
    a, b = np.array([3.0, 4.0]), np.array([4.0, 3.0])
    got = call(f, a, b)
    expect(np.size(got) == 1, f"{np.size(got)} numbers: a dot product adds its products up.")
    got = float(got)
    expect(
        not np.isclose(got, 24),
        "24 is the dot product of (3, 4) and (4, 3): it grows with the lengths. Divide by both.",
    )
    expect(
        not np.isclose(got, 24 / 5),
        "4.8 has been divided by one length. Each vector has one of its own.",
    )
    expect(np.isclose(got, 0.96), f"(3, 4) and (4, 3) give {got:.3g}, expected 24 / (5 · 5).")
    for factor in (10.0, 0.1):
        scaled = float(call(f, factor * a, b))
        expect(
            np.isclose(scaled, 0.96),
            f"with one vector {factor} times as long it is {scaled:.3g}: a length must not count.",
        )
    apart = float(call(f, np.array([1.0, 0.0]), np.array([0.0, 2.0])))
    expect(apart == 0, f"at right angles it is {apart:.3g}, expected 0.")
    back = float(call(f, a, -a))
    expect(
        np.isclose(back, -1), f"a vector and its opposite give {back:.3g}: the sign says which way."
    )
    return "same direction 1, right angles 0, opposite -1, and no length counts."


def attend(f):
    """00.2: one query over keys and values."""
    generator = np.random.default_rng(0)
    q, k, v = (generator.standard_normal(n) for n in (16, (5, 16), (5, 3)))
    right = lambda scale: reference.softmax(k @ q * scale) @ v
    got = np.asarray(call(f, q, k, v))
    expect(
        got.shape != (5,),
        "five numbers are the weights, one for each key. Weigh the values with them, and add.",
    )
    expect(got.shape == (3,), f"the result is one value, shape (3,), not {got.shape}.")
    expect(
        not np.allclose(got, k @ q / 4 @ v),
        "scores alone are no shares: they can be negative, and do not sum to 1. Softmax comes"
        " between.",
    )
    expect(
        not np.allclose(got, right(1)),
        "the scores are not scaled: divide by the root of how many numbers a key has.",
    )
    expect(
        not np.allclose(got, right(1 / 16)),
        "scaled too much: the root of how many numbers a key has, not the number.",
    )
    expect(
        not np.allclose(got, right(5**-0.5)),
        "scaled by the number of keys: what counts is how many numbers a key has.",
    )
    expect(
        np.allclose(got, right(1 / 4)),
        "match, scale, softmax, weigh, add, in this order: one is missing, or out of its place.",
    )
    large = np.asarray(call(f, 1e4 * q, k, v))
    expect(
        np.isfinite(large).all(),
        "large scores overflow in exp: take the maximum out first, or use reference.softmax.",
    )
    return "match, scale, softmax, weigh, add; large scores included."


def layer_norm(f):
    """00.3: LayerNorm, from its definition."""
    generator = np.random.default_rng(1)
    x = generator.standard_normal((4, 64)) * 3 + 2
    weight, bias, eps = generator.standard_normal(64), generator.standard_normal(64), 1e-5
    got = np.asarray(call(f, x, weight, bias, eps))
    expect(got.shape == x.shape, f"shape {got.shape}, expected that of x, {x.shape}.")
    expect(
        not np.allclose(got, reference.rms_norm(x, weight, eps) + bias),
        "the mean is still in it: this is RMSNorm with a shift.",
    )
    columns = (x - x.mean(0)) / np.sqrt(x.var(0) + eps) * weight + bias
    expect(
        not np.allclose(got, columns),
        "mean and deviation are taken over the tokens. Each token is normalised on its own: over"
        " the last axis.",
    )
    middle = x - x.mean(-1, keepdims=True)
    expect(
        not np.allclose(
            got, middle / np.sqrt(x.var(-1, keepdims=True, ddof=1) + eps) * weight + bias
        ),
        "the variance is divided by n - 1: here it is the mean of the squares, divided by n.",
    )
    want = middle / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias
    expect(not np.allclose(got, want - bias), "the shift is missing: add bias at the end.")
    expect(
        np.allclose(got, want),
        "take the mean out, divide by the root of variance + eps, times weight, plus bias.",
    )
    flat = np.asarray(call(f, np.ones((1, 64)), weight, bias, eps))
    expect(np.isfinite(flat).all(), "a row of equal numbers divides by zero: eps is for that.")
    return "four rows, each on its own, and a row of equal numbers."


def losses(f):
    """00.4: the loss at every position, from the logits of one pass."""
    generator = np.random.default_rng(2)
    logits, ids = generator.standard_normal((6, 11)) * 3, [3, 1, 4, 1, 5, 9]
    p = reference.softmax(logits)
    got = np.asarray(call(f, logits, ids))
    expect(
        got.shape != (),
        "one number is their mean or sum: return the loss of each position.",
    )
    expect(
        got.shape != (6,),
        "six losses for six tokens: nothing predicts the first token, and the last prediction has"
        " no token here.",
    )
    expect(
        got.shape != (5, 5),
        "five rows against five tokens each make 25: a row is held against one token.",
    )
    expect(got.shape == (5,), f"six tokens make five predictions, not {got.shape}.")
    own = -np.log(p[np.arange(1, 6), ids[1:]])
    want = -np.log(p[np.arange(5), ids[1:]])
    expect(
        not np.allclose(got, own) and not np.allclose(got, -np.log(p[np.arange(5), ids[:5]])),
        "a row is held against its own token. Row t is what the model says after token t: it"
        " predicts token t + 1.",
    )
    expect(
        not np.allclose(got, -want), "the sign: a loss is minus the logarithm, and not negative."
    )
    expect(
        not np.allclose(got, -logits[np.arange(5), ids[1:]]),
        "a logit is not a log-probability: softmax comes first.",
    )
    expect(np.allclose(got, want), "-log of the probability that row t gives to token t + 1.")
    return "row t against token t + 1, for every t at once."


def top_p(f):
    """00.5: the fewest tokens whose probabilities reach p."""
    for p, limit, want in (
        ([0.5, 0.3, 0.15, 0.05], 0.9, [10 / 19, 6 / 19, 3 / 19, 0]),
        ([0.05, 0.5, 0.15, 0.3], 0.9, [0, 10 / 19, 3 / 19, 6 / 19]),
        ([0.5, 0.3, 0.15, 0.05], 0.4, [1, 0, 0, 0]),
        ([0.125, 0.25, 0.125, 0.5], 0.75, [0, 1 / 3, 0, 2 / 3]),
    ):
        p, want = np.array(p), np.array(want)
        got = np.asarray(call(f, p.copy(), limit), float)
        said = f"of {', '.join(f'{x:g}' for x in p)} with p = {limit}"
        expect(got.shape == p.shape, f"{said}: return a probability for each token, 0 for dropped.")
        kept = np.count_nonzero(got)
        due = np.count_nonzero(want)
        expect(kept > 0, f"{said} nothing is left: the first token always stays.")
        expect(
            np.array_equal(got > 0, want > 0) or not np.allclose(np.sort(got), np.sort(want)),
            f"{said} the numbers are right, in falling order: each must stand where its token stood"
            " in p.",
        )
        in_place = np.where(np.cumsum(p) - p < limit, p, 0)
        expect(
            np.array_equal(in_place > 0, want > 0) or not np.array_equal(got > 0, in_place > 0),
            f"{said} you take them in the order of the list: the likeliest come first, wherever"
            " they stand.",
        )
        expect(
            kept >= due,
            f"{said} you keep {kept}: together they do not reach p. The token that crosses it"
            " belongs to them.",
        )
        expect(kept <= due, f"{said} you keep {kept}: {due} reach p already.")
        expect(
            np.array_equal(got > 0, want > 0),
            f"{said} the wrong ones are kept: the likeliest come first, wherever they stand.",
        )
        expect(
            np.isclose(got.sum(), 1),
            f"{said} what is left sums to {got.sum():.3g}: divide, so that it is a distribution.",
        )
        expect(np.allclose(got, want), f"{said}: their proportions must stay as they were.")
    return "the crossing token stays, the order does not matter, and the rest sums to 1."


CHECKS = {
    "00.1": cosine,
    "00.2": attend,
    "00.3": layer_norm,
    "00.4": losses,
    "00.5": top_p,
}

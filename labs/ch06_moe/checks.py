"""Checks of chapter 06, mixtures of experts.

Each returns what was right, or raises Wrong with what to look at.
"""

import math

import numpy as np

from labkit import formulas, presets
from labkit.checks import call, expect


def combine(f):
    """06.1: answers, sorted by expert, back to their tokens and added up."""
    draw = np.random.default_rng(1)
    for T, A, X, D in ((1, 1, 3, 2), (5, 1, 4, 3), (6, 2, 4, 3), (7, 3, 8, 2)):
        experts = np.argsort(draw.random((T, X)), axis=1)[:, :A]
        order = np.argsort(experts.ravel(), kind="stable")
        y = draw.standard_normal((T * A, D))
        want = np.zeros((T, D))
        np.add.at(want, order // A, y)
        lost = np.zeros((T, D))
        lost[order // A] = y
        got = np.asarray(call(f, y.copy(), order.copy(), T, A))
        where = f"{T} tokens with {A} expert{'s' * (A > 1)} each"
        expect(
            got.shape == want.shape,
            f"{where}: return a row for each token, {want.shape}, not shape {got.shape}: a token's"
            " answers are added up.",
        )
        right = np.allclose(got, want)
        expect(
            right or not np.allclose(got, lost),
            f"{where}: of each token only one answer is left. Where an index comes up twice,"
            " out[index] = y and out[index] += y both keep the last: NumPy has another addition.",
        )
        expect(
            right or not np.allclose(got, y.reshape(T, A, D).sum(axis=1)),
            f"{where}: neighbouring rows were added, but rows lie expert by expert. Which token"
            " does `order` say that a row is of?",
        )
        expect(
            right or not np.allclose(got * A, want),
            f"{where}: the answers carry their weights already; add them, and don't average.",
        )
        expect(
            right,
            f"{where}: off by {np.abs(got - want).max():.2g}. Of which token is choice number c,"
            " where each has A?",
        )
    return "each answer is back at its token, and all are added."


def touched(f):
    """06.2: the experts that a batch touches."""
    for X, A, B in ((8, 2, 1), (8, 2, 4), (128, 8, 32), (256, 8, 64)):
        want = formulas.experts_read(X, A, B)
        got = call(f, X, A, B)
        where = f"{B} tokens, {A} of {X} experts each"
        right = math.isclose(got, want, rel_tol=1e-6)
        expect(
            right or not math.isclose(got, min(X, A * B)),
            f"{where}: that counts an expert again for each token that chose it. Two tokens may"
            " want the same.",
        )
        expect(
            right or not math.isclose(got, X - want, rel_tol=1e-6),
            f"{where}: these are the experts that nobody chose.",
        )
        expect(
            right or not math.isclose(got, X * (1 - (1 - 1 / X) ** (A * B)), rel_tol=1e-6),
            f"{where}: close. But a token's {A} choices are all different: with what probability"
            " does one token miss a given expert?",
        )
        expect(
            right,
            f"{where}: {got:.4g}, expected {want:.4g}. With what probability do all B"
            " tokens miss a given expert?",
        )
    return "each of X experts, less the chance that all tokens miss it."


def batch_that_reads(f):
    """06.3: the smallest batch that reads a share of the experts."""
    for name, share in (
        ("mixtral-8x7b", 0.5),
        ("qwen3-30b-a3b", 0.5),
        ("deepseek-v3", 0.5),
        ("qwen3-30b-a3b", 0.9),
        ("mixtral-8x7b", 0.25),
    ):
        c = presets[name]
        X, A = c.n_experts, c.n_active_experts
        read = lambda B: formulas.experts_read(X, A, B)  # noqa: B023
        want = next(B for B in range(1, 10_000) if read(B) >= share * X)
        got = call(f, c, share)
        where = f"{name}, {share:.0%}"
        expect(
            got == int(got),
            f"{where}: a batch is a whole number, not {got:.4g}: round up.",
        )
        expect(
            got == want or got != math.ceil(share * X / A),
            f"{where}: {got} would do if no two tokens chose the same expert.",
        )
        expect(
            got >= want,
            f"{where}: {got} tokens touch {read(max(1, int(got))) / X:.1%} of the experts, which is"
            " less.",
        )
        expect(got == want, f"{where}: {got} tokens do, but so do fewer. Return the smallest.")
    return "half of Mixtral with 3 users, of Qwen3-30B with 11, of DeepSeek-V3 with 22."


def corrected(f):
    """06.4: a router whose correction chooses and does not weigh."""
    draw = np.random.default_rng(4)
    for T, X, A in ((3, 4, 1), (5, 8, 2), (6, 16, 4)):
        scores = draw.uniform(0.05, 0.95, (T, X))
        bias = draw.uniform(-0.5, 0.5, X)
        want = np.argsort(-(scores + bias), axis=1)[:, :A]
        kept = np.take_along_axis(scores, want, axis=1)
        weights = kept / kept.sum(axis=1, keepdims=True)
        got = call(f, scores.copy(), bias.copy(), A)
        where = f"{T} tokens, {A} of {X} experts"
        expect(
            isinstance(got, tuple) and len(got) == 2,
            f"{where}: return two arrays, the experts and their weights.",
        )
        experts, shares = map(np.asarray, got)
        expect(
            experts.shape == shares.shape == (T, A),
            f"{where}: both are {(T, A)}, not {experts.shape} and {shares.shape}.",
        )
        without = np.argsort(-scores, axis=1)[:, :A]
        expect(
            (experts == want).all() or not (experts == without).all(),
            f"{where}: the correction has not changed a choice. Choose by scores + bias.",
        )
        expect(
            (experts == want).all() or not (experts == want[:, ::-1]).all(),
            f"{where}: best first, please.",
        )
        expect(
            (experts == want).all(), f"{where}: other experts are chosen than scores + bias has."
        )
        biased = kept + bias[want]
        expect(
            np.allclose(shares, weights)
            or not np.allclose(shares, biased / biased.sum(axis=1, keepdims=True)),
            f"{where}: the correction weighs, too. Take the weights from the scores alone.",
        )
        expect(
            np.allclose(shares.sum(axis=1), 1),
            f"{where}: a token's weights sum to {shares[0].sum():.2f}, not to 1.",
        )
        expect(
            np.allclose(shares, weights),
            f"{where}: weights are off by {np.abs(shares - weights).max():.2g}: they are in the"
            " proportion of the chosen experts' own scores.",
        )
    return "the correction chooses, the scores weigh."


# -- 06.5: loaders, right and wrong ----------------------------------------------------------------


def turned(stored, D, F):
    """As it should be."""
    return np.swapaxes(stored, 1, 2)


def by_shape(stored, D, F):
    """The published bug: a square matrix stays as it is."""
    return stored if stored.shape[2] == F else np.swapaxes(stored, 1, 2)


def reshaped(stored, D, F):
    """The right shape, and the numbers in their old order."""
    return stored.reshape(len(stored), D, F)


def as_it_is(stored, D, F):
    return stored


def only_square(stored, D, F):
    """Turns what is square, and reshapes the rest."""
    return turned(stored, D, F) if D == F else reshaped(stored, D, F)


def lies_right(f):
    """06.5: the test that tells a loader that turns from those that don't."""
    ask = lambda load: bool(call(f, load))
    expect(ask(turned), "it calls the right loader wrong: [X,F,D] with its last two axes swapped.")
    expect(
        not ask(as_it_is),
        "it passes a loader that does nothing at all. Compare the numbers with the matrices turned"
        " by yourself.",
    )
    expect(
        not ask(reshaped),
        "it passes one that reshapes: the shape is right, the numbers lie in their old order."
        " Compare values, and choose some that differ.",
    )
    expect(
        not ask(by_shape),
        "it passes the guess by shape. For which D and F can the shape not say which way the"
        " matrix lies?",
    )
    expect(
        not ask(only_square),
        "it passes one that turns square matrices only: try a second size, which is not square.",
    )
    return "the right one passes; the guess by shape and three others are caught."


CHECKS = {
    "06.1": combine,
    "06.2": touched,
    "06.3": batch_that_reads,
    "06.4": corrected,
    "06.5": lies_right,
}

"""What the tests of every chapter need to know about chapter 06."""

import math

import numpy as np

from tests.cases import LabCase, stored

LABS = {
    "dense": LabCase(
        calm=[({}, {"multiple": 2.0})],
        doctored=[
            ({"variant": "MoE, grouped"}, {"gap": 0.5}, "differs from the loop"),
        ],
    ),
    "real": LabCase(
        calm=[({}, {"multiple": 2.0})],
        doctored=[
            ({"variant": "MoE, gather"}, {"gap": 0.5}, "differs from the loop"),
        ],
    ),
    "union": LabCase(
        steady=True,
        doctored=[
            (
                {"batch": 8, "tokens_are": "independent"},
                {"of_formula": 1.3},
                "whether the router is even",
            ),
            ({"batch": 8, "tokens_are": "alike"}, {"touched": 99.0}, "more than they chose"),
        ],
    ),
    "balance": LabCase(
        rows=stored("ch06/balance"),  # three steps balance nothing
        doctored=[
            ({"variant": "correction"}, {"busiest": 9.0}, "what balances reaches the router"),
            ({"variant": "auxiliary loss"}, {"busiest": 9.0}, "what balances reaches the router"),
            ({"variant": "correction by another's load"}, {"busiest": 1.0}, "look what was"),
            ({"variant": "nothing"}, {"bits": float("nan")}, "train it longer"),
        ],
    ),
    "route": LabCase(
        steady=True,
        doctored=[
            ({"batch": 1}, {"touched": 1.9}, "one token touches 1.9 experts, where it chooses 2"),
            ({"batch": 4}, {"touched": 8.5}, "more than they chose"),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    square = np.arange(8.0).reshape(2, 2, 2)
    wide = np.arange(12.0).reshape(2, 3, 2)
    return [
        ("06.1", lambda y, order, T, A: y.reshape(T, A, -1).sum(1), "rows lie expert by expert"),
        ("06.1", lost_answers, "only one answer is left"),
        ("06.1", lambda y, order, T, A: right["06.1"](y, order, T, A) / A, "don't average"),
        ("06.1", lambda y, order, T, A: y.reshape(T, A, -1), "a row for each token"),
        ("06.2", lambda X, A, B: min(X, A * B), "again for each token"),
        ("06.2", lambda X, A, B: X * (1 - A / X) ** B, "nobody chose"),
        ("06.2", lambda X, A, B: X * (1 - (1 - 1 / X) ** (A * B)), "all different"),
        ("06.2", lambda X, A, B: A, "all B"),
        (
            "06.3",
            lambda c, share: math.ceil(share * c.n_experts / c.n_active_experts),
            "no two tokens chose the same",
        ),
        ("06.3", real_batch, "round up"),
        ("06.3", lambda c, share: 1, "which is less"),
        ("06.3", lambda c, share: right["06.3"](c, share) + 1, "so do fewer"),
        ("06.4", lambda scores, bias, A: right["06.4"](scores, 0 * bias, A), "not changed"),
        ("06.4", weighed, "weighs, too"),
        ("06.4", not_normalised, "not to 1"),
        ("06.4", lambda scores, bias, A: right["06.4"](scores, bias, A)[0], "two arrays"),
        ("06.5", lambda load: True, "does nothing at all"),
        ("06.5", lambda load: load(wide, 2, 3).shape == (2, 2, 3), "it passes one that reshapes"),
        (
            "06.5",
            lambda load: np.array_equal(load(wide, 2, 3), wide.swapaxes(1, 2)),
            "guess by shape",
        ),
        (
            "06.5",
            lambda load: np.array_equal(load(square, 2, 2), square.swapaxes(1, 2)),
            "square matrices only",
        ),
        ("06.5", lambda load: np.array_equal(load(square, 2, 2), square), "right loader wrong"),
    ]


def lost_answers(y, order, T, A):
    """Looks like an addition; of an index that comes up twice the last is kept."""
    out = np.zeros((T, y.shape[1]))
    out[order // A] += y
    return out


def real_batch(config, share):
    """Where the formula gives the share, between two whole numbers."""
    return max(1.0, math.log(1 - share) / math.log(1 - config.n_active_experts / config.n_experts))


def weighed(scores, bias, A):
    """The published bug: what is added for choosing weighs as well."""
    wanted = scores + bias
    experts = np.argsort(-wanted, axis=1)[:, :A]
    weights = np.take_along_axis(wanted, experts, axis=1)
    return experts, weights / weights.sum(axis=1, keepdims=True)


def not_normalised(scores, bias, A):
    experts = np.argsort(-(scores + bias), axis=1)[:, :A]
    return experts, np.take_along_axis(scores, experts, axis=1)

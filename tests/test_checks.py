"""A check passes the right answer, tells each usual mistake apart, and never raises on an unsolved cell."""
import numpy as np
import pytest

from labkit.checks import check
from labkit_labs.checks_02 import CHECKS


def right_bytes(c, tokens, batch, size):
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * tokens * batch * size


def right_mask(T, past):
    return np.arange(past + T) <= np.arange(past, past + T)[:, None]


def right_norm(x, w, b, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * w + b


def right_merge(a, b):
    top = max(a[0], b[0])
    x, y = np.exp(a[0] - top), np.exp(b[0] - top)
    return top, a[1] * x + b[1] * y, a[2] * x + b[2] * y


def right_crossover(c, batch):
    from labkit.formulas import kv_cache_bytes, weight_bytes

    return -(-int(weight_bytes(c)) // kv_cache_bytes(c, 1, batch))


RIGHT = {"02.1": 9, "02.2": right_bytes, "02.3": right_crossover, "02.4": right_mask, "02.5": right_norm, "02.6": right_merge}
WRONG = [
    ("02.1", 12, "a cache that works"), ("02.1", 8, "own token"), ("02.1", "nine", "whole number"),
    ("02.2", lambda c, t, b, s: right_bytes(c, t, b, s) * c.n_heads // c.n_kv_heads, "query heads"),
    ("02.2", lambda c, t, b, s: right_bytes(c, t, b, s) // 2, "half of it"),
    ("02.2", lambda c, t, b, s: 2 * c.n_layers * c.n_kv_heads * (c.d_model // c.n_heads) * t * b * s, "head_dim"),
    ("02.3", lambda c, b: right_crossover(c, b) + 1, "not the first"),
    ("02.3", lambda c, b: right_crossover(c, b) - 1, "still lighter"),
    ("02.4", lambda T, past: np.ones((T, T), bool), "hides the cache"),
    ("02.4", lambda T, past: np.tri(past + T, dtype=bool), "queries that are not there"),
    ("02.4", lambda T, past: np.tri(T, past + T, dtype=bool), "shift the triangle"),
    ("02.4", lambda T, past: right_mask(T, past).astype(int), "dtype"),
    ("02.5", lambda x, w, b, e: x / np.sqrt((x**2).mean(-1, keepdims=True) + e) * w, "this is RMSNorm"),
    ("02.5", lambda x, w, b, e: right_norm(x, w, 0, e), "bias is missing"),
    ("02.6", lambda a, b: (max(a[0], b[0]), a[1] + b[1], a[2] + b[2]), "scaled by exp"), ("02.6", lambda a, b: (a[0], a[1]), "three things"),
]


@pytest.mark.parametrize("exercise", CHECKS)
def test_the_right_answer_passes(exercise):
    assert check(exercise, RIGHT[exercise]).passed is True


@pytest.mark.parametrize("exercise,answer,hint", WRONG)
def test_each_mistake_is_told_apart(exercise, answer, hint):
    verdict = check(exercise, answer)
    assert verdict.passed is False and hint in verdict.message


@pytest.mark.parametrize("exercise", CHECKS)
def test_an_unsolved_cell_never_raises(exercise):
    assert check(exercise, ...).passed is None
    for answer in (None, lambda *a: None, lambda *a: 1 / 0, "text", np.zeros(3)):
        assert check(exercise, answer).passed in (None, False)
    assert "Exercise" in check(exercise, lambda *a: 1 / 0)._repr_html_()


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match="no exercise is called '02.7'"):
        check("02.7", 1)
    with pytest.raises(ValueError, match="no exercise is called '77.1'"):
        check("77.1", 1)

"""Each chapter's solutions pass their checks; a check tells each usual mistake apart, and never
raises on an unsolved cell.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from labkit import formulas, presets
from labkit.checks import check
from labkit_labs.ch02_kv_cache.checks import CHECKS

CHAPTERS = sorted((Path(__file__).parents[2] / "book/chapters").glob("[0-9][0-9]_*.md"))


def exercises(path: Path) -> dict[str, object]:
    """What the chapter's folded solutions leave in the names that its exercise cells check:
    {exercise: answer}.
    """
    text = path.read_text()
    asked = dict(re.findall(r'^check\("(\d\d\.\d+)", (\w+)\)$', text, re.M))
    assert re.findall(r"^`+\{solution\} ex-(\S+)$", text, re.M) == [
        exercise.replace(".", "-") for exercise in asked
    ], "an exercise has no solution"
    names = {"np": np, "formulas": formulas, "presets": presets}
    for solution in re.findall(r"^`+\{solution\}.*?^```python\n(.*?)^```$", text, re.M | re.S):
        exec(solution, names)
    return {exercise: names[name] for exercise, name in asked.items()}


SOLUTIONS = {exercise: answer for path in CHAPTERS for exercise, answer in exercises(path).items()}
_, right_bytes, right_crossover, right_mask, right_norm, right_merge = (
    SOLUTIONS[f"02.{i}"] for i in range(1, 7)
)
WRONG = [
    ("02.1", 12, "a cache that works"),
    ("02.1", 8, "own token"),
    ("02.1", "nine", "whole number"),
    ("02.2", lambda c, t, b, s: right_bytes(c, t, b, s) * c.n_heads // c.n_kv_heads, "query heads"),
    ("02.2", lambda c, t, b, s: right_bytes(c, t, b, s) // 2, "half of it"),
    (
        "02.2",
        lambda c, t, b, s: 2 * c.n_layers * c.n_kv_heads * (c.d_model // c.n_heads) * t * b * s,
        "head_dim",
    ),
    ("02.3", lambda c, b: right_crossover(c, b) + 1, "not the first"),
    ("02.3", lambda c, b: right_crossover(c, b) - 1, "still lighter"),
    ("02.4", lambda T, past: np.ones((T, T), bool), "hides the cache"),
    ("02.4", lambda T, past: np.tri(past + T, dtype=bool), "queries that are not there"),
    ("02.4", lambda T, past: np.tri(T, past + T, dtype=bool), "shift the triangle"),
    ("02.4", lambda T, past: right_mask(T, past).astype(int), "dtype"),
    (
        "02.5",
        lambda x, w, b, e: x / np.sqrt((x**2).mean(-1, keepdims=True) + e) * w,
        "this is RMSNorm",
    ),
    ("02.5", lambda x, w, b, e: right_norm(x, w, 0, e), "bias is missing"),
    ("02.6", lambda a, b: (max(a[0], b[0]), a[1] + b[1], a[2] + b[2]), "scaled by exp"),
    ("02.6", lambda a, b: (a[0], a[1]), "three things"),
]


@pytest.mark.parametrize("exercise", SOLUTIONS)
def test_the_chapters_solution_passes(exercise):
    assert check(exercise, SOLUTIONS[exercise]).passed is True, check(
        exercise, SOLUTIONS[exercise]
    ).message


def test_every_check_belongs_to_an_exercise():
    assert set(CHECKS) == set(SOLUTIONS)


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

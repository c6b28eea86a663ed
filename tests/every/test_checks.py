"""Each chapter's solutions pass their checks; a check tells each usual mistake apart, and never
raises on an unsolved cell.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from labkit import chapters, checks, formulas, presets
from labkit.checks import check
from tests import cases

OPEN = chapters.opened()


def exercises(page: Path) -> dict[str, object]:
    """What a page's folded solutions leave in the names that its exercise cells check:
    {exercise: answer}.
    """
    text = page.read_text()
    asked = dict(re.findall(r'^check\("(\d\d\.\d+)", (\w+)\)$', text, re.M))
    solved = re.findall(r"^`+\{solution\} ex-(\S+)$", text, re.M)
    assert solved == [exercise.replace(".", "-") for exercise in asked], "one has no solution"
    names = {"np": np, "formulas": formulas, "presets": presets}
    for solution in re.findall(r"^`+\{solution\}.*?^```python\n(.*?)^```$", text, re.M | re.S):
        exec(solution, names)
    return {exercise: names[name] for exercise, name in asked.items()}


SOLUTIONS = {
    exercise: answer
    for chapter in OPEN
    for page in chapter.pages
    for exercise, answer in exercises(page).items()
}
WRONG = [case for chapter in OPEN for case in cases.of(chapter).wrong_answers(SOLUTIONS)]


@pytest.mark.parametrize("exercise", SOLUTIONS)
def test_the_chapters_solution_passes(exercise):
    verdict = check(exercise, SOLUTIONS[exercise])
    assert verdict.passed is True, verdict.message


@pytest.mark.parametrize("chapter", OPEN, ids=lambda chapter: chapter.stem)
def test_every_check_belongs_to_an_exercise(chapter):
    asked = {exercise for exercise in SOLUTIONS if exercise.startswith(chapter.number)}
    assert set(checks.of_chapter(chapter.number)) == asked


@pytest.mark.parametrize("exercise,answer,hint", WRONG)
def test_each_mistake_is_told_apart(exercise, answer, hint):
    verdict = check(exercise, answer)
    assert verdict.passed is False and hint in verdict.message


@pytest.mark.parametrize("exercise", SOLUTIONS)
def test_an_exercise_knows_two_mistakes_at_least(exercise):
    assert sum(case[0] == exercise for case in WRONG) >= 2


@pytest.mark.parametrize("exercise", SOLUTIONS)
def test_an_unsolved_cell_never_raises(exercise):
    assert check(exercise, ...).passed is None
    for answer in (None, lambda *a: None, lambda *a: 1 / 0, "text", np.zeros(3)):
        assert check(exercise, answer).passed in (None, False)
    assert "Exercise" in check(exercise, lambda *a: 1 / 0)._repr_html_()


def test_an_unknown_exercise_is_refused():
    for exercise in ("02.77", "77.1", ""):
        with pytest.raises(ValueError, match=f"no exercise is called '{exercise}'"):
            check(exercise, 1)

"""Scenes that are grids: texts, ends, levels and labels of their boxes."""

import re
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from labkit.widgets import scene
from labkit.widgets.scene import Box, Meter, Scene

SIDES = [0.5, -0.25, 0, 1.5]


def grid(**changes) -> Scene:
    """Four steps of two rows and three columns."""
    given = Scene(
        label="Grid",
        axes="steps across, requests down",
        columns=3,
        rows=2,
        boxes=[
            Box(-1, "slot", 0, 0, 1, 1),
            Box(1, "held", 0, 0, 2, 1, text="r<3>", until=3),
            Box(0, "level", 2, 1, 1, 1, level=SIDES),
            Box(2, "level", 1, 1, 1, 1, level=-0.64),
        ],
        says=["a", "b", "c", "d"],
        meters=[Meter("steps", [1, 2, 3, 4], 4)],
        legend=[("held", "now", "held")],
        row=1.5,
        down=["r0", ""],
        across=["", "1", ""],
    )
    return replace(given, **changes)


def drawn(shown: Scene, now: int) -> list:
    """Its boxes as they are drawn at a step."""
    return BeautifulSoup(scene.picture(shown, now), "html.parser").select("span")


def test_a_box_with_an_end_is_there_from_its_step_until_that_one():
    assert [drawn(grid(), now)[1]["data-t"] for now in range(4)] == [
        "future",
        "now",
        "past",
        "gone",
    ]
    assert drawn(grid(), 0)[1]["data-until"] == "3"
    assert {drawn(grid(), now)[0]["data-t"] for now in range(4)} == {"past"}, "before all"
    assert scene.tense(2, None, 99) == "past" and scene.tense(2, 3, 3) == "gone"


def test_a_grid_holds_text_and_labels_as_words():
    html = scene.picture(grid(), 1)
    assert "r&lt;3&gt;" in html and drawn(grid(), 1)[1].text == "r<3>"
    labels = {b.text: b["style"] for b in BeautifulSoup(html, "html.parser").select("b")}
    # the first column and row are the labels' own
    assert labels == {"r0": "--y: 2", "1": "--x: 3"}
    assert drawn(grid(), 1)[1]["style"] == "--x: 2; --y: 2; --w: 2; --h: 1"


def test_the_area_of_a_square_is_its_level_and_its_sign_is_no_colour():
    moving = [drawn(grid(), now)[2] for now in range(4)]
    sides = [float(re.search(r"--level: (\S+)", box["style"])[1]) for box in moving]
    assert sides == [pytest.approx(min(1, abs(v)) ** 0.5, abs=0.01) for v in SIDES]
    assert [box["data-sign"] for box in moving] == ["+", "-", "+", "+"]
    still = drawn(grid(), 3)[3]
    assert still["data-sign"] == "-" and "--level: 0.8" in still["style"]
    assert not still.has_attr("data-level"), "what does not move is not shipped"
    assert scene.levels([grid()]) == [[0.71, -0.5, 0, 1]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"boxes": [Box(0, "gold", 0, 0, 1, 1)]}, "no box looks 'gold'"),
        ({"row": None}, "a 'held' box with a text, a level or an end needs a grid"),
        ({"says": ["a"]}, "a box has 4 levels, but the scene 1 steps"),
    ],
)
def test_a_scene_that_cannot_be_drawn_is_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        grid(**change)

"""The films: every layout, caption and number of every clip, and the audit that looks at them."""

import re
from pathlib import Path

import numpy as np
import pytest
import typst
from manim import DOWN, LEFT, RIGHT, Circle, FadeIn, Line, Rectangle, VGroup

from animations.stage import style
from animations.stage.audit import inspect
from animations.stage.charts import BarChart, BarPair, MemoryBar
from animations.stage.clock import CourseScene
from animations.stage.mobjects import (
    Bracket,
    CacheRow,
    Chip,
    LayerBox,
    Note,
    Query,
    dress,
    token_text,
)
from animations.stage.style import GOLD, MIST, NAVY, Label, formula

ANIMATIONS = Path(style.__file__).parent


def scene(body, name="Small", **names):
    """A scene class whose `construct` is `body(self)`."""

    def construct(self):
        self.say("One short sentence.", "only")
        body(self)
        self.finish()

    return type(
        name,
        (CourseScene,),
        {"construct": construct, "clip_name": name.lower(), "poster_at": "only", **names},
    )


def test_colours_come_from_the_palette_alone():
    for path in ANIMATIONS.glob("*.py"):
        assert not re.search(r"#[0-9A-Fa-f]{6}\b", path.read_text()), path.name


# -- the audit sees what it is for -------------------------------------------------------
def box(look="layer", width=3.0):
    return dress(Rectangle(width=width, height=1), look)


def meeting(self):
    """Two texts that are apart before and after the move, and meet in the middle of it."""
    a, b = Label("left").shift(2 * LEFT), Label("right").shift(2 * RIGHT)
    self.add(a, b)
    self.move(a.animate.shift(4 * RIGHT), b.animate.shift(4 * LEFT))


DEFECTS = {
    "off the frame": lambda self: self.add(Label("too far").shift(7 * RIGHT)),
    "in the captions' place": lambda self: self.add(Label("too low").shift(3.2 * DOWN)),
    "texts touch": lambda self: self.add(Label("one"), Label("two").shift(0.2 * RIGHT)),
    "crosses a box's edge": lambda self: self.add(box(width=1), Label("wider than its box")),
    "covered by a box": lambda self: self.add(Label("hidden"), box(width=5)),
    "too near a box": lambda self: self.add(box(), Label("close").put([0, 0.65, 0])),
    "a line runs through it": lambda self: self.add(
        Label("crossed"), Line(3 * LEFT, 3 * RIGHT, color=NAVY)
    ),
    "too small": lambda self: self.add(Label("tiny", 0.1)),
    "gold is text": lambda self: self.add(Label("gold", color=GOLD)),
    "too little contrast": lambda self: self.add(Label("pale", color=MIST)),
    "gold without outline": lambda self: self.add(
        Circle(0.3).set_fill(GOLD, 1).set_stroke(width=0)
    ),
}


@pytest.mark.parametrize("rule", DEFECTS)
def test_each_seeded_defect_is_found(rule):
    def body(self):
        DEFECTS[rule](self)
        self.rest()

    assert rule in {f.rule for f in inspect(scene(body)).findings}


def test_texts_that_meet_only_in_the_middle_of_a_move_are_found():
    assert [f.rule for f in inspect(scene(meeting)).findings] == ["texts touch"]


def gallery(self):
    """One of each object, doing what it does."""
    row = CacheRow("keys", [np.array([x, 1, 0]) for x in (-5, -4, -3)])
    query, note = Query([-4, 1.8, 0]), Note("first", [-6, 3.3, 0])
    layer, chip = LayerBox("a layer", 3).move_to([-4, 2.5, 0]), Chip(" token").move_to([-1, 3.3, 0])
    pair = BarPair(("with", "without"), np.array([0.5, 3, 0]), 40, 1.9)
    memory = MemoryBar([1, 0.6, 0], 1000, "{:,.0f} bytes".format)
    chart = BarChart({"naive": 12.0, "cached": 3.0}, {"naive": "again"}).move_to([2, -1.2, 0])
    self.add(
        row,
        layer,
        note,
        chip,
        pair,
        memory,
        chart,
        formula("n^2 / 2").move_to([-4, -2, 0]),
    )
    self.move(row.write([layer.get_center()] * 2), chip.animate.look("active"))
    self.move(row.settle(), query.appear(), note.change("second"), memory.to(750), pair.to(4, 40))
    self.move(query.read(row.cells), FadeIn(Bracket(VGroup(*row.cells), "cache")), chip.feed(layer))
    self.move(query.leave())


def test_every_object_is_drawn_without_a_defect():
    made = inspect(scene(gallery))
    assert made.findings == []
    assert {"second", "750 bytes", "40", "12", "n^2 / 2", "cache"} <= made.texts


@pytest.mark.parametrize(
    "token, shown", [(" cat", "cat"), ("'s", "'s"), ("\n", "↵"), (" ", "␣"), ("\t", "⇥")]
)
def test_a_chip_shows_tokens_and_white_space(token, shown):
    assert token_text(token) == shown


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: CacheRow("k", [np.zeros(3)]).write([np.zeros(3)] * 2), "1 free slots"),
        (lambda: MemoryBar(np.zeros(3), 10, str).show(11), "holds 10"),
        (lambda: Note("x" * 61, np.zeros(3)), "room for 60"),
        (lambda: Label(" "), "something to show"),
        (lambda: Label("of no alphabet: \u0378"), "no font has \u0378"),
    ],
)
def test_bad_input_is_one_clear_sentence(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_missing_fonts_are_named(monkeypatch):
    monkeypatch.setattr(
        typst, "Fonts", lambda: type("None", (), {"families": lambda self: ["DejaVu Sans"]})()
    )
    with pytest.raises(
        RuntimeError, match="lacks Inter and JetBrains Mono: install the packages fonts-inter"
    ):
        style.fonts.__wrapped__()

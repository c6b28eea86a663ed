"""The films: every layout, caption and number of every clip, and the audit that looks at them."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typst
from manim import DOWN, LEFT, RIGHT, Circle, FadeIn, Line, Rectangle, VGroup

from animations.scenes import clips
from animations.scenes.ch02_kv_cache import KVCacheLoop
from animations.scenes.ch02b_online_softmax import OnlineSoftmax
from animations.stage import style
from animations.stage.audit import inspect
from animations.stage.charts import BarChart, BarPair, MemoryBar
from animations.stage.clock import CourseScene
from animations.stage.mobjects import (
    Bracket,
    CacheRow,
    Chip,
    LayerBox,
    Legend,
    Note,
    Query,
    dress,
    token_text,
)
from animations.stage.render import sources
from animations.stage.style import GOLD, MIST, NAVY, Label, formula
from labkit import results
from labkit.trace import DecodeStep, Trace

ANIMATIONS = Path(style.__file__).parent
_reports = {}


def report(scene_class):
    """Each scene is inspected once, whatever is asked of it."""
    if scene_class not in _reports:
        _reports[scene_class] = inspect(scene_class)
    return _reports[scene_class]


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


each_clip = pytest.mark.parametrize("clip", clips(), ids=lambda c: c.__name__)


# -- every clip of the course ------------------------------------------------------------
@each_clip
def test_no_layout_defect_at_any_moment(clip):
    assert report(clip).findings == []


@each_clip
def test_captions_can_be_read_and_stay_inside_the_clip(clip):
    made = report(clip).scene
    assert made.cues[0].start == 0 and made.cues[-1].end <= made.time + 1e-6
    assert made.clock.late == []
    for before, after in pairwise(made.cues):
        assert before.end <= after.start + 1e-9
    for cue in made.cues:
        lines = cue.text.split("\n")
        assert len(lines) <= 2 and max(map(len, lines)) <= 42
        assert len(cue.text) / (cue.end - cue.start) <= 20
    assert " ".join(c.text.replace("\n", " ") for c in made.cues) == " ".join(
        m.sentence for m in made.moments
    )


@each_clip
def test_a_clip_says_what_it_is(clip):
    assert (
        re.fullmatch(r"[a-z0-9_]+", clip.clip_name) and len(clip.title) < 80 and len(clip.alt) > 100
    )
    assert [c.clip_name for c in clips()].count(clip.clip_name) == 1
    assert 20 <= report(clip).scene.time <= 50


@each_clip
def test_a_clip_names_the_results_it_reads(clip):
    measured = [p for p in sources(clip) if p.parent == results.folder()]
    assert len({p.name.split(".")[0] for p in measured}) == len(clip.reads)


def test_colours_come_from_the_palette_alone():
    for path in ANIMATIONS.glob("*.py"):
        assert not re.search(r"#[0-9A-Fa-f]{6}\b", path.read_text()), path.name


# -- the numbers on screen ---------------------------------------------------------------
def stored(folder, prompt, new, multiple=7.25):
    """Traces and a measured row as the clip reads them, for any text."""
    text = [*prompt, *new]
    steps = {"cached": [], "naive": []}
    for i, token in enumerate(new):
        n = len(prompt) + i
        fresh = n if i == 0 else 1
        steps["cached"].append(DecodeStep(token, text[n - fresh : n], fresh, n, fresh, n))
        steps["naive"].append(DecodeStep(token, text[:n], n, n, 0, 0))
    for kind, each in steps.items():
        Trace("decode", "a test", {"prompt": prompt, "layers": 4}, each).save(
            folder / f"ch02/decode_{kind}.trace.json"
        )
    rows = [
        dict(variant=v, multiple=m, context=50, new=9, tokens_per_second=2.0 * m)
        for v, m in (("naive", 1.0), ("cached", multiple))
    ]
    results.save("ch02/baseline", rows, into=folder)


def test_the_cache_clip_shows_the_numbers_of_its_traces():
    cached, naive = (
        Trace.load(results.folder() / f"ch02/decode_{kind}.trace.json").steps
        for kind in ("cached", "naive")
    )
    multiple = results.row("ch02/baseline", variant="cached")["multiple"]
    seen, made = report(KVCacheLoop).texts, report(KVCacheLoop).scene
    assert {
        f"{sum(s.computed for s in cached):,}",
        f"{sum(s.computed for s in naive):,}",
        f"{multiple:.1f}×",
    } <= seen
    assert [b.value for b in made.score.bars] == [
        sum(s.computed for s in cached),
        sum(s.computed for s in naive),
    ]
    assert [len(row) - 1 for row in made.rows] == [s.computed for s in naive]
    assert len(made.keys.cells) == len(made.values.cells) == cached[-1].held
    assert [c.token for c in made.chips] == [
        *Trace.load(results.folder() / "ch02/decode_cached.trace.json").meta["prompt"],
        *(s.token for s in cached),
    ]


def test_the_cache_clip_follows_other_traces(tmp_path, monkeypatch):
    stored(tmp_path, ["Über", " antidisestablishment", "\n", " is"], [" a", " “word”", "#", "."])
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    other = inspect(KVCacheLoop)
    assert other.findings == []
    assert {
        "Über",
        "↵",
        "“word”",
        "#",
        "one of the model's 4 layers",
        "7",
        "22",
        "7.2×",
    } <= other.texts
    assert any(t.endswith("…") for t in other.texts)


def test_the_softmax_clip_shows_the_numbers_of_its_trace():
    seen, made = report(OnlineSoftmax).texts, report(OnlineSoftmax).scene
    visited = [s for s in made.run.steps if not s.skipped]
    assert {f"{x:.2f}".replace("-", "−") for s in visited for x in (*s.top, *s.total)} <= seen
    assert [b.value for b in made.score.bars] == [16, made.run.meta["score_matrix_floats"]]
    assert (
        f"× {min(s.change for a, s in pairwise(visited) if a.query_tile == s.query_tile):.2f}"
        in seen
    )
    longest = max(results.load("ch02/flash")["rows"], key=lambda r: r["context"])["context"]
    ours, theirs = (
        results.row("ch02/flash", kind=k, context=longest)["peak_bytes"]
        for k in ("fused", "written out")
    )
    assert {
        f"{theirs / ours:,.0f}×",
        f"{ours / 1e6:,.0f} MB at the peak instead of {theirs / 1e6:,.0f} MB",
    } <= seen


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d["meta"].update(prompt=["another"]), "same text"),
        (lambda d: d["meta"].update(prompt=["x"] * 12), "at most 14 tokens"),
    ],
)
def test_traces_that_cannot_be_shown_are_refused(change, message, tmp_path, monkeypatch):
    stored(tmp_path, ["a", " b"], [" c", " d", " e"])
    for kind in ("cached", "naive")[: 1 if "same" in message else 2]:
        path = tmp_path / f"ch02/decode_{kind}.trace.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=message):
        inspect(KVCacheLoop)


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
    pair = BarPair("Keys", ("with", "without"), np.array([0.5, 3, 0]), 40, 2.5)
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
        Legend({"stored": "kept"}, np.array([-6, -1, 0])),
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

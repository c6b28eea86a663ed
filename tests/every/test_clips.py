"""Every clip of the course: no defect at any moment, captions that can be read, sources named."""

import re
from itertools import pairwise

import pytest

from animations.scenes import clips
from animations.stage import audit
from animations.stage.clock import NarrationClock
from animations.stage.render import sources
from animations.stage.style import TEXT
from labkit import results
from tests.cases import report

each_clip = pytest.mark.parametrize(
    "clip", clips(), ids=lambda clip: f"{clip.__module__.partition('.ch')[2]}-{clip.__name__}"
)


@each_clip
def test_no_layout_defect_at_any_moment(clip):
    assert report(clip).findings == []


@each_clip
def test_a_clip_can_be_narrated_and_read_on_a_phone(clip, monkeypatch):
    """In a film a voice sets the times; and no letter is smaller than a phone can show."""
    monkeypatch.setattr(audit, "SMALLEST", TEXT)
    said = " ".join(m.sentence for m in report(clip).scene.moments).split()
    words = [(word, 0.5 * i, 0.5 * i + 0.5) for i, word in enumerate(said)]
    made = audit.inspect(clip, NarrationClock(words, words[-1][2] + 2))
    assert made.findings == [] and made.scene.time == pytest.approx(words[-1][2] + 2, abs=0.1)


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
    measured = {
        path.relative_to(results.folder()).as_posix().partition(".")[0]
        for path in sources(clip)
        if path.is_relative_to(results.folder())
    }
    assert measured == {name.partition(".")[0] for name in clip.reads}

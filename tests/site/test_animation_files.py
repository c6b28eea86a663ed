"""The films' time and files: the clip's clock, the narrator's, captions, and a real render."""

import json
import subprocess

import pytest
from manim import UP, FadeIn

from animations.scenes.ch01_where_the_work_goes import WeightsStream
from animations.scenes.ch02_kv_cache import KVCacheLoop
from animations.stage.audit import inspect
from animations.stage.clock import LINE, NarrationClock, fold
from animations.stage.mobjects import Cell
from animations.stage.render import main, render, sources
from labkit import results
from tests.cases import report
from tests.site.test_animations import gallery, scene


def test_sentences_fold_into_balanced_captions():
    assert fold("Short.") == ["Short."]
    long = (
        "A sentence of a hundred and twenty characters or so has to be shown in two captions, as"
        " each holds two lines of forty-two."
    )
    assert len(fold(long)) == 2 and " ".join(fold(long)).replace("\n", " ") == long
    assert all(len(line) <= LINE for part in fold(long) for line in part.split("\n"))


def spoken(text, pace=0.4):
    return [(word, i * pace, (i + 1) * pace) for i, word in enumerate(text.split())]


def two_moments(self):
    self.move(FadeIn(Cell()))
    self.say("Then comes the second thought.", "second")
    self.at("second thought")
    self.move(FadeIn(Cell().shift(UP)))


def test_a_film_waits_for_the_narrators_words():
    words = spoken("One short sentence. And now, after a while, then comes the second thought.")
    made = inspect(scene(two_moments), NarrationClock(words, 9.0)).scene
    assert made.moments[1].start == pytest.approx(words[8][1] - NarrationClock.LEAD, abs=0.05)
    assert made.time == pytest.approx(9.0, abs=0.05) and made.clock.late == []
    assert " ".join(c.text.replace("\n", " ") for c in made.cues) == " ".join(w[0] for w in words)


def test_a_film_may_name_its_own_words_for_a_moment():
    words = spoken("The narrator says something else here: look, a second thought.")
    made = inspect(
        scene(two_moments), NarrationClock(words, 6.0, {"only": None, "second": "something else"})
    ).scene
    assert made.moments[1].start == pytest.approx(words[3][1] - NarrationClock.LEAD, abs=0.05)


def test_a_phrase_nobody_says_is_an_error_and_a_slow_scene_is_late():
    with pytest.raises(LookupError, match=r"does not say 'Then comes the second thought\.'"):
        inspect(
            scene(two_moments), NarrationClock(spoken("One short sentence. Nothing more."), 5.0)
        )
    with pytest.raises(LookupError, match="not in the sentence"):
        inspect(scene(lambda self: self.at("never said")))
    fast = inspect(
        scene(two_moments),
        NarrationClock(spoken("One short sentence. Then comes the second thought.", 0.1), 1.0),
    ).scene
    assert [what for what, _ in fast.clock.late] == [
        "Then comes the second thought.",
        "second thought",
        "the end",
    ]


def test_the_cache_clip_can_be_narrated():
    words = spoken(" ".join(m.sentence for m in report(KVCacheLoop).scene.moments))
    made = inspect(KVCacheLoop, NarrationClock(words, words[-1][2] + 2, pace=0.9))
    assert made.findings == [] and made.scene.time == pytest.approx(words[-1][2] + 2, abs=0.1)


# -- files -------------------------------------------------------------------------------
def test_a_real_render_plays_anywhere(tmp_path):
    small = scene(gallery, "Gallery")
    clip = render(small, "240p", tmp_path)
    ask = [
        "ffprobe",
        "-v",
        "error",
        "-show_entries",
        "stream=codec_name,pix_fmt,width,height:format=duration",
        "-of",
        "json",
        str(clip.mp4),
    ]
    said = json.loads(subprocess.run(ask, capture_output=True, text=True, check=True).stdout)
    stream = said["streams"][0]
    assert (stream["codec_name"], stream["pix_fmt"], stream["width"], stream["height"]) == (
        "h264",
        "yuv420p",
        426,
        240,
    )
    assert (
        float(said["format"]["duration"])
        == pytest.approx(clip.seconds, abs=0.01)
        == pytest.approx(inspect(small).scene.time, abs=0.4)
    )
    assert clip.mp4.read_bytes().index(b"moov") < clip.mp4.read_bytes().index(b"mdat")
    assert clip.mp4.stat().st_size < 200_000 and clip.poster.stat().st_size < 80_000
    assert (
        clip.vtt.read_text().startswith("WEBVTT\n\n00:00:00.000 --> ")
        and "One short sentence." in clip.vtt.read_text()
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "gallery.mp4",
        "gallery.vtt",
        "gallery.webp",
    ]


def test_a_scene_that_fails_leaves_no_files(tmp_path):
    with pytest.raises(ZeroDivisionError):
        render(scene(lambda self: 1 / 0), "240p", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_quality_is_refused(tmp_path):
    with pytest.raises(ValueError, match="films come in 240p, 480p"):
        render(KVCacheLoop, "481p", tmp_path)


def test_the_command_says_what_is_wrong_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    assert main(["KVCacheLoop", "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().split("\n")) == 1


def test_a_clip_is_made_of_its_formulas_presets_and_tables():
    """When one changes it is drawn again; not when what measured or loads its numbers does."""
    made_of = {path.name for path in sources(WeightsStream)}
    assert {"ch01_where_the_work_goes.py", "style.py", "palette.py"} <= made_of
    assert {"costs.py", "published.py", "gpus.json"} <= made_of
    assert not made_of & {"ch02_kv_cache.py", "results.py", "plan.c"}
    measured = {path.name for path in sources(KVCacheLoop)}
    assert "decode_cached.trace.json" in measured and "costs.py" not in measured

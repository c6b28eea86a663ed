"""Captions: the same words at the same time in the WebVTT file, the player and the transcript."""

import pytest
from PIL import Image

from animations.stage.clock import Cue, write_vtt
from course.blocks import clip
from tests.site.test_blocks import Site


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "00:00:00.000"),
        (59.9996, "00:01:00.000"),
        (3599.9997, "01:00:00.000"),
        (3601.5, "01:00:01.500"),
        (62.0004, "00:01:02.000"),
    ],
)
def test_a_caption_is_timed_to_the_nearest_thousandth(tmp_path, seconds, written):
    """Rounded first, then split: a minute has no second 60."""
    vtt = write_vtt([Cue(seconds, seconds + 4000, "Hello")], tmp_path / "a.vtt").read_text()
    assert f"\n{written} --> 0" in vtt


WORDS = [
    "if k < W and q & 1 > 0, tokens <eos> stop",
    "a caption of two lines, the first\nand the second",
    "it's --> an arrow",
    "one <b>bold</b> &amp; so on",
    "before an empty line\n\nand after it",
]


def test_a_captions_words_are_the_same_in_file_player_and_transcript(browser, tmp_path):
    """`<`, `&` and `-->` are words, not markup; a line break is a space in the transcript."""
    site = Site(tmp_path)
    clips = tmp_path / "book/_static/clips"
    clips.mkdir(parents=True)
    cues = [Cue(2 * k, 2 * k + 1.5, text) for k, text in enumerate(WORDS)]
    vtt = write_vtt(cues, clips / "small.vtt")
    Image.new("RGB", (64, 36)).save(clips / "small.webp")
    (clips / "small.mp4").write_bytes(b"")
    page = site.build("```{clip} small\nA clip.\n```", html_static_path=["book/_static"])
    flat = lambda text: " ".join(text.split())
    said = [flat(p.get_text()) for p in page.select("figure.clip details p[data-cue]")]
    seen = browser.new_page()
    seen.goto("data:text/html,<video><track default kind=captions></video>")
    shown = seen.evaluate(
        """async (text) => {
            const track = document.querySelector("track");
            track.src = "data:text/vtt;base64," + btoa(text);
            track.track.mode = "showing";
            await new Promise((ok) => { track.onload = ok; });
            return [...track.track.cues].map((c) => [c.startTime, c.getCueAsHTML().textContent]);
        }""",
        vtt.read_text(),
    )
    seen.close()
    assert [flat(text) for _, text in shown] == said == [flat(text) for text in WORDS]
    assert [start for start, _ in shown] == [cue.start for cue in cues]
    assert said == [flat(text) for _, _, text in clip.cues(vtt.read_text())]

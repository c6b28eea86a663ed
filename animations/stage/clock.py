"""Time and captions. A scene says what it shows; a clock decides when.

A chapter's clip runs by a `ClipClock`: its own sentences are the captions, and none leaves before
it can be read. The film runs the same class by a `NarrationClock`: the recording decides, the scene
waits for its words, and the captions are the narrator's.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path

from manim import CairoRenderer, Scene, config

from animations.stage.style import GROUND, MOVE, PAUSE
from labkit.traces import Trace, stored

CPS = 17  # characters a second that everybody can read
LINE, LINES = 42, 2  # a caption's width in characters, and its lines


@dataclass(frozen=True)
class Cue:
    """A caption and its seconds."""

    start: float
    end: float
    text: str  # one or two lines


@dataclass(frozen=True)
class Moment:
    """A named stretch of a scene: it begins with a sentence and lasts until the next moment."""

    name: str
    start: float
    sentence: str


def fold(sentence: str) -> list[str]:
    """A sentence as captions of one or two lines of at most 42 characters, cut so that they are
    about equally long.
    """
    count = -(-len(textwrap.wrap(sentence, LINE)) // LINES)
    while any(len(textwrap.wrap(part, LINE)) > LINES for part in _even(sentence, count)):
        count += 1
    return [
        "\n".join(_even(part, len(textwrap.wrap(part, LINE)))) for part in _even(sentence, count)
    ]


def _even(text: str, count: int) -> list[str]:
    """At most `count` lines, as equal as words allow."""
    width = max(len(text) // count, max(map(len, text.split())))
    while len(lines := textwrap.wrap(text, width)) > count:
        width += 1
    return lines


def spread(parts: list[str], start: float, end: float) -> list[Cue]:
    """Captions one after the other, each for its share of the letters."""
    total, cues = sum(map(len, parts)), []
    for part in parts:
        stop = start + (end - start) * len(part) / total
        cues.append(Cue(start, stop, part))
        total, start = total - len(part), stop
    return cues


class ClipClock:
    """A clip's own pace. `pace` stretches (> 1) or tightens every move and pause."""

    def __init__(self, pace: float = 1.0):
        self.pace, self.late = pace, []

    def say(self, scene: CourseScene, moment: Moment | None) -> None:
        self.finish_reading(scene)

    def at(self, scene: CourseScene, phrase: str) -> None:
        now = scene.moments[-1]
        if phrase not in now.sentence:
            raise LookupError(
                f"{scene.clip_name}: {phrase!r} is not in the sentence {now.sentence!r} of moment"
                f" {now.name!r}"
            )
        scene.wait_until_time(now.start + now.sentence.index(phrase) / CPS)

    def rest(self, scene: CourseScene, seconds: float) -> None:
        scene.wait(seconds * self.pace)

    def finish(self, scene: CourseScene) -> None:
        self.finish_reading(scene)
        self.rest(scene, 2 * PAUSE)

    def finish_reading(self, scene: CourseScene) -> None:
        """Wait until the caption on screen has been there long enough."""
        if scene.moments:
            scene.wait_until_time(scene.moments[-1].start + len(scene.moments[-1].sentence) / CPS)

    def cues(self, scene: CourseScene) -> list[Cue]:
        ends = [m.start for m in scene.moments[1:]] + [scene.time]
        return [
            cue
            for m, end in zip(scene.moments, ends)
            for cue in spread(fold(m.sentence), m.start, end)
        ]


class NarrationClock:
    """The film's time: `words` are (word, start, end) in seconds of the scene's recording,
    `duration` its length.

    phrases: for a moment's name (or an `at` phrase) the narrator's words at which it begins; None =
    as soon as the scene gets there. A moment without an entry waits for its own sentence. `late`
    lists (what, seconds) for every phrase the scene was too slow for.
    """

    LEAD = 0.1  # seconds that the picture may be ahead of the word
    SLACK = 0.25  # seconds that it may lag before that counts as late

    def __init__(
        self,
        words: list[tuple[str, float, float]],
        duration: float,
        phrases: dict[str, str | None] | None = None,
        pace: float = 1.0,
    ):
        self.words = words
        self.duration = duration
        self.phrases = phrases or {}
        self.pace = pace
        self.late: list[tuple[str, float]] = []
        self._next = 0

    def say(self, scene: CourseScene, moment: Moment | None) -> None:
        phrase = self.phrases.get(moment.name, moment.sentence)
        if phrase is not None:
            self.at(scene, phrase)

    def at(self, scene: CourseScene, phrase: str) -> None:
        bare = lambda word: re.sub(r"[^a-z0-9]", "", word.lower())
        want = [bare(w) for w in (self.phrases.get(phrase) or phrase).split()]
        said = [bare(w[0]) for w in self.words]
        for i in range(self._next, len(said) - len(want) + 1):
            if said[i : i + len(want)] == want:
                self._next, when = i, self.words[i][1] - self.LEAD
                if scene.time > when + self.SLACK:
                    self.late.append((phrase, round(scene.time - when, 2)))
                return scene.wait_until_time(when)
        heard = (
            " ".join(w[0] for w in self.words[max(0, self._next - 3) : self._next])
            or "the beginning"
        )
        raise LookupError(
            f"{scene.clip_name}: the narrator does not say {phrase!r} after {heard!r}"
        )

    def rest(self, scene: CourseScene, seconds: float) -> None:
        """Nothing: the narrator's own pauses are the film's."""

    def finish(self, scene: CourseScene) -> None:
        if scene.time > self.duration + self.SLACK:
            self.late.append(("the end", round(scene.time - self.duration, 2)))
        scene.wait_until_time(self.duration)

    def cues(self, scene: CourseScene) -> list[Cue]:
        """The narrator's words, cut at the ends of sentences."""
        cues, sentence = [], []
        for i, word in enumerate(self.words):
            sentence.append(word)
            if re.search(r"[.?!]$", word[0]) or i == len(self.words) - 1:
                cues += spread(
                    fold(" ".join(w[0] for w in sentence)), sentence[0][1], sentence[-1][2]
                )
                sentence = []
        return cues


class CourseScene(Scene):
    """A scene of the course.

    A subclass names itself, says what it shows, and takes every number from labs/results.

    clip_name: the files' name. title: one line. alt: what is to be seen, for those who can't.
    poster_at: the moment whose last frame is the poster. reads: patterns of the files in
    labs/results that it draws from.
    """

    clip_name = title = alt = poster_at = ""
    reads: tuple[str, ...] = ()

    def __init__(self, clock: ClipClock | NarrationClock | None = None, **kwargs):
        super().__init__(**kwargs)
        self.clock = clock or ClipClock()
        self.moments: list[Moment] = []
        self.poster = None
        self.camera.background_color = GROUND

    def trace(self, name: str) -> Trace:
        """A run that a lab recorded, such as "ch02/decode_cached". ValueError if none did."""
        return stored(name)

    def say(self, sentence: str, moment: str) -> None:
        """A new moment begins, with its sentence. Names are unique within a scene (ValueError)."""
        if moment in {m.name for m in self.moments}:
            raise ValueError(f"{self.clip_name} has two moments called {moment!r}")
        self.clock.say(self, Moment(moment, self.time, sentence))
        self._keep_poster()
        self.moments.append(Moment(moment, self.time, sentence))

    def at(self, phrase: str) -> None:
        """Wait until these words are read (clip) or spoken (film).

        LookupError if they never are.
        """
        self.clock.at(self, phrase)

    def move(self, *animations, seconds: float = MOVE, **kwargs) -> None:
        """Play animations together, at the clock's pace."""
        self.play(*animations, run_time=seconds * self.clock.pace, **kwargs)

    def rest(self, seconds: float = PAUSE) -> None:
        """Time to look. The film leaves it to the narrator."""
        self.clock.rest(self, seconds)

    def finish(self) -> None:
        """The last call of `construct`: time to read, or the rest of the recording.

        LookupError if `poster_at` never came.
        """
        self.clock.finish(self)
        self._keep_poster()
        if self.poster_at not in {m.name for m in self.moments}:
            raise LookupError(
                f"{self.clip_name}: the poster is of a moment {self.poster_at!r}, which never comes"
            )

    def wait_until_time(self, when: float) -> None:
        if when > self.time + 1 / config.frame_rate:
            self.wait(when - self.time)

    @property
    def cues(self) -> list[Cue]:
        """The captions, once the scene has run."""
        return self.clock.cues(self)

    def _keep_poster(self) -> None:
        if (
            self.moments
            and self.moments[-1].name == self.poster_at
            and isinstance(self.renderer, CairoRenderer)
        ):
            self.poster = self.renderer.get_frame()


def stamp(seconds: float) -> str:
    """A time as WebVTT has it. Rounded before it is split: `00:00:60.000` is no time."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def write_vtt(cues: list[Cue], path) -> Path:
    """Write captions as WebVTT, which is also the transcript's text.

    Their words are text: `<` and `&` are written so that a player shows them, and a line without
    words, which would end a caption, goes.
    """
    words = lambda text: "\n".join(filter(str.strip, escape(text, quote=False).splitlines()))
    said = [f"{stamp(c.start)} --> {stamp(c.end)}\n{words(c.text)}\n" for c in cues]
    path = Path(path)
    path.write_text("WEBVTT\n\n" + "\n".join(said), encoding="utf-8")
    return path

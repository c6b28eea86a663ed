"""Chapter 03's clip: how many query heads share a key/value head, and what copying undoes."""

from __future__ import annotations

import numpy as np
from manim import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    Animation,
    Circle,
    FadeIn,
    FadeOut,
    LaggedStart,
    Line,
    Rectangle,
    RoundedRectangle,
    VGroup,
)

from animations.stage.charts import Counter, Tally
from animations.stage.clock import CourseScene
from animations.stage.mobjects import Cell, Note, dress
from animations.stage.style import (
    BRISK,
    FRAME,
    GROUND,
    INK,
    MIST,
    MOVE,
    MUTED,
    NAVY,
    PAUSE,
    QUICK,
    TEXT,
    Label,
)
from labkit import formulas, presets

LLAMA, NAME = presets["llama3-8b"], "Llama-3-8B"
HEADS = LLAMA.n_heads
LARGE = 0.38  # of a size's number
ROOM = 1.85  # for the rows' names, left of the columns
START, GAP = ROOM - FRAME, (2 * FRAME - ROOM) / HEADS
WIDE, HIGH, RADIUS = GAP - 0.07, 0.4, 0.14  # a head's cell, a query's disc
# heights of the rows
TITLE, QUERIES = 3.35, 2.55
COPIES = (1.78, 1.24)  # keys, values
STORED = (0.58, 0.04)
KEPT, READ = -0.62, -2.25  # the two sizes
BAR = 0.26  # height of their bars


def kilobytes(kv_heads: int) -> float:
    """KiB that the model's cache takes a token, had it so many key/value heads."""
    return formulas.kv_cache_bytes(LLAMA.replace(n_kv_heads=kv_heads), context=1) / 1024


def column(head: float, y: float) -> np.ndarray:
    """Where a query head's column meets a row; between columns for a fraction."""
    return np.array([START + (head + 0.5) * GAP, y, 0])


def middle(head: int, kv_heads: int, y: float) -> np.ndarray:
    """Where the key/value head stands that this query head reads."""
    share = HEADS // kv_heads
    return column(head // share * share + (share - 1) / 2, y)


class Size(Counter):
    """KiB a token: the number and what it counts, and a bar under them.

    The bar is as wide as the columns when each has its own head.
    """

    def __init__(self, name: str, y: float, look: str):
        self.look = look
        self.full, self.length = kilobytes(HEADS), HEADS * GAP - 0.07
        corner = np.array([START + 0.035, y, 0])
        self.number = Tally(0, corner + 1.05 * RIGHT, RIGHT, LARGE, NAVY)
        self.label = Label(name, TEXT, INK).put(corner + 1.22 * RIGHT, LEFT)
        frame = RoundedRectangle(corner_radius=0.05, width=self.length, height=BAR)
        self.frame = frame.set_fill(GROUND, 1).set_stroke(MIST, 1.5)
        self.frame.move_to(corner + 0.45 * DOWN, LEFT)
        self.fill = Rectangle(width=self.length, height=BAR).move_to(self.frame, LEFT)
        super().__init__(self.number, self.label, self.frame, self.fill)
        self.show(0)

    def show(self, value):
        self.value = value
        self.number.show(value)
        width = max(1e-3, self.length * value / self.full)
        dress(self.fill.stretch_to_fit_width(width, about_point=self.frame.get_left()), self.look)
        if value <= 0:
            self.fill.set_opacity(0)
        return self

    def mark(self, name: str) -> VGroup:
        """A tick under the bar where it ends now, with a name that stays."""
        foot = self.fill.get_corner(DOWN + RIGHT) + 0.05 * DOWN
        label = Label(name, TEXT, MUTED).put(foot + (0.16 + TEXT / 2) * DOWN)
        label.shift(min(0, FRAME - label.get_right()[0]) * RIGHT)
        return VGroup(Line(foot, foot + 0.1 * DOWN, color=MUTED, stroke_width=2), label)


class HeadGrouping(CourseScene):
    """Above, the query heads of one layer and the heads they read; below, what the cache takes."""

    clip_name = "head_grouping"
    title = "Head grouping: one number sets the size of the cache"
    alt = (
        f"A row of {HEADS} query heads, each tied to a key and a value below it: MHA. The ties draw"
        f" together until each four share one key and value, GQA, and then all share a single one,"
        " MQA; a bar of the cache's size a token shrinks with them. Back at GQA, red copies of the"
        " shared keys and values spread out to every query head, and a second bar shows that as"
        " many bytes are read as in MHA. The copies go, and the bar is short again."
    )
    poster_at = "shared"

    def construct(self):
        self.kv_heads = HEADS
        self.queries()
        self.own()
        self.share(
            "shared",
            LLAMA.n_kv_heads,
            f"GQA: each {HEADS // LLAMA.n_kv_heads} share one. {LLAMA.n_kv_heads} are left:"
            f" {kilobytes(LLAMA.n_kv_heads):.0f} KiB.",
            f"GQA: {LLAMA.n_kv_heads} key/value heads",
            "GQA",
        )
        self.share(
            "one",
            1,
            f"MQA: all {HEADS} share a single one. {kilobytes(1):.0f} KiB.",
            "MQA: one key/value head",
            "MQA",
        )
        self.trained()
        self.copied()
        self.grouped()
        self.finish()

    # -- one number ----------------------------------------------------------------------
    def queries(self):
        """The query heads."""
        heading = Label("Head grouping", "title", NAVY, "bold").put([-FRAME, TITLE, 0], LEFT)
        self.phase = Note(f"{NAME}: {HEADS} query heads", [FRAME, TITLE, 0], RIGHT, TEXT)
        self.discs = [
            dress(Circle(RADIUS), "plain").move_to(column(h, QUERIES)) for h in range(HEADS)
        ]
        names = [self.name("queries", QUERIES)]
        self.say(f"In each layer of {NAME}, {HEADS} query heads read the past.", "queries")
        self.move(FadeIn(heading, self.phase, shift=0.1 * UP), seconds=BRISK)
        self.move(
            FadeIn(*names),
            LaggedStart(*[FadeIn(d, shift=0.15 * DOWN) for d in self.discs], lag_ratio=0.06),
            seconds=1.4 * MOVE,
        )

    @staticmethod
    def name(text: str, y: float) -> Label:
        return Label(text, TEXT, MUTED, "medium").put([START - 0.15, y, 0], RIGHT)

    def own(self):
        """A key and a value head for each."""
        self.names = [self.name(n, y) for n, y in zip(("keys", "values"), STORED)]
        self.stored = [
            VGroup(*[Cell("stored", WIDE, HIGH).move_to(column(h, y)) for y in STORED])
            for h in range(HEADS)
        ]
        self.ties = [self.tie(h, HEADS, STORED[0]) for h in range(HEADS)]
        self.kept = Size("KiB kept for each token, in all layers", KEPT, "stored")
        full = kilobytes(HEADS)
        self.say(
            f"MHA: each has a key and a value head of its own. A token costs {full:.0f} KiB.", "own"
        )
        self.move(
            FadeIn(*self.names),
            self.phase.change(f"MHA: {HEADS} key/value heads"),
            LaggedStart(
                *[FadeIn(VGroup(t, s)) for t, s in zip(self.ties, self.stored)], lag_ratio=0.06
            ),
            seconds=1.4 * MOVE,
        )
        self.move(FadeIn(self.kept), seconds=QUICK)
        self.move(self.kept.to(full), seconds=MOVE)
        self.move(FadeIn(self.kept.mark("MHA")), seconds=QUICK)

    def tie(self, head: int, kv_heads: int, y: float) -> Line:
        """From a query head to the key head that it reads, in the row at y."""
        tie = Line(*self.ends(head, kv_heads, y), color=NAVY, stroke_width=1.6)
        return tie.set_z_index(-1)

    @staticmethod
    def ends(head: int, kv_heads: int, y: float) -> tuple[np.ndarray, np.ndarray]:
        top = column(head, QUERIES - RADIUS)
        return top, middle(head, kv_heads, y + HIGH / 2)

    def share(self, moment: str, kv_heads: int, sentence: str, phase: str, mark: str):
        """The heads of a group move into one, and the cache shrinks with them."""
        self.say(sentence, moment)
        self.move(self.regroup(kv_heads), self.phase.change(phase), seconds=1.6 * MOVE)
        self.merge(kv_heads)
        self.move(FadeIn(self.kept.mark(mark)), seconds=QUICK)
        self.read(0)

    def regroup(self, kv_heads: int) -> Animation:
        """Ties and heads go to where so many key/value heads stand; the size runs along."""
        share = HEADS // self.kv_heads
        moves = [
            part.animate.move_to(middle(i * share, kv_heads, y))
            for i, head in enumerate(self.stored)
            for part, y in zip(head, STORED)
        ]
        ties = [
            t.animate.put_start_and_end_on(*self.ends(h, kv_heads, STORED[0]))
            for h, t in enumerate(self.ties)
        ]
        self.kv_heads, self.before = kv_heads, self.kv_heads
        return LaggedStart(
            *moves, *ties, self.kept.to(kilobytes(kv_heads), run_time=1.0), lag_ratio=0
        )

    def merge(self, kv_heads: int):
        """Of the heads that now lie on one another, one is left."""
        each = self.before // kv_heads
        gone = [head for i, head in enumerate(self.stored) if i % each]
        # keys and values have moved one by one, so the scene holds them one by one
        self.remove(*[part for head in gone for part in head])
        self.stored = self.stored[::each]

    def read(self, group: int):
        """One head is read, for all the queries that share it."""
        head = self.stored[group]
        share = HEADS // self.kv_heads
        ties = self.ties[group * share : (group + 1) * share]
        self.move(
            *[c.animate.look("active") for c in head],
            *[t.animate.set_stroke(width=3.2) for t in ties],
            seconds=QUICK,
        )
        self.rest()
        self.move(
            *[c.animate.look("stored") for c in head],
            *[t.animate.set_stroke(width=1.6) for t in ties],
            seconds=QUICK,
        )

    # -- and its undoing -----------------------------------------------------------------
    def trained(self):
        """Back to the number the model was trained with."""
        G, old = LLAMA.n_kv_heads, self.stored[0]
        self.say(f"{NAME} is trained with {G}.", "trained")
        self.stored = [old, *[old.copy() for _ in range(G - 1)]]
        self.add(*self.stored[1:])
        self.kv_heads = G
        self.move(
            self.regroup(G), self.phase.change(f"GQA: {G} key/value heads"), seconds=1.2 * MOVE
        )

    def copied(self):
        """Each shared head is copied out to every query head: as much to read as ever."""
        G = self.kv_heads
        share = HEADS // G
        self.say("But many programs first copy each shared head out to all its queries.", "copied")
        self.move(
            *[FadeOut(t) for t in self.ties],
            self.phase.change("GQA, expanded: a copy for each query"),
            seconds=BRISK,
        )
        self.copies = [
            VGroup(*[Cell("again", WIDE, HIGH).move_to(part) for part in self.stored[h // share]])
            for h in range(HEADS)
        ]
        named = self.name("copies", sum(COPIES) / 2)
        groups = [self.copies[i : i + share] for i in range(0, HEADS, share)]
        self.move(*[c.animate.look("active") for c in self.stored[0]], seconds=QUICK)
        self.move(FadeIn(named), self.spread(groups[0], 0), seconds=MOVE)
        self.move(*[c.animate.look("stored") for c in self.stored[0]], seconds=QUICK)
        self.move(
            LaggedStart(
                *[self.spread(g, i * share) for i, g in enumerate(groups) if i], lag_ratio=0.15
            ),
            seconds=1.4 * MOVE,
        )
        self.ties = [self.tie(h, HEADS, COPIES[0]) for h in range(HEADS)]
        self.move(*[FadeIn(t) for t in self.ties], seconds=QUICK)
        kept, full = kilobytes(G), kilobytes(HEADS)
        self.say(
            f"Kept: {kept:.0f} KiB. Read at every step: {full:.0f} again. The gain is gone.", "gone"
        )
        self.copy_size = Size("KiB read for each token, at every step", READ, "again")
        self.move(FadeIn(self.copy_size), seconds=QUICK)
        self.move(self.copy_size.to(full), seconds=1.2 * MOVE)
        self.rest(2 * PAUSE)
        self.named = named

    @staticmethod
    def spread(group: list[VGroup], first: int) -> Animation:
        """Copies leave the head they are copies of for the columns from `first` on."""
        return LaggedStart(
            *[
                part.animate.move_to(column(first + i, y))
                for i, copy in enumerate(group)
                for part, y in zip(copy, COPIES)
            ],
            lag_ratio=0,
        )

    def grouped(self):
        """Each shared head is read once."""
        G = self.kv_heads
        self.say("Grouped attention reads each shared head once, for all its queries.", "grouped")
        self.move(
            FadeOut(*self.copies, self.named, *self.ties),
            self.phase.change("GQA, grouped: each head is read once"),
            seconds=BRISK,
        )
        self.ties = [self.tie(h, G, STORED[0]) for h in range(HEADS)]
        self.move(*[FadeIn(t) for t in self.ties], seconds=QUICK)
        self.move(self.copy_size.to(kilobytes(G)), seconds=MOVE)
        self.read(0)


CLIPS = [HeadGrouping]

"""Chapter 06's clip: where a router sends the tokens of a batch, and what the batch reads."""

from __future__ import annotations

import numpy as np
from manim import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    Animation,
    Create,
    FadeIn,
    FadeOut,
    LaggedStart,
    Line,
    Rectangle,
    TransformFromCopy,
    VGroup,
)

from animations.stage.charts import Counter, Tally
from animations.stage.clock import CourseScene
from animations.stage.mobjects import Cell, Chip, Note, dress
from animations.stage.style import (
    BRISK,
    FRAME,
    GROUND,
    INK,
    MOVE,
    MUTED,
    NAVY,
    PAUSE,
    QUICK,
    TEXT,
    Label,
)
from labkit import presets, results
from labkit.traces.routing import RoutingStep

MOST, MOST_EXPERTS = 12, 8  # tokens and experts that there is room for
TITLE, PHASE = 3.25, 2.5  # heights
# the first picture
CHIPS, EXPERTS, OUTPUT = 1.6, 0.0, -1.75
HIGH = 1.15  # of an expert
BARS = (-1.35, -2.2)  # what a token uses, what the batch reads
START, FULL = -2.2, 4.6  # of the bars, and their length for all experts
# the last picture
PRESET, NAME = "qwen3-30b-a3b", "Qwen3-30B"
MODEL = presets[PRESET]
BATCHES = (1, 2, 4, 8, 16, 32)
ACROSS, PITCH = 16, 0.385  # experts in a line, and from one to the next
HEADS, FIRST, LEGEND = 1.75, 1.3, -2.4  # heights


class Expert(VGroup):
    """One expert: its number, and below it the weight of its answer while it works.

    It rests ("done"), works ("active") or has been read ("stored").
    """

    def __init__(self, number: int, width: float):
        self.box = Cell("done", width, HIGH)
        self.number = Label(number, TEXT, NAVY, "semibold").put(0.26 * UP)
        super().__init__(self.box, self.number)

    def look(self, look: str) -> Expert:
        self.box.look(look)
        self.number.set_fill(GROUND if look == "stored" else NAVY)
        return self

    def weight(self, weight: float) -> Label:
        return Label(f"{weight:.2f}", TEXT, NAVY).put(self.box.get_center() + 0.26 * DOWN)


class Part(Counter):
    """How many of all experts: a name, a bar as long as their part, the number."""

    def __init__(self, name: str, y: float, experts: int, look: str):
        self.full, self.look = experts, look
        self.label = Label(name, TEXT, INK).put([-FRAME, y, 0], LEFT)
        self.frame = Cell("empty", FULL, 0.42).move_to([START, y, 0], LEFT)
        self.fill = Rectangle(width=FULL, height=0.42).move_to(self.frame, LEFT)
        after = self.frame.get_right() + 0.75 * RIGHT
        self.number = Tally(0, after, RIGHT, TEXT, NAVY)
        self.of = Label(f"of {experts} experts", TEXT, INK).put(after + 0.16 * RIGHT, LEFT)
        super().__init__(self.label, self.frame, self.fill, self.number, self.of)
        self.show(0)

    def show(self, value):
        self.value = value
        self.number.show(value)
        width = max(1e-3, FULL * value / self.full)
        dress(self.fill.stretch_to_fit_width(width, about_point=self.frame.get_left()), self.look)
        if value <= 0:
            self.fill.set_opacity(0)
        return self


class ManyExperts(VGroup):
    """All experts of a large layer, and those that a growing batch has touched.

    How many was measured; which ones is drawn by lot.
    """

    def __init__(self, name: str, left: float, touched: dict[int, int]):
        self.touched, self.batch = touched, 0
        self.order = np.random.default_rng(0).permutation(MODEL.n_experts)
        self.cells = [
            Cell("done", PITCH - 0.07, PITCH - 0.07).move_to(
                [left + (i % ACROSS + 0.5) * PITCH, FIRST - (i // ACROSS + 0.5) * PITCH, 0]
            )
            for i in range(MODEL.n_experts)
        ]
        start, end = np.array([left, HEADS, 0]), np.array([left + ACROSS * PITCH, HEADS, 0])
        self.tokens = Tally(0, start + 0.66 * RIGHT, RIGHT, TEXT, NAVY)
        self.label = Label(name, TEXT, INK).put(start + 0.82 * RIGHT, LEFT)
        self.read = Label("read", TEXT, INK).put(end, RIGHT)
        before = np.array([self.read.get_left()[0] - 0.16, HEADS, 0])
        self.number = Tally(0, before, RIGHT, TEXT, NAVY)
        super().__init__(self.tokens, self.label, self.number, self.read, *self.cells)

    def some(self, first: int, last: int, look: str) -> list[Animation]:
        """These experts, in the order of the lot, take a look."""
        return [self.cells[i].animate.look(look) for i in self.order[first:last]]

    def grow(self, batch: int) -> list[Animation]:
        """What was new has been read, and what a larger batch touches besides is new."""
        before, now = self.touched.get(self.batch, 0), self.touched[batch]
        smaller = self.touched.get(self.batch // 2, 0)
        self.batch = batch
        self.tokens.show(batch)
        return [
            *self.some(smaller, before, "stored"),
            *self.some(before, now, "active"),
            self.number.to(now),
        ]

    def settle(self) -> list[Animation]:
        return self.some(self.touched.get(self.batch // 2, 0), self.touched[self.batch], "stored")


class RoutingABatch(CourseScene):
    """First one token and its experts, then a batch and the union of its choices; last, a layer of
    a published size, with tokens that choose on their own and with tokens that are alike.
    """

    clip_name = "routing_a_batch"
    title = "Routing a batch: what a token uses, and what the batch reads"
    alt = (
        "A token stands above a row of experts; the router ties it to all of them, and keeps the"
        " two with the largest weights. They light up, and their answers, as long as their"
        " weights, make up one output. Then the characters of a text light up their own two one"
        " after the other, and each expert that was used stays dark: the bar of what a token uses"
        " stands still, the bar of what the batch reads grows until nearly all experts are dark."
        f" At last two grids of {MODEL.n_experts} experts fill as the batch grows to {BATCHES[-1]}"
        " tokens: nearly whole where tokens are independent, not half where they are alike."
    )
    poster_at = "union"
    reads = ("ch06/routing_characters.trace.json", "ch06/union.*.json", "machines.json")

    def construct(self):
        self.load()
        self.token()
        self.scores()
        self.answers()
        self.batch()
        self.independent()
        self.alike()
        self.saved()
        self.finish()

    def load(self):
        """The recorded routing and the measured unions. ValueError for what can't be shown."""
        trace = self.trace("ch06/routing_characters")
        self.steps: list[RoutingStep] = trace.steps
        self.X, self.A = trace.meta["experts"], trace.meta["active"]
        if not 3 <= len(self.steps) <= MOST or not 2 <= self.A < self.X <= MOST_EXPERTS:
            raise ValueError(
                f"the clip shows 3 to {MOST} tokens that use some of at most {MOST_EXPERTS}"
                f" experts, not {len(self.steps)} that use {self.A} of {self.X}"
            )
        if self.steps[-1].forward:
            raise ValueError("the clip shows one batch: the tokens of a single forward")
        self.unions = {
            kind: {
                batch: round(
                    results.row("ch06/union", model=PRESET, tokens_are=kind, batch=batch)["touched"]
                )
                for batch in BATCHES
            }
            for kind in ("independent", "alike")
        }

    # -- one token -----------------------------------------------------------------------
    def token(self):
        """A layer of experts, and a token."""
        heading = Label("Routing a batch", "title", NAVY, "bold").put([-FRAME, TITLE, 0], LEFT)
        self.phase = Note(f"One token, {self.X} experts", [-FRAME, PHASE, 0], size=TEXT)
        gap = 2 * FRAME / self.X
        self.experts = [
            Expert(e, gap - 0.4).move_to([(e + 0.5) * gap - FRAME, EXPERTS, 0])
            for e in range(self.X)
        ]
        self.chips = [self.chip(0).move_to([0, CHIPS, 0])]
        self.say(f"A mixture cuts one wide layer into {self.X} experts. A token arrives.", "token")
        self.move(FadeIn(heading, self.phase, shift=0.1 * UP), seconds=BRISK)
        self.move(
            LaggedStart(*[FadeIn(e, shift=0.15 * DOWN) for e in self.experts], lag_ratio=0.2),
            seconds=1.4 * MOVE,
        )
        self.move(FadeIn(self.chips[0], shift=0.2 * DOWN), seconds=BRISK)

    def chip(self, i: int) -> Chip:
        gap = 2 * FRAME / len(self.steps)
        chip = Chip(self.steps[i].token, min(gap - 0.18, 1.2), 0.62, TEXT)
        return chip.move_to([(i + 0.5) * gap - FRAME, CHIPS, 0])

    def tie(self, chip: Chip, expert: int, width=2.0) -> Line:
        """From a token to an expert."""
        ends = chip.box.get_bottom(), self.experts[expert].box.get_top()
        return Line(*ends, color=NAVY, stroke_width=width).set_z_index(-1)

    def scores(self):
        """A score for each expert; the best are kept, with their weights."""
        step, chip = self.steps[0], self.chips[0]
        self.say(f"A router scores each expert for it, and keeps the best {self.A}.", "scores")
        ties = [self.tie(chip, e) for e in range(self.X)]
        self.move(chip.animate.look("active"), seconds=QUICK)
        self.move(LaggedStart(*[Create(t) for t in ties], lag_ratio=0.1), seconds=MOVE)
        self.rest()
        self.ties = [ties[e] for e in step.experts]
        self.weights = [self.experts[e].weight(w) for e, w in zip(step.experts, step.weights)]
        self.move(
            *[FadeOut(t) for e, t in enumerate(ties) if e not in step.experts],
            *[t.animate.set_stroke(width=5) for t in self.ties],
            *[self.experts[e].animate.look("active") for e in step.experts],
            FadeIn(*self.weights),
            seconds=BRISK,
        )

    def answers(self):
        """Their answers, weighted, are one output."""
        step = self.steps[0]
        self.say(f"Only these {self.A} work. Their answers are weighted and added.", "answers")
        name = Label("output", TEXT, MUTED).put([0, OUTPUT - 0.65, 0])
        self.move(FadeIn(name), seconds=QUICK)
        left, parts = np.array([-FULL / 2, OUTPUT, 0]), []
        for expert, weight in zip(step.experts, step.weights):
            part = Cell("active", FULL * weight, 0.5).move_to(left, LEFT).set_z_index(-1)
            left = part.get_right()
            parts.append(part)
            self.move(
                TransformFromCopy(self.experts[expert].box, part),
                self.experts[expert].animate.look("done"),
                self.chips[0].animate.look("done"),
                seconds=BRISK,
            )
        self.rest(2 * PAUSE)
        self.output = VGroup(name, *parts)

    # -- a batch -------------------------------------------------------------------------
    def batch(self):
        """Each token chooses; what any of them chose is read."""
        T = len(self.steps)
        self.say(f"Now a batch: {T} characters of a text. Each chooses for itself.", "batch")
        self.used = Part("a token uses", BARS[0], self.X, "active")
        self.read = Part("the batch reads", BARS[1], self.X, "stored")
        self.move(
            FadeOut(self.output, *self.ties, *self.weights),
            self.chips[0].animate.look("plain").move_to(self.chip(0)),
            self.phase.change(f"{T} tokens, {self.X} experts"),
            seconds=BRISK,
        )
        self.chips += [self.chip(i) for i in range(1, T)]
        self.move(
            LaggedStart(*[FadeIn(c, shift=0.2 * DOWN) for c in self.chips[1:]], lag_ratio=0.15),
            FadeIn(self.used, self.read),
            seconds=MOVE,
        )
        for i in range(T):
            if i == 2:
                self.say("What any of them chose must be read.", "union")
            self.route(i, BRISK if i < 2 else QUICK)
        self.say(
            f"A token still uses {self.A} experts. The batch has read"
            f" {self.steps[-1].touched} of {self.X}.",
            "both",
        )
        self.leave(T - 1)
        self.rest(2 * PAUSE)

    def route(self, i: int, seconds: float):
        """This token goes to its experts, once the one before it is done."""
        step, chip = self.steps[i], self.chips[i]
        if i:
            self.leave(i - 1)
        self.working = VGroup(
            *[self.tie(chip, e, 5) for e in step.experts],
            *[self.experts[e].weight(w) for e, w in zip(step.experts, step.weights)],
        )
        self.move(
            chip.animate.look("active"),
            *[self.experts[e].animate.look("active") for e in step.experts],
            FadeIn(self.working),
            self.used.to(self.A),
            self.read.to(step.touched),
            seconds=seconds,
        )
        self.rest(seconds - QUICK + 0.05)

    def leave(self, i: int):
        """A token is done, and its experts have been read."""
        self.move(
            FadeOut(self.working),
            self.chips[i].animate.look("done"),
            *[self.experts[e].animate.look("stored") for e in self.steps[i].experts],
            seconds=0.2,
        )

    # -- a published size ----------------------------------------------------------------
    def independent(self):
        """As many experts as a published model has, tokens that choose on their own."""
        X, A, most = MODEL.n_experts, MODEL.n_active_experts, BATCHES[-1]
        self.say(
            f"At {NAME}'s size, {A} of {X}: {most} independent tokens read"
            f" {self.unions['independent'][most]} on average.",
            "independent",
        )
        self.many = [
            ManyExperts(kind, left, self.unions[kind])
            for kind, left in (("independent", -FRAME), ("alike", FRAME - ACROSS * PITCH))
        ]
        self.move(
            FadeOut(*self.chips, *self.experts, self.used, self.read),
            self.phase.change(f"{NAME}'s size: a token uses {A} of {X} experts"),
            seconds=BRISK,
        )
        self.move(FadeIn(self.many[0]), seconds=BRISK)
        self.fill(self.many[0], 0.5)

    def fill(self, many: ManyExperts, seconds: float):
        """A batch grows, and with it what it touches."""
        for batch in BATCHES:
            self.move(*many.grow(batch), seconds=seconds)
            self.rest(seconds - 0.3)
        self.move(*many.settle(), seconds=QUICK)

    def alike(self):
        """The same batches of tokens that have much in common."""
        self.say(
            f"Tokens that are alike agree more often: {BATCHES[-1]} read"
            f" {self.unions['alike'][BATCHES[-1]]}.",
            "alike",
        )
        self.move(FadeIn(self.many[1]), seconds=QUICK)
        self.fill(self.many[1], QUICK)

    def saved(self):
        """Three sizes in one picture: what a token uses, what its batch reads, what is held."""
        most, touched = BATCHES[-1], self.unions["independent"][BATCHES[-1]]
        self.say(
            "Saved: arithmetic always; reading while tokens are few or alike; memory never.",
            "saved",
        )
        for look, x, meaning, phrase in (
            ("active", -FRAME, f"a token uses {MODEL.n_active_experts}", "arithmetic"),
            ("stored", -1.95, f"{most} read {touched}", "reading"),
            ("done", 2.3, f"all {MODEL.n_experts} are held", "memory"),
        ):
            self.at(phrase)
            sign = Cell(look, PITCH - 0.07, PITCH - 0.07).move_to([x, LEGEND, 0], LEFT)
            lit = self.many[0].some(0, MODEL.n_active_experts, look) if look == "active" else []
            self.move(
                FadeIn(sign, Label(meaning, TEXT, INK).beside(sign, RIGHT, 0.18)),
                *lit,
                seconds=QUICK,
            )
        self.rest(PAUSE)


CLIPS = [RoutingABatch]

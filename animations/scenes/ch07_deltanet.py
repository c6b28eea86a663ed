"""Chapter 07's clip: a matrix that is told twice, and what it costs and forbids beside a cache."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from manim import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    Animation,
    FadeIn,
    FadeOut,
    LaggedStart,
    Line,
    Rectangle,
    VGroup,
)

from animations.stage.charts import Counter, Tally
from animations.stage.clock import CourseScene
from animations.stage.mobjects import LOOKS, Cell, Chip, Note, dress
from animations.stage.style import (
    BRISK,
    FRAME,
    INK,
    MIST,
    MOVE,
    MUTED,
    NAVY,
    PANEL,
    PAUSE,
    QUICK,
    TEXT,
    Label,
)
from labkit import reference, results

TITLE, PHASE = 3.4, 2.75  # heights of the lines above all pictures
ALIKE = 0.95  # keys of at least this cosine count as the same

# a memory: its matrix, its key to the left, its answer below
WIDE, HIGH = 0.36, 0.29
MATRIX, ZERO = 0.98, -1.95  # heights of the matrix's middle and of an answer's zero line
ABOVE, BELOW = 1.5, 0.75  # room for an answer's bars
ALONE, LEFTMOST, RIGHTMOST = -0.6, -4.56, 2.24  # where a matrix's middle stands
NAMED, SAID, OFF = 1.7, -1.2, -1.85  # heights of the lines beside a memory
# the two costs: names, bars and numbers
BARS, LENGTH = -4.75, 8.9
SIZES, TIMES = (1.4, 0.82), (-0.92, -1.5)
MACHINE = -2.65
KINDS = "state", "cache"


def machine(document: dict) -> str:
    """Where a result was measured, and with how many threads."""
    threads = document["env"].get("threads")
    return results.where(document) + (
        f", {threads} thread" + "s" * (threads > 1) if threads else ""
    )


class Grid(Counter):
    """A matrix, each number as dark as it is large. `look`: "stored" or "active"."""

    def __init__(self, values: np.ndarray, top: float, look="stored"):
        self.top, self.look = top, look
        rows, columns = values.shape
        super().__init__(
            *[
                Rectangle(width=WIDE, height=HIGH).move_to(
                    [(j - (columns - 1) / 2) * WIDE, ((rows - 1) / 2 - i) * HIGH, 0]
                )
                for i in range(rows)
                for j in range(columns)
            ]
        )
        self.show(values)

    def show(self, values):
        self.value = values
        fill, _, outline, width = LOOKS[self.look]
        for cell, number in zip(self, np.abs(values).flat):
            share = min(1, number / self.top) ** 0.5
            if self.look == "active":
                cell.set_fill(fill, share).set_stroke(outline, width, 1)
            else:
                cell.set_fill(PANEL.interpolate(fill, share), 1).set_stroke(MIST, 1)
        return self


class Answer(Counter):
    """Numbers as bars that rise and fall from a zero line; from `feet`, if these are given."""

    def __init__(self, values, zero: Line, scale: float, look: str, wide: float, feet=None):
        self.zero, self.rise, self.look, self.wide = zero, scale, look, wide
        self.feet = np.zeros(len(values)) if feet is None else feet
        super().__init__(*[Rectangle(width=wide, height=0.1) for _ in values])
        self.show(np.asarray(values, float))

    def show(self, values):
        self.value, middle = values, self.zero.get_center()
        for i, (bar, foot, tip) in enumerate(zip(self, self.feet, values)):
            tall = max(0.02, self.rise * abs(tip - foot))
            across = (i - (len(values) - 1) / 2) * WIDE
            bar.stretch_to_fit_height(tall).stretch_to_fit_width(self.wide)
            bar.move_to(middle + np.array([across, self.rise * (tip + foot) / 2, 0]))
            dress(bar, self.look)
        return self


class Memory(VGroup):
    """A matrix, the key that asks it, and under it the answer, beside what it should be."""

    def __init__(self, state, key, x: float, top: float, scale: float):
        self.top, self.rise = top, scale
        self.grid = Grid(state, top).move_to([x, MATRIX, 0])
        self.key = Grid(key[:, None], 1.0).next_to(self.grid, LEFT, 0.18)
        half = self.grid.width / 2 + 0.1
        self.zero = Line([x - half, ZERO, 0], [x + half, ZERO, 0], color=MUTED, stroke_width=2)
        self.wanted, self.answer = VGroup(), VGroup()
        super().__init__(self.grid, self.key, self.zero, self.wanted, self.answer)

    def want(self, values) -> Animation:
        """Outlines of what the answer should be, in place of earlier ones."""
        new = Answer(values, self.zero, self.rise, "plain", 0.32)
        old = VGroup(*self.wanted)
        self.wanted.remove(*old).add(*new)
        return LaggedStart(*([FadeOut(old)] if len(old) else []), FadeIn(new), lag_ratio=0)

    def bars(self, values, look: str, feet=None) -> Answer:
        return Answer(values, self.zero, self.rise, look, 0.18, feet)

    def beside(self, text: str, y: float, color=NAVY, weight="semibold") -> Label:
        """A line to the right of the matrix."""
        return Label(text, TEXT, color, weight).put([self.grid.get_right()[0] + 0.35, y, 0], LEFT)


class StateThatNeverGrows(CourseScene):
    """First a memory of fixed size is told something twice, by adding and by the delta rule; then
    its bytes and its time beside a cache's; last, what it cannot do.
    """

    clip_name = "state_that_never_grows"
    title = "A state that never grows: write the difference, keep the size"
    poster_at = "exact"
    reads = ("ch07/state_recall.trace.json", "ch07/state.*.json", "machines.json")
    alt = (
        "A square of numbers is a head's memory. A key and a value are written into it, and"
        " asked with the key it answers with the value. Then the same key gets a new value. In a"
        " memory that only adds, the bars of the answer are the old value and the new one together."
        " The delta rule reads the old answer, takes the gap to the new value, writes that gap, and"
        " the bars fill their outlines. Then the bar of a cache's bytes grows across the picture"
        " while the state's stays short, and the cache's time for a step passes the state's. Last,"
        " a token is taken back: the cache drops a row and still holds the old value; the state has"
        " lost it."
    )

    def construct(self):
        self.load()
        self.memory()
        self.write()
        self.read()
        self.again()
        self.adds()
        self.difference()
        self.exact()
        self.outgrown()
        self.short()
        self.long()
        self.rewound()
        self.finish()

    # -- what is shown -------------------------------------------------------------------
    def load(self):
        """A name that the recorded text tells twice, what both memories make of it, and the
        measured steps. ValueError if the recording has no such name.
        """
        steps = self.trace("ch07/state_recall").steps
        digits = [i for i in range(1, len(steps), 2) if not steps[i].token.isalpha()]
        twice = [
            (float(np.dot(steps[i].key, steps[j].key)), i, j)
            for i, j in combinations(digits, 2)
            if steps[i - 1].token == steps[j - 1].token and steps[i].token != steps[j].token
        ]
        alike, *pair = max(twice, default=(0, 0, 0))
        if alike < ALIKE:
            raise ValueError(
                "the recorded text must tell a name two digits under one key; the most alike keys"
                f" of a name have a cosine of {alike:.2f}"
            )
        first, second = (steps[i] for i in pair)
        self.name, self.told = steps[pair[0] - 1].token, (first.token, second.token)
        self.keys = [np.array(s.key) for s in (first, second)]
        self.values = [np.array(s.value) for s in (first, second)]
        self.added, self.corrected = memories(self.keys, self.values)
        self.lines()

    def lines(self):
        """What was measured: for each context, of the state and of the cache."""
        self.document = results.load("ch07/state")
        decode = [r for r in self.document["rows"] if r["what"] == "decode"]
        by = {
            kind: {r["tokens"]: r for r in decode if r["kind"] == kind}
            for kind in ("delta", "full")
        }
        self.contexts = sorted(by["delta"])
        self.state_bytes = by["delta"][self.contexts[0]]["layer_bytes"]
        self.per_token = by["full"][self.contexts[0]]["layer_bytes"] / self.contexts[0]
        self.outgrown_at = self.state_bytes / self.per_token
        self.state_ms, self.cache_ms = (
            [1e3 * by[kind][T]["median"] for T in self.contexts] for kind in ("delta", "full")
        )
        slower = [c > s for s, c in zip(self.state_ms, self.cache_ms)]
        crossings = [
            b for b, (was, now) in zip(pairwise(self.contexts), pairwise(slower)) if now > was
        ]
        if len(crossings) != 1 or slower[0] or not slower[-1]:
            raise ValueError(
                "the cache's step must be the faster one at first and the slower one from some"
                f" context on: {self.cache_ms} and {self.state_ms} ms at {self.contexts}"
            )
        self.crossing = crossings[0]

    # -- one memory ----------------------------------------------------------------------
    def memory(self):
        """A matrix, with nothing in it."""
        heading = Label("A state that never grows", "title", NAVY, "bold")
        heading.put([-FRAME, TITLE, 0], LEFT)
        size = " × ".join(map(str, self.added[0].shape))
        self.phase = Note(f"The memory of one head: {size} numbers", [-FRAME, PHASE, 0], size=TEXT)
        every = [self.keys[1] @ s for s in (*self.added, *self.corrected)] + self.values
        self.rise = min(ABOVE / np.max(every), BELOW / -np.min(every))
        self.top = max(np.abs(self.added).max(), np.abs(self.corrected).max())
        empty = np.zeros_like(self.added[0])
        self.plain = Memory(empty, 0 * self.keys[0], ALONE, self.top, self.rise)
        self.say("A head of linear attention keeps no tokens, only one matrix.", "memory")
        self.move(FadeIn(heading, self.phase, shift=0.1 * UP), seconds=BRISK)
        self.move(FadeIn(self.plain.grid), seconds=MOVE)

    def tell(self, which: int):
        """The name and its digit are said."""
        x = FRAME - 3.3 + 1.95 * which
        self.chips[2 * which :] = [
            Chip(text, 0.62, 0.62, TEXT).look("active").move_to([x + 0.66 * i, TITLE, 0])
            for i, text in enumerate((self.name, self.told[which]))
        ]
        self.move(FadeIn(*self.chips[2 * which :], shift=0.15 * DOWN), seconds=QUICK)

    def heard(self, which: int) -> list[Animation]:
        return [chip.animate.look("plain") for chip in self.chips[2 * which :]]

    def write(self):
        """The first value, under its key."""
        self.say(
            f"A text says “{self.name}” is {self.told[0]}: its key and value are written.", "write"
        )
        self.chips = []
        self.tell(0)
        memory, value = self.plain, self.values[0]
        self.move(*self.heard(0), FadeIn(memory.key, memory.zero), seconds=0.2)
        side = Label(f"key of {self.name}", TEXT, INK, "medium").beside(memory.key)
        self.said = self.line(memory, f"value of {self.told[0]}")
        self.around = VGroup(side, self.said)
        self.move(
            memory.key.to(self.keys[0]), memory.want(value), FadeIn(self.around), seconds=QUICK
        )
        self.store(memory, memory.bars(value, "active"), self.added[0])

    @staticmethod
    def line(memory: Memory, text: str) -> Note:
        """What a memory does or says, beside its answer."""
        place = [memory.grid.get_right()[0] + 0.35, SAID, 0]
        return Note(text, place, LEFT, TEXT, NAVY, "bold")

    def store(self, memory: Memory, bars: Answer, state: np.ndarray, *come: Note):
        """Gold bars rise into the matrix and are in it."""
        self.move(FadeIn(bars, *come), seconds=QUICK)
        self.move(
            FadeOut(bars, shift=(MATRIX - ZERO) * UP), memory.grid.to(state, BRISK), seconds=MOVE
        )

    def ask(self, memory: Memory, key: np.ndarray, *others: Animation) -> Answer:
        """The key passes over the matrix, and the answer comes out below."""
        pulse = Grid(key[:, None], 1.0, "active").move_to(memory.key)
        right = memory.grid.get_right()[0] - WIDE / 2
        self.add(pulse)
        self.move(pulse.animate(remover=True).set_x(right), seconds=0.6 * MOVE)
        answer = memory.bars(0 * self.values[0], "stored")
        self.add(answer)
        self.move(answer.to(key @ memory.grid.value), *others, seconds=0.6 * MOVE)
        memory.answer.add(*answer)
        return answer

    def read(self):
        """The value comes back."""
        self.say("Ask with the key, and the value comes back.", "read")
        self.bars = self.ask(self.plain, self.keys[0], self.said.change(f"answer: {self.told[0]}"))
        self.rest(0.5 * PAUSE)

    # -- two memories --------------------------------------------------------------------
    def again(self):
        """The same key gets another value, in both memories."""
        self.say(f"Later “{self.name}” is {self.told[1]}: the same key, a new value.", "again")
        self.delta = Memory(self.added[0], self.keys[0], ALONE, self.top, self.rise)
        self.move(FadeOut(self.bars, self.plain.wanted, self.around), seconds=QUICK)
        for part in (self.plain.wanted, self.plain.answer):
            part.remove(*part)
        self.add(self.delta)
        self.move(
            self.plain.animate.shift((LEFTMOST - ALONE) * RIGHT),
            self.delta.animate.shift((RIGHTMOST - ALONE) * RIGHT),
            self.phase.change("Two ways to write it, in whole steps"),
            seconds=MOVE,
        )
        self.names = [
            memory.beside(text, NAMED)
            for memory, text in ((self.plain, "only adds"), (self.delta, "delta rule"))
        ]
        self.tell(1)
        self.move(
            FadeIn(*self.names),
            *self.heard(1),
            *[m.want(self.values[1]) for m in (self.plain, self.delta)],
            *[m.key.to(self.keys[1]) for m in (self.plain, self.delta)],
            seconds=QUICK,
        )

    def off(self, memory: Memory, answer: Answer) -> Label:
        """How far an answer is from the new value."""
        value = self.values[1]
        share = np.linalg.norm(answer.value - value) / np.linalg.norm(value)
        return memory.beside(f"off by {100 * share:.0f} %", OFF, INK, "medium")

    def adds(self):
        """The new value is piled on the old one."""
        old, new = self.told
        self.say(f"Plain linear attention adds it on top: {old} and {new} in one answer.", "adds")
        said = self.line(self.plain, f"adds {new}")
        self.store(self.plain, self.plain.bars(self.values[1], "active"), self.added[1], said)
        answer = self.ask(self.plain, self.keys[1], said.change(f"{old} + {new}"))
        self.verdicts = [said, self.off(self.plain, answer)]
        self.move(FadeIn(self.verdicts[-1]), seconds=QUICK)
        self.rest()

    def difference(self):
        """Read, subtract, write."""
        old, new = self.told
        self.say("The delta rule reads first, subtracts, and writes the difference.", "difference")
        said = self.line(self.delta, f"reads {old}")
        answer = self.ask(self.delta, self.keys[1], FadeIn(said))
        gap = self.delta.bars(answer.value, "active", feet=answer.value)
        self.add(gap)
        self.move(gap.to(self.values[1]), said.change(f"{new} less {old}"), seconds=BRISK)
        self.rest(0.5 * PAUSE)
        self.move(
            FadeOut(gap, shift=(MATRIX - ZERO) * UP),
            FadeOut(answer),
            self.delta.grid.to(self.corrected[1], BRISK),
            said.change("writes that"),
            seconds=MOVE,
        )
        self.delta.answer.remove(*self.delta.answer)
        self.verdicts.append(said)

    def exact(self):
        """The answer is the new value."""
        self.say(f"Now the answer is {self.told[1]}, and nothing else.", "exact")
        answer = self.ask(self.delta, self.keys[1], self.verdicts[-1].change(self.told[1]))
        self.verdicts.append(self.off(self.delta, answer))
        self.move(FadeIn(self.verdicts[-1]), seconds=QUICK)
        self.rest()

    # -- beside a cache ------------------------------------------------------------------
    def outgrown(self):
        """Bytes by tokens: one bar stays, one grows."""
        at = self.outgrown_at
        self.say(
            f"A state stays at {self.state_bytes / 1e6:.1f} MB. A KV cache outgrows it after"
            f" {at:,.0f} tokens.",
            "outgrown",
        )
        self.move(
            FadeOut(self.plain, self.delta, *self.names, *self.verdicts, *self.chips),
            self.phase.change("One layer of Qwen3-Next's shapes, fp32"),
            seconds=QUICK,
        )
        self.tokens = Tally(0, [FRAME - 1.85, TITLE, 0], RIGHT, TEXT, NAVY)
        unit = Label("tokens", TEXT, INK).put([FRAME - 1.65, TITLE, 0], LEFT)
        largest = self.per_token * self.contexts[-1] / 1e6
        self.sizes = [Cost(name, y, largest, "MB") for name, y in zip(KINDS, SIZES)]
        self.sizes[1].tip.set_opacity(1)  # the newest token
        self.sizes[0].show(self.state_bytes / 1e6)
        self.board = VGroup(
            self.tokens, unit, *self.sizes, self.heading("Kept in memory", SIZES[0])
        )
        self.move(FadeIn(self.board), seconds=QUICK)
        self.grow(at, MOVE)
        equal = self.equal(f"equal at {at:,.0f} tokens", SIZES[1], self.sizes[0])
        self.move(equal, seconds=QUICK)
        self.rest()

    def heading(self, text: str, y: float) -> Label:
        return Label(text, TEXT, INK, "semibold").put([-FRAME, y + 0.58, 0], LEFT)

    def equal(self, text: str, y: float, cost: Cost) -> Animation:
        """Where both are alike: a tick under the cache's bar, where the state's ends."""
        foot = np.array([cost.bar.get_right()[0], y - 0.25, 0])
        tick = Line(foot, foot + 0.4 * DOWN, color=MUTED, stroke_width=3)
        label = Label(text, TEXT, MUTED).put(foot + 0.2 * RIGHT + 0.26 * DOWN, LEFT)
        self.board.add(tick, label)
        return FadeIn(tick, label)

    def grow(self, tokens: float, seconds: float, *others: Animation):
        """So many tokens are there."""
        self.move(
            self.tokens.to(tokens),
            self.sizes[1].to(self.per_token * tokens / 1e6),
            *others,
            seconds=seconds,
        )

    def short(self):
        """A step's time at the shortest context that was measured."""
        context = self.contexts[0]
        self.say(
            f"At {context:,} tokens the cache's step is faster: {self.cache_ms[0]:.1f} ms against"
            f" {self.state_ms[0]:.1f}.",
            "short",
        )
        both = self.state_ms, self.cache_ms
        largest = max(map(max, both))
        self.times = [
            Cost(name, y, largest, "ms", ms).show(ms[0]) for name, y, ms in zip(KINDS, TIMES, both)
        ]
        where = Label(machine(self.document), TEXT, MUTED).put([-FRAME, MACHINE, 0], LEFT)
        new = VGroup(*self.times, self.heading("One decode step, measured", TIMES[0]), where)
        self.board.add(*new)
        self.grow(context, BRISK)
        self.move(FadeIn(new), seconds=BRISK)

    def long(self):
        """And at the longest."""
        self.say(
            f"At {self.contexts[-1]:,} the cache's takes {self.cache_ms[-1]:.1f} ms, the state's"
            f" {self.state_ms[-1]:.1f}.",
            "long",
        )
        low, high = self.crossing
        for context, *ms in list(zip(self.contexts, self.state_ms, self.cache_ms))[1:]:
            self.grow(context, BRISK, *[cost.to(x) for cost, x in zip(self.times, ms)])
            if context == high:
                text = f"equal between {low:,} and {high:,}"
                self.move(self.equal(text, TIMES[1], self.times[0]), seconds=QUICK)
        self.rest(2 * PAUSE)

    # -- and no way back -----------------------------------------------------------------
    def rewound(self):
        """The last token is taken back: a cache drops its row, a state has no earlier self."""
        self.say("But what a state has overwritten is gone: it cannot be rewound.", "rewound")
        rows = [
            VGroup(Chip(f"{self.name} {digit}", 1.3, 0.62, TEXT), Cell("stored", 1.3, 0.62))
            for digit in self.told
        ]
        left = self.plain.zero.get_left()[0]
        for row, y in zip(rows, (1.1, 0.3)):
            row.arrange(RIGHT, buff=0.12).move_to([left, y, 0], LEFT)
        old = self.told[0]
        self.plain.want(self.values[0])
        self.delta.want(self.values[0])
        names = [
            Label("KV cache", TEXT, NAVY, "semibold").put([left, 2.0, 0], LEFT),
            self.delta.beside("state", NAMED),
        ]
        read = self.delta.answer
        self.move(
            FadeOut(self.board), self.phase.change("Take back the last two tokens"), seconds=QUICK
        )
        self.move(
            FadeIn(*rows, *names, *self.chips, self.plain.zero, self.plain.wanted),
            FadeIn(*[part for part in self.delta if part is not read]),
            seconds=BRISK,
        )
        self.move(*[chip.animate.look("active") for chip in self.chips[2:]], seconds=QUICK)
        self.move(FadeOut(*self.chips[2:], rows[1], shift=0.3 * RIGHT), seconds=BRISK)
        held = self.plain.bars(0 * self.values[0], "stored")
        self.move(rows[0][1].animate.look("active"), seconds=QUICK)
        self.add(held)
        kept = self.plain.beside(f"still has {old}", SAID, NAVY, "bold")
        self.move(
            held.to(self.values[0]),
            FadeIn(kept),
            rows[0][1].animate.look("stored"),
            seconds=BRISK,
        )
        lost = self.delta.beside(f"{old} is gone", SAID, NAVY, "bold")
        self.last = self.ask(self.delta, self.keys[0], FadeIn(lost))
        self.rest(2 * PAUSE)


class Cost(Counter):
    """A name, a bar and its number with a unit, in columns of their own.

    measured: only these values are written, never one in between.
    """

    def __init__(self, name: str, y: float, full: float, unit: str, measured=()):
        self.full, self.unit, self.measured = full, unit, measured
        self.label = Label(name, TEXT, INK).put([-FRAME, y, 0], LEFT)
        self.bar = dress(Rectangle(width=LENGTH, height=0.38), "stored")
        self.bar.move_to([BARS, y, 0], LEFT)
        self.tip = dress(Rectangle(width=0.12, height=0.5), "active").set_opacity(0)
        self.number = Note("0", [FRAME, y, 0], RIGHT, TEXT, NAVY, "bold", 12)
        super().__init__(self.label, self.bar, self.tip, self.number)
        self.show(0)

    def show(self, value):
        self.value = value
        width = max(1e-3, LENGTH * value / self.full)
        self.bar.stretch_to_fit_width(width, about_point=self.bar.get_left())
        self.tip.move_to(self.bar.get_right())
        if not self.measured or value in self.measured:
            self.number.set(self.number.label(f"{value:.1f} {self.unit}"))
        return self


def memories(keys, values) -> tuple[np.ndarray, np.ndarray]:
    """States after each token, of a memory that only adds and of the delta rule, with whole steps
    (beta = 1) and nothing forgotten.
    """
    added = np.cumsum([np.outer(k, v) for k, v in zip(keys, values)], axis=0)
    states, state = [], None
    for k, v in zip(keys, values):
        one = [x[None, None] for x in (k, k, v)]
        _, state = reference.delta_recurrent(*one, np.zeros((1, 1)), np.ones((1, 1)), state)
        states.append(state[0])
    return added, np.array(states)


CLIPS = [StateThatNeverGrows]

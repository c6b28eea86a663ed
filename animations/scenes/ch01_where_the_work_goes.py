"""Chapter 01's clip: a step waits for its weights while the arithmetic units stand idle."""

from __future__ import annotations

import numpy as np
from manim import (
    LEFT,
    RIGHT,
    UP,
    Animation,
    FadeIn,
    FadeOut,
    Line,
    RoundedRectangle,
    VGroup,
    linear,
    squish_rate_func,
)

from animations.stage.charts import Bar, Tally
from animations.stage.clock import CourseScene
from animations.stage.mobjects import Cell, Note, Rewrite, dress
from animations.stage.style import BRISK, EASE, FRAME, INK, MOVE, MUTED, NAVY, QUICK, TEXT, Label
from labkit import formulas, presets
from labkit_labs.common import gpus

MODEL, GPU, DTYPE = "llama3-8b", "H100", "bf16"
NAME = "Llama-3-8B"
FEW = 16  # tokens of the batch between one and the ridge

# heights
TITLE, PHASE, NAMES, TOP, BOTTOM = 3.43, 2.82, 2.14, 1.8, -0.7
PIPE, BORE = 0.55, 0.46  # the pipe's middle line and its height
CLOCK, NEXT = -1.12, 0.52  # of the times' heading, and from a line to the one below
WORK = CLOCK - 1.5 * NEXT
BAR, LENGTH = 4.18, 2.7  # from a name to its bar; the longest bar
SCORE = 3.0  # where the big figure ends
# the memory's right edge, where the blocks of weights stand in it
MEMORY, ROWS = -3.9, 8
COLUMNS = 30  # of the field of units
UNIT = 0.235
FIELD = FRAME - COLUMNS * UNIT - 0.2  # the field's left edge
# shares: of a stream's time that one block is on its way, of its way that leads to the pipe
TRAVEL, APPROACH = 0.2, 0.2


class Stream(Animation):
    """Copies of the memory's blocks run through the pipe, one after the other; what has left stays
    behind, pale. begin, end: the part of the stream that is shown.
    """

    def __init__(self, blocks: list[Cell], copies: list[Cell], begin=0.0, end=1.0, **kwargs):
        self.blocks, self.copies, self.part = blocks, copies, (begin, end)
        super().__init__(VGroup(*blocks, *copies), rate_func=linear, **kwargs)

    def interpolate_mobject(self, alpha: float) -> None:
        begin, end = self.part
        now = begin + (end - begin) * alpha
        step = (1 - TRAVEL) / (len(self.blocks) - 1)
        for i, (block, copy) in enumerate(zip(self.blocks, self.copies)):
            way = (now - i * step) / TRAVEL
            block.look("done" if way > 0 else "stored")
            self.draw(copy, block, min(max(way, 0), 1))

    @staticmethod
    def draw(copy: Cell, block: Cell, way: float) -> None:
        """Straight to the pipe's mouth, along it, and into the field, whose edge cuts it off."""
        mouth = np.array([MEMORY - block.width / 2 - 0.1, PIPE, 0])
        if way < APPROACH:
            middle = block.get_center() + way / APPROACH * (mouth - block.get_center())
        else:
            length = FIELD + block.width / 2 - mouth[0]
            middle = mouth + (way - APPROACH) / (1 - APPROACH) * length * RIGHT
        left = middle[0] - block.width / 2
        width = min(block.width, max(FIELD - left, 0.01))
        dress(copy, "stored").stretch_to_fit_width(width)
        copy.move_to([left + width / 2, middle[1], 0]).set_opacity(float(0 < way < 0.98))


class Times(VGroup):
    """Some times on one scale, one above the other, under a heading. looks: each name's."""

    def __init__(self, heading: str, looks: dict[str, str], full: float):
        self.bars = [
            Bar(name, np.array([-FRAME, CLOCK - (i + 1) * NEXT, 0]), full, LENGTH, look, BAR)
            for i, (name, look) in enumerate(looks.items())
        ]
        super().__init__(
            Label(heading, TEXT, INK, "semibold").put([-FRAME, CLOCK, 0], LEFT), *self.bars
        )


class WeightsStream(CourseScene):
    """Left the memory, right the arithmetic units, between them a narrow pipe.

    There is one unit for each FLOP that the GPU can do while a byte arrives: the ridge.
    """

    clip_name = "weights_stream"
    title = "Weights stream past idle units"
    alt = (
        "Left, a model's weights as navy blocks in memory; right, a field of small arithmetic"
        " units; between them a narrow pipe. For one token all blocks stream through the pipe and a"
        " single unit lights up in gold. Bars below compare the two times: reading is long,"
        " arithmetic a sliver. With 16 tokens the same stream lights 16 units, and with about 300"
        " all of them: then both bars are equally long. A number beside them counts the FLOPs for"
        " each byte read. Last, three bars show that a token costs less the more of them share the"
        " stream."
    )
    poster_at = "few"

    def construct(self):
        self.load()
        self.furnish()
        self.one_token()
        self.few_tokens()
        self.all_busy()
        self.the_point()
        self.finish()

    def load(self):
        """Everything that is counted, by the course's formulas."""
        self.model, self.card = presets[MODEL], gpus.named(GPU).ceilings
        self.bytes = formulas.decode_bytes(self.model, 0, dtype=DTYPE)
        self.flops = formulas.decode_flops(self.model, 1)
        self.units = round(self.card.ridge)

    def reading(self) -> float:
        """Microseconds in which the weights pass the pipe, whatever the batch."""
        return 1e6 * self.bytes / self.card.bytes_per_second

    def computing(self, tokens: int) -> float:
        """Microseconds that a step's arithmetic takes."""
        return 1e6 * tokens * self.flops / self.card.flops_per_second

    def work(self, tokens: int) -> float:
        """FLOPs for each byte read."""
        return formulas.intensity(tokens * self.flops, self.bytes)

    # -- the stage -----------------------------------------------------------------------
    def furnish(self):
        heading = Label("Where the work goes", "title", NAVY, "bold").put([-FRAME, TITLE, 0], LEFT)
        given = Label("published peaks", TEXT, MUTED).put([FRAME, TITLE, 0], RIGHT)
        self.phase = Note(
            f"{NAME} in {DTYPE} on an {GPU}, caches left out", [-FRAME, PHASE, 0], size=TEXT
        )
        memory = self.frame(-FRAME, MEMORY)
        self.blocks = self.stack(memory)
        self.copies = [b.copy().set_opacity(0) for b in self.blocks]
        name = Label(f"memory: {self.bytes / 1e9:.1f} GB", TEXT, INK, "medium")
        name.put([-FRAME, NAMES, 0], LEFT)
        self.say(
            f"To write one token, {NAME} reads all its weights: {self.bytes / 1e9:.1f} GB.",
            "memory",
        )
        self.move(FadeIn(heading, given, self.phase, shift=0.1 * UP), seconds=BRISK)
        self.move(FadeIn(memory, name, *self.blocks), seconds=MOVE)

        self.say("They come through a narrow pipe: the memory's bandwidth.", "pipe")
        pipe = VGroup(
            *[
                Line([MEMORY, y, 0], [FIELD, y, 0], color=NAVY, stroke_width=3)
                for y in (PIPE - BORE / 2, PIPE + BORE / 2)
            ]
        ).set_z_index(1)
        middle = (MEMORY + FIELD) / 2
        speed = Label(f"{self.card.bytes_per_second / 1e12:.2f} TB/s", TEXT, NAVY, "semibold")
        speed.put([middle, PIPE + 0.6, 0])
        kind = Label("bandwidth", TEXT, MUTED).put([middle, PIPE - 0.6, 0])
        self.move(FadeIn(pipe), FadeIn(speed, kind), seconds=MOVE)

        self.say(
            f"While one byte arrives, the units could do {self.units} FLOPs: a cell for each.",
            "units",
        )
        field = self.frame(FIELD, FRAME)
        self.cells = [
            Cell("empty", UNIT - 0.05, UNIT - 0.05).move_to(
                [
                    FIELD + 0.1 + (i // self.rows + 0.5) * UNIT,
                    TOP - 0.07 - (i % self.rows + 0.5) * UNIT,
                    0,
                ]
            )
            for i in range(self.units)
        ]
        self.busy = Note(
            "arithmetic units: all idle",
            [FIELD, NAMES, 0],
            size=TEXT,
            color=NAVY,
            weight="semibold",
        )
        self.move(FadeIn(field, self.busy, *self.cells), seconds=MOVE)

    @property
    def rows(self) -> int:
        return -(-self.units // COLUMNS)

    def frame(self, left: float, right: float) -> RoundedRectangle:
        box = RoundedRectangle(corner_radius=0.12, width=right - left, height=TOP - BOTTOM)
        return dress(box, "empty").move_to([(left + right) / 2, (TOP + BOTTOM) / 2, 0])

    def stack(self, memory) -> list[Cell]:
        """A block for each layer, those next to the pipe first."""
        columns = -(-self.model.n_layers // ROWS)
        wide, high = (memory.width - 0.2) / columns, (memory.height - 0.2) / ROWS
        corner = memory.get_corner(UP + RIGHT) - np.array([0.1, 0.1, 0])
        return [
            Cell("stored", wide - 0.08, high - 0.08).move_to(
                corner - np.array([(i // ROWS + 0.5) * wide, (i % ROWS + 0.5) * high, 0])
            )
            for i in range(self.model.n_layers)
        ]

    # -- the steps -----------------------------------------------------------------------
    def one_token(self):
        """The stream for one token, and its two times."""
        self.times = Times(
            "Microseconds for a step",
            {"reading": "stored", "computing": "active"},
            self.reading(),
        )
        self.score = Tally(0, np.array([SCORE, WORK, 0]), RIGHT, "figure", NAVY)
        unit = VGroup(
            *[
                Label(text, TEXT, INK, "semibold").put([SCORE + 0.25, WORK + up, 0], LEFT)
                for text, up in (("FLOPs for", NEXT / 2), ("each byte read", -NEXT / 2))
            ]
        )
        self.say("One token: every weight passes by, and is used once.", "one")
        self.move(FadeIn(self.times, self.score, unit), seconds=BRISK)
        self.step(1, 5.0)
        self.rest()
        self.say(
            f"{self.reading():,.0f} microseconds to read, {self.computing(1):,.0f} to compute."
            " The units wait.",
            "wait",
        )
        self.rest()

    def few_tokens(self):
        """A batch uses the same stream."""
        self.say(f"Let {FEW} requests share one stream. All its bytes serve {FEW} tokens.", "few")
        self.again(FEW)
        self.step(FEW, 5.0, end=0.6)
        self.say("Reading takes as long as it did for one.", "same")
        self.step(FEW, 5.0, begin=0.6)
        self.rest()

    def all_busy(self):
        """The batch at which both times are equal."""
        self.say(f"With {self.units} tokens, all units are busy: this is the ridge point.", "ridge")
        self.again(self.units)
        self.step(self.units, 4.0)
        self.rest()

    def again(self, tokens: int):
        """A new step: the memory is full, the clock stands at nothing."""
        self.move(
            *[b.animate.look("stored") for b in self.blocks],
            self.phase.change(f"{tokens} tokens share the stream"),
            *[bar.to(0) for bar in self.times.bars],
            seconds=BRISK,
        )

    def step(self, tokens: int, seconds: float, begin=0.0, end=1.0):
        """All weights pass, or a part of them; so many tokens use them, from the first on."""
        read, compute = self.times.bars
        self.move(
            Stream(self.blocks, self.copies, begin, end),
            read.to(end * self.reading()).set_rate_func(linear),
            compute.to(end * self.computing(tokens)).set_rate_func(linear),
            *(() if begin else self.light(tokens, 0.85 * TRAVEL / end)),
            seconds=seconds * (end - begin),
        )

    def light(self, tokens: int, first: float) -> list[Animation]:
        """The units that so many tokens keep at work, when the first weights arrive."""
        count = min(self.units, round(self.work(tokens)))
        arrive = squish_rate_func(EASE, first, first + 0.1)
        return [
            *[c.animate(rate_func=arrive).look("active") for c in self.cells[:count]],
            Rewrite(self.busy, f"{count} of {self.units} units busy", rate_func=arrive),
            self.score.to(self.work(tokens)).set_rate_func(arrive),
        ]

    # -- the point -----------------------------------------------------------------------
    def the_point(self):
        """What a token costs in each of the three steps."""
        self.say("Useful work for each byte: the more of it, the less a token costs.", "work")
        batches = (1, FEW, self.units)
        times = Times(
            "Microseconds for each token",
            {f"{n} token" + "s" * (n > 1): "stored" for n in batches},
            self.reading(),
        )
        self.move(
            FadeOut(self.times),
            *[b.animate.look("stored") for b in self.blocks],
            seconds=QUICK,
        )
        self.move(FadeIn(times), seconds=QUICK)
        self.move(
            Stream(self.blocks, self.copies, end=0.7),
            *[
                bar.to(self.reading() / n).set_rate_func(squish_rate_func(EASE, 0.1, 0.6))
                for bar, n in zip(times.bars, batches)
            ],
            seconds=3 * MOVE,
        )
        self.rest()


CLIPS = [WeightsStream]

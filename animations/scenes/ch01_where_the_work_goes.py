"""Chapter 01's clip: a step waits for its weights while the arithmetic units stand idle."""

from __future__ import annotations

import numpy as np
from manim import LEFT, RIGHT, UP, Animation, FadeIn, Line, RoundedRectangle, VGroup, linear

from animations.stage.charts import BarPair, Tally
from animations.stage.clock import CourseScene
from animations.stage.mobjects import Cell, Note, dress
from animations.stage.style import BRISK, FRAME, INK, MOVE, NAVY, QUICK, Label
from labkit import formulas, presets
from labkit_labs.common import gpus

MODEL, GPU, DTYPE = "llama3-8b", "H100", "bf16"
NAME = "Llama-3-8B"
FEW = 16  # tokens of the batch between one and the ridge

# heights
TITLE, PHASE, NAMES, TOP, BOTTOM = 3.4, 2.85, 2.22, 1.92, -0.98
PIPE, BORE = 0.47, 0.46  # the pipe's middle line and its height
CLOCK, WORK = -1.5, -1.98
# the memory's right edge, where the blocks of weights stand in it
MEMORY, ROWS = -3.5, 8
COLUMNS = 25  # of the field of units
UNIT = 0.235
FIELD = FRAME - COLUMNS * UNIT - 0.2  # the field's left edge
TRAVEL = 0.2  # the share of a stream's time that one block is on its way


class Stream(Animation):
    """Copies of the memory's blocks run through the pipe, one after the other; what has left stays
    behind, pale.
    """

    def __init__(self, blocks: list[Cell], **kwargs):
        self.blocks = blocks
        self.moving = [Cell("stored", b.width, b.height).move_to(b) for b in blocks]
        super().__init__(VGroup(*self.moving), rate_func=linear, remover=True, **kwargs)

    def interpolate_mobject(self, alpha: float) -> None:
        step = (1 - TRAVEL) / (len(self.blocks) - 1)
        for i, (block, copy) in enumerate(zip(self.blocks, self.moving)):
            way = (alpha - i * step) / TRAVEL
            block.look("done" if way > 0 else "stored")
            dress(copy, "stored").set_opacity(float(0 < way < 1))
            copy.move_to(self.place(block, min(max(way, 0), 1)))

    @staticmethod
    def place(block: Cell, way: float) -> np.ndarray:
        """Straight to the pipe's mouth, then along it."""
        start = block.get_center()
        mouth = np.array([MEMORY + block.width / 2, PIPE, 0])
        end = np.array([FIELD - block.width / 2 - 0.03, PIPE, 0])
        first = np.linalg.norm(mouth - start)
        share = first / (first + np.linalg.norm(end - mouth))
        if way < share:
            return start + way / share * (mouth - start)
        return mouth + (way - share) / (1 - share) * (end - mouth)


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
        " each byte read."
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
        self.phase = Note(f"{NAME} in {DTYPE} on an {GPU}", [-FRAME, PHASE, 0])
        memory = self.frame(-FRAME, MEMORY)
        self.blocks = self.stack(memory)
        name = Label(f"memory: {self.bytes / 1e9:.1f} GB of weights", "small", INK, "medium")
        name.put([-FRAME, NAMES, 0], LEFT)
        self.say(
            f"To write one token, {NAME} reads all its weights: {self.bytes / 1e9:.1f} GB.",
            "memory",
        )
        self.move(FadeIn(heading, self.phase, shift=0.1 * UP), seconds=BRISK)
        self.move(FadeIn(memory, name, *self.blocks), seconds=MOVE)

        self.say("They come through a narrow pipe: the memory's bandwidth.", "pipe")
        pipe = VGroup(
            *[
                Line([MEMORY, y, 0], [FIELD, y, 0], color=NAVY, stroke_width=3)
                for y in (PIPE - BORE / 2, PIPE + BORE / 2)
            ]
        ).set_z_index(1)
        middle = (MEMORY + FIELD) / 2
        speed = Label(f"{self.card.bytes_per_second / 1e12:.2f} TB/s", "body", NAVY, "semibold")
        speed.put([middle, PIPE + 0.55, 0])
        self.move(FadeIn(pipe), FadeIn(speed), seconds=MOVE)

        self.say(
            f"At its end wait units for {self.units} FLOPs in the time that one byte takes.",
            "units",
        )
        field = self.frame(FIELD, FRAME)
        self.cells = [
            Cell("empty", UNIT - 0.05, UNIT - 0.05).move_to(
                [
                    FIELD + 0.1 + (i // self.rows + 0.5) * UNIT,
                    TOP - 0.04 - (i % self.rows + 0.5) * UNIT,
                    0,
                ]
            )
            for i in range(self.units)
        ]
        label = Label("arithmetic units", "small", INK, "medium").put([FIELD, NAMES, 0], LEFT)
        self.busy = Note(
            "all idle", [FRAME, NAMES, 0], RIGHT, size="small", color=NAVY, weight="semibold"
        )
        self.move(FadeIn(field, label, self.busy, *self.cells), seconds=MOVE)

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
    def light(self, tokens: int, look="active") -> list[Animation]:
        """The units that so many tokens keep at work."""
        count = min(self.units, round(self.work(tokens)))
        return [c.animate.look(look) for c in self.cells[:count]]

    def one_token(self):
        length = 3.4
        self.clock_bars = BarPair(
            "Time of a step, in microseconds",
            ("reading weights", "arithmetic"),
            np.array([-FRAME, CLOCK, 0]),
            self.reading(),
            length,
            looks=("stored", "active"),
        )
        self.score = Tally(0, np.array([3.3, WORK, 0]), RIGHT, "figure", NAVY)
        self.unit = VGroup(
            Label("FLOPs for each", "body", INK, "semibold").put([3.6, WORK + 0.22, 0], LEFT),
            Label("byte read", "body", INK, "semibold").put([3.6, WORK - 0.22, 0], LEFT),
        )
        self.say("One token: every weight passes by, and is used once.", "one")
        self.move(FadeIn(self.clock_bars, self.score, self.unit), seconds=QUICK)
        self.step(1, 5.0)
        self.say(
            f"{self.reading():,.0f} microseconds to read, {self.computing(1):,.0f} to compute."
            " The units mostly wait.",
            "wait",
        )
        self.put_out()
        self.rest()

    def step(self, tokens: int, seconds: float):
        """All weights pass once; so many tokens use them."""
        busy = min(self.units, round(self.work(tokens)))
        self.move(
            *self.light(tokens),
            self.busy.change(f"{busy} of {self.units} busy"),
            self.score.to(self.work(tokens)),
            seconds=BRISK,
        )
        read, compute = self.clock_bars.bars
        self.move(
            Stream(self.blocks, run_time=seconds),
            read.to(self.reading(), run_time=seconds),
            compute.to(self.computing(tokens), run_time=seconds),
            seconds=seconds,
        )

    def put_out(self):
        """The step is over."""
        self.move(*[b.animate.look("stored") for b in self.blocks], seconds=BRISK)

    def again(self, text: str):
        """A new step: the clock stands at nothing again."""
        self.move(self.phase.change(text), self.clock_bars.to(0, 0), seconds=BRISK)

    def few_tokens(self):
        self.say(f"Let {FEW} requests share one stream: {FEW} tokens in the same time.", "few")
        self.again(f"{FEW} tokens share the stream")
        self.step(FEW, 3.0)
        self.rest()

    def all_busy(self):
        self.say(f"At {self.units} tokens, all units are busy: the ridge point.", "ridge")
        self.put_out()
        self.again(f"{self.units} tokens share the stream")
        self.step(self.units, 3.0)
        self.rest()

    def the_point(self):
        self.say("What counts is useful work for each byte you read.", "work")
        self.put_out()
        self.rest()


CLIPS = [WeightsStream]

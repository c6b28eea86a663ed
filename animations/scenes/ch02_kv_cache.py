"""Chapter 02's clips: what the KV cache stores, and what it saves."""

from __future__ import annotations

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
    VGroup,
)

from animations.stage.charts import BarPair
from animations.stage.clock import CourseScene
from animations.stage.mobjects import (
    Bracket,
    CacheRow,
    Cell,
    Chip,
    LayerBox,
    Note,
    Query,
    token_text,
)
from animations.stage.style import (
    BRISK,
    FRAME,
    INK,
    MONO,
    MOVE,
    MUTED,
    NAVY,
    QUICK,
    TEXT,
    Label,
)
from labkit import results

# height of a box around a word; how far the word stands above its middle, as letters hang below
BOX, RISE = 0.54, 0.045 * UP
NAMES, SPARE = 1.75, 0.6  # room for the rows' names, left of the columns; for the last chip
# heights of the rows
TITLE = 3.42
PHASE = 2.82
CHIPS = (2.22, 1.64)  # of every other token, as a word is wider than its column
LAYER = 1.02
QUERY = 0.44
KEYS = -0.15
VALUES = -0.65
LEDGER = -1.05
LEDGER_ROOM = 1.8  # height of all the ledger's rows
SCORE = -1.1  # where the counts start, right of the title
LEGEND = np.array([2.75, -1.2, 0])  # beside the ledger's short rows
LOW = 0.8 * DOWN  # the stage stands lower until the ledger comes
CHIPS_LAST, LINE_LAST = 0.12, -0.64  # heights in the last picture
FIGURE_LAST, LINES_LAST = 1.58, (2.1, 1.58, 1.06)


def larger(label: Label) -> Label:
    """A label of the stage, large enough for a phone."""
    return label.scale(TEXT / label.cap)


class KVCacheLoop(CourseScene):
    """One column per token.

    Above, the decode loop and its cache; below, a row of work per step, with and without the cache.
    """

    clip_name = "kv_cache_loop"
    title = "The KV cache loop: write one row, read them all"
    alt = (
        "Tokens of a prompt pass through a model's layer together and leave one key and one value"
        " each in a cache. Then each new token adds one key and one value, and its query reads all"
        " of them. Below, a row per step shows the keys computed: the whole growing text without a"
        " cache, a single cell with one. Counts run beside it, and the measured speed-up closes the"
        " clip."
    )
    poster_at = "repeat"
    reads = (
        "ch02/decode_cached.trace.json",
        "ch02/decode_naive.trace.json",
        "ch02/baseline.*.json",
        "machines.json",
    )

    def construct(self):
        self.load()
        self.prompt()
        self.warm_up()
        self.first_step()
        self.the_bill()
        self.repeat()
        self.the_shape()
        self.the_gain()
        self.finish()

    def load(self):
        """The recorded runs. ValueError if they can't be shown side by side."""
        cached, naive = self.trace("ch02/decode_cached"), self.trace("ch02/decode_naive")
        self.cached, self.naive = cached.steps, naive.steps
        self.tokens, other = (
            [*t.meta["prompt"], *(s.token for s in t.steps)] for t in (cached, naive)
        )
        self.known = len(cached.meta["prompt"])
        self.layers = cached.meta["layers"]
        if self.tokens != other:
            raise ValueError("the two traces must decode the same text, with and without the cache")
        if len(self.tokens) > 14 or len(self.cached) < 3:
            raise ValueError(
                f"the clip shows at least 3 steps and at most 14 tokens, not {len(self.cached)} and"
                f" {len(self.tokens)}"
            )
        self.gap = (2 * FRAME - NAMES - SPARE) / len(self.tokens)
        self.wide = self.gap - 0.08
        self.low = LOW

    def spot(self, column: int, y: float) -> np.ndarray:
        """Where a column meets a row."""
        return np.array([NAMES - FRAME + (column + 0.5) * self.gap, y, 0]) + self.low

    def chip(self, i: int) -> Chip:
        """A token over its column, as wide as its text: at most two columns, as its neighbours
        stand higher or lower.
        """
        text, most = token_text(self.tokens[i]), min(2 * self.gap - 0.08, 2.4) - 0.14
        while (wide := Label(text, TEXT, NAVY, "medium", MONO).width) > most and len(text) > 2:
            text = text[:-2] + "…"
        chip = Chip(text, max(wide + 0.14, 0.62), BOX, TEXT)
        chip.token = self.tokens[i]
        accent = (chip[1].shift(RISE).get_top() - chip.box.get_top())[1] + 0.04
        chip[1].shift(max(0, accent) * DOWN)
        return chip.move_to(self.spot(i, CHIPS[i % len(CHIPS)]))

    # -- the loop ------------------------------------------------------------------------
    def prompt(self):
        """The prompt and the layer."""
        heading = Label("The KV cache loop", "title", NAVY, "bold").put([-FRAME, TITLE, 0], LEFT)
        self.phase = Note("Prefill: the prompt, all at once", [-FRAME, PHASE, 0], size=TEXT)
        everywhere = range(len(self.tokens))
        self.chips = [self.chip(i) for i in everywhere[: self.known]]
        self.layer = LayerBox(
            f"one of the model's {self.layers} layers", len(self.tokens) * self.gap + 0.1, BOX
        )
        larger(self.layer[1]).put(self.layer.box).shift(RISE)
        self.layer.move_to((self.spot(0, LAYER) + self.spot(len(self.tokens) - 1, LAYER)) / 2)
        self.keys, self.values = (
            CacheRow(name, [self.spot(i, y) for i in everywhere], self.wide, 0.28)
            for name, y in (("keys", KEYS), ("values", VALUES))
        )
        for row in (self.keys, self.values):
            larger(row.label).beside(row.slots)
        self.say("A model writes one token at a time. It begins with your prompt.", "prompt")
        self.move(FadeIn(heading, shift=0.1 * UP), seconds=BRISK)
        self.move(
            LaggedStart(*[FadeIn(c) for c in self.chips], lag_ratio=0.25),
            seconds=1.4 * MOVE,
        )
        self.move(FadeIn(self.layer), seconds=BRISK)

    def warm_up(self):
        """All of the prompt goes through at once, leaves its keys and values, and the next token
        comes out.
        """
        self.say(f"Prefill: all {self.known} tokens go through the layers together.", "prefill")
        self.move(
            FadeIn(self.phase), *[c.animate.look("active") for c in self.chips], seconds=BRISK
        )
        self.move(*[c.feed(self.layer) for c in self.chips], seconds=BRISK)
        self.say("Each leaves a key and a value. Kept in memory, they are the KV cache.", "cache")
        slots = (*self.keys.slots, *self.values.slots)
        self.move(
            FadeIn(self.keys.label, self.values.label),
            LaggedStart(*[FadeIn(s) for s in slots], lag_ratio=0.02),
            seconds=BRISK,
        )
        self.write(0, 1.2 * MOVE, lag=0.06)
        bracket = Bracket(VGroup(*self.values.cells), "KV cache")
        larger(bracket[1]).shift(0.06 * DOWN)
        self.move(
            self.keys.settle(),
            self.values.settle(),
            FadeIn(bracket),
            *[c.animate.look("plain") for c in self.chips[:-1]],
            seconds=BRISK,
        )
        self.rest()
        self.say("The last token's query reads every key. Out comes the next token.", "query")
        self.move(FadeOut(bracket), seconds=QUICK)
        self.read(0, MOVE)

    def feed(self, seconds: float):
        """The newest token becomes the active one and goes into the layer."""
        self.move(
            self.chips[-1].animate.look("active"), self.chips[-1].feed(self.layer), seconds=seconds
        )

    def write(self, i: int, seconds: float, *others: Animation, lag=0.0):
        """Step i's keys and values leave the layer and go to their slots."""
        sources = [self.spot(c, LAYER) for c in self.new(i)]
        self.move(
            self.keys.write(sources, lag), self.values.write(sources, lag), *others, seconds=seconds
        )

    def read(self, i: int, seconds: float, *others: Animation):
        """Step i's query reads every key; the next token appears."""
        query = Query(self.spot(self.cached[i].held - 1, QUERY), 0.28)
        larger(query[1]).put(query.disc)
        self.move(FadeIn(query), *others, seconds=0.5 * seconds)
        self.move(query.read(self.keys.cells[: self.cached[i].read]), seconds=seconds)
        self.chips.append(self.chip(self.cached[i].held))
        self.move(
            FadeOut(query, query.comb),
            FadeIn(self.chips[-1]),
            self.chips[-2].animate.look("plain"),
            seconds=0.6 * seconds,
        )

    def new(self, i: int) -> range:
        """The columns whose keys the cached loop computes at step i."""
        return range(self.cached[i].held - self.cached[i].computed, self.cached[i].held)

    def first_step(self):
        """One decode step, slowly."""
        self.say("Now the loop: only the new token goes in.", "loop")
        self.move(self.phase.change("Decode: one token a step"), seconds=BRISK)
        self.feed(BRISK)
        self.rest()
        self.say("One key and one value are appended. One query reads them all.", "append")
        self.write(1, MOVE)
        self.move(self.keys.settle(), self.values.settle(), seconds=QUICK)
        self.read(1, MOVE)

    # -- the bill ------------------------------------------------------------------------
    def the_bill(self):
        """The stage moves up; the keys that each loop has computed are counted, a row a step."""
        self.say("What did the cache save? Count the keys that had to be computed.", "bill")
        self.score = BarPair(
            ("with the cache", "without"),
            np.array([SCORE, TITLE, 0]),
            sum(s.computed for s in self.naive),
            name_width=3.15,
        )
        self.legend = VGroup()
        for look, meaning, y in (("stored", "first time", 0), ("again", "again", -0.5)):
            cell = Cell(look, 0.5, 0.28).move_to(LEGEND + y * UP, LEFT)
            self.legend.add(cell, Label(meaning, TEXT, MUTED).beside(cell, RIGHT))
        stage = VGroup(
            *self.chips, self.layer, self.keys, self.values, *self.keys.cells, *self.values.cells
        )
        self.move(
            stage.animate.shift(-self.low),
            self.phase.change("Keys computed so far"),
            seconds=MOVE,
        )
        self.low, self.rows = 0 * LOW, []
        self.move(FadeIn(self.score, self.legend), seconds=QUICK)
        self.move(self.row(0), self.tally(0), seconds=MOVE)
        self.say("Without a cache, the next step computes the whole text again.", "again")
        self.move(self.row(1), self.tally(1), seconds=1.5 * MOVE)
        self.rest()

    def row(self, i: int) -> Animation:
        """Step i's work: a cell for each key that the naive loop computes; navy where the cached
        loop computes it too.
        """
        height = LEDGER_ROOM / len(self.cached)
        cells = [
            Cell("stored" if c in self.new(i) else "again", self.wide, height - 0.06).move_to(
                self.spot(c, LEDGER - (i + 0.5) * height)
            )
            for c in range(self.naive[i].computed)
        ]
        self.rows.append(VGroup(*cells))
        names = []
        if i in (0, len(self.cached) - 1):  # a name is higher than a row
            names.append(Label(f"step {i + 1}", TEXT, MUTED).beside(cells[0]))
        return LaggedStart(*[FadeIn(part) for part in (*names, *cells)], lag_ratio=0.3)

    def tally(self, i: int) -> Animation:
        return self.score.to(
            sum(s.computed for s in self.cached[: i + 1]),
            sum(s.computed for s in self.naive[: i + 1]),
        )

    def repeat(self):
        """The remaining steps, faster and faster."""
        self.say("Red is work done before. The cache skips it, at every step.", "repeat")
        for i in range(2, len(self.cached)):
            pace = max(0.45, 0.7 - 0.1 * (i - 2))
            self.feed(QUICK * pace)
            self.write(i, pace, self.row(i), self.tally(i))
            self.read(i, pace, self.keys.settle(), self.values.settle())
        self.rest()

    # -- the point -----------------------------------------------------------------------
    def the_shape(self):
        """The work without the cache stays as it is; the work with it falls into one line."""
        self.say("Without the cache, the work is a triangle. With it, a single line.", "shape")
        cache = VGroup(self.layer, self.keys, self.values, *self.keys.cells, *self.values.cells)
        self.move(
            FadeOut(cache, self.legend),
            self.phase.change("Keys computed in all"),
            seconds=BRISK,
        )
        chips = VGroup(*self.chips)
        self.move(chips.animate.set_y(CHIPS_LAST), seconds=MOVE)
        first = [row[c] for i, row in enumerate(self.rows) for c in self.new(i)]
        line = [c.copy() for c in first]
        name = Label("cached", TEXT, NAVY, "medium").beside(line[0].copy().set_y(LINE_LAST))
        naive = Label("without, step by step", TEXT, MUTED).put(
            [FRAME, self.rows[0].get_y(), 0], RIGHT
        )
        self.move(
            FadeIn(name),
            LaggedStart(*[c.animate.set_y(LINE_LAST) for c in line], lag_ratio=0.08),
            seconds=1.4 * MOVE,
        )
        self.move(FadeIn(naive), seconds=QUICK)

    def the_gain(self):
        """What it is worth, measured."""
        with_cache, without = (results.row("ch02/baseline", variant=v) for v in ("cached", "naive"))
        multiple, context, new = (with_cache[k] for k in ("multiple", "context", "new"))
        env = with_cache.document["env"]
        machine = results.where(with_cache.document)
        threads = (
            ""
            if "gpu" in env or "threads" not in env
            else f", {env['threads']} thread" + "s" * (env["threads"] > 1)
        )
        self.say(
            f"Measured, {context} tokens in and {new} out: {multiple:.1f} times the speed.", "gain"
        )
        figure = Label(f"{multiple:.1f}×", "figure", NAVY, "bold").put(
            [-FRAME, FIGURE_LAST, 0], LEFT
        )
        speeds = (
            f"{with_cache['tokens_per_second']:.1f} tokens a second instead of"
            f" {without['tokens_per_second']:.1f}"
        )
        lines = [
            Label(speeds, TEXT, INK, "semibold"),
            Label(f"SmolLM2-135M, {context} tokens in, {new} out", TEXT, MUTED),
            Label(f"{machine}{threads}", TEXT, MUTED),
        ]
        left = figure.get_right()[0] + 0.35
        for label, y in zip(lines, LINES_LAST):
            if label.width > FRAME - left:
                label.scale((FRAME - left) / label.width)
            label.put([left, y, 0], LEFT)
        self.move(FadeIn(figure, shift=0.15 * UP), seconds=MOVE)
        self.move(*[FadeIn(label) for label in lines], seconds=BRISK)
        self.rest()


CLIPS = [KVCacheLoop]

"""Chapter 02's second clip: attention that never writes its scores."""

from __future__ import annotations

import math

import numpy as np
from manim import DOWN, LEFT, ORIGIN, RIGHT, UP, Animation, FadeIn, FadeOut, LaggedStart, VGroup

from animations.scenes.ch02_kv_cache import PHASE, TITLE
from animations.stage.charts import BarPair
from animations.stage.clock import CourseScene
from animations.stage.mobjects import Cell, Note
from animations.stage.style import BRISK, FRAME, INK, MOVE, MUTED, NAVY, PAUSE, QUICK, TEXT, Label
from labkit import results

SIDE, CORNER = 4.65, np.array([-4.8, 1.8, 0])  # the score matrix: its side and upper left corner
# the table's columns, right of the matrix
COLUMNS = {"query": 0.85, "largest": 2.52, "sum": 4.05, "repair": 5.75}
LEFTMOST = 0.2  # where the lines right of the matrix start
# heights of the table's header and rows, of the counts, of the last lines
HEADER, FIRST_ROW, ROW, SCORES = 2.15, 1.5, 0.58, -1.35
FIGURE, LINES = 1.85, (0.9, 0.38, -0.14)


class OnlineSoftmax(CourseScene):
    """Left, the square of scores, a tile at a time.

    Right, the two numbers that each query keeps instead, and how they are repaired.
    """

    clip_name = "online_softmax"
    title = "Online softmax: the scores that are never written"
    alt = (
        "A square of attention scores, queries down and keys across, is first written out whole,"
        " then emptied. A golden tile walks over its lower triangle instead; a table beside it"
        " shows each query's largest score and sum so far, and the factor that repairs the sum when"
        " a larger score turns up. Tiles above the diagonal stay untouched. The clip ends with the"
        " measured peak memory of both ways."
    )
    poster_at = "repair"
    reads = ("ch02/online_softmax.trace.json", "ch02/flash.*.json", "machines.json")

    def construct(self):
        self.run = self.trace("ch02/online_softmax")
        self.tokens, self.tile = self.run.meta["T"], self.run.meta["tile"]
        self.written_out()
        self.tiles()
        self.the_gain()
        self.finish()

    def at_scores(self, rows: list[int], columns: list[int], look: str) -> Cell:
        """A cell over these queries (rows) and keys (columns), ends excluded."""
        unit = SIDE / self.tokens
        cell = Cell(
            look, (columns[1] - columns[0]) * unit - 0.06, (rows[1] - rows[0]) * unit - 0.06
        )
        return cell.move_to(CORNER + np.array([sum(columns), -sum(rows), 0]) / 2 * unit)

    # -- all scores ----------------------------------------------------------------------
    def written_out(self):
        """All T x T scores, written and then dropped."""
        heading = Label("Online softmax", "title", NAVY, "bold").put([-FRAME, TITLE, 0], LEFT)
        self.phase = Note("All scores, then the softmax", [-FRAME, PHASE, 0], size=TEXT)
        axes = VGroup(
            Label("keys", TEXT, MUTED).put(CORNER + np.array([SIDE / 2, 0.35, 0])),
            Label("queries", TEXT, MUTED).put(CORNER - np.array([0.2, SIDE / 2, 0]), RIGHT),
        )
        T = self.tokens
        rows = [self.at_scores([i, i + 1], [0, T], "empty") for i in range(T)]
        square = self.run.meta["score_matrix_floats"]
        place = np.array([LEFTMOST, SCORES, 0])
        self.score = BarPair(("in tiles", "written out"), place + 0.6 * DOWN, square, 2.4)
        counted = Label("Scores held at once", TEXT, INK, "semibold").put(place, LEFT)
        self.say(
            f"Attention scores every query against every key: {T} tokens, {T} times {T} scores.",
            "square",
        )
        self.move(
            FadeIn(heading, self.phase, shift=0.1 * UP),
            FadeIn(axes),
            *[FadeIn(r) for r in rows],
            seconds=BRISK,
        )
        self.move(FadeIn(counted, self.score), seconds=QUICK)
        self.move(
            LaggedStart(*[r.animate.look("stored") for r in rows], lag_ratio=0.5),
            self.score.to(0, square),
            seconds=2 * MOVE,
        )
        self.say("They are used once and dropped. Must they be written at all?", "question")
        self.move(
            LaggedStart(*[r.animate.look("empty") for r in rows], lag_ratio=0.2), seconds=MOVE
        )
        self.squares = {
            (*s.query_tile, *s.key_tile): self.at_scores(s.query_tile, s.key_tile, "empty")
            for s in self.run.steps
        }
        self.move(FadeOut(*rows), *[FadeIn(c) for c in self.squares.values()], seconds=BRISK)

    # -- a tile at a time ----------------------------------------------------------------
    def tiles(self):
        """Every tile in the order of the trace: slowly until the first repair, then faster."""
        self.say("Take one tile. Per query, keep the largest score and the sum so far.", "tile")
        self.header = [
            Label(name, TEXT, MUTED, "semibold").put([x, HEADER, 0]) for name, x in COLUMNS.items()
        ]
        self.table = [
            {name: Note("–", self.cell(i, name), ORIGIN, TEXT, INK, capacity=6) for name in COLUMNS}
            for i in range(self.tile)
        ]
        self.move(
            self.phase.change(f"In tiles of {self.tile} by {self.tile}"),
            *[FadeIn(label) for label in self.header],
            *[FadeIn(note) for row in self.table for note in row.values()],
            seconds=BRISK,
        )
        before, pace = None, 1.0
        for step in self.run.steps:
            if step.skipped:
                self.once(
                    "skip", "Tiles behind the diagonal lie in the future: they are never touched."
                )
                self.move(FadeOut(self.squares[(*step.query_tile, *step.key_tile)]), seconds=QUICK)
                continue
            before = before if before and before.query_tile == step.query_tile else None
            if before and step.change < 1:
                self.once(
                    "repair", "A larger score? Then one factor repairs what was summed before."
                )
            self.visit(step, before, pace)
            before, pace = step, 0.6 if self.moments[-1].name == "repair" else 1.0
        self.rest()

    def once(self, moment: str, sentence: str):
        if moment not in {m.name for m in self.moments}:
            self.say(sentence, moment)

    def visit(self, step, before, pace: float):
        """One tile is at work; its queries' numbers change; its scores are dropped."""
        square = self.squares[(*step.query_tile, *step.key_tile)]
        scores = (step.query_tile[1] - step.query_tile[0]) * (step.key_tile[1] - step.key_tile[0])
        marks = [
            Cell("marked", FRAME - LEFTMOST + 0.1, ROW - 0.08).set_z_index(-1).move_to(self.cell(i))
            for i, factor in enumerate(self.factors(step, before))
            if factor and factor < 1
        ]
        self.move(
            square.animate.look("active"),
            self.score.to(scores, self.score.bars[1].value),
            seconds=QUICK,
        )
        self.move(*[FadeIn(m) for m in marks], *self.rows(step, before), seconds=1.2 * pace)
        self.rest(PAUSE * pace)
        self.move(square.animate.look("done"), *[FadeOut(m) for m in marks], seconds=QUICK * pace)

    @staticmethod
    def cell(i: int, column: str | None = None) -> np.ndarray:
        """Where the table's i-th row meets a column, or its middle."""
        return np.array(
            [
                COLUMNS[column] if column else (LEFTMOST + FRAME) / 2,
                FIRST_ROW - i * ROW,
                0,
            ]
        )

    @staticmethod
    def factors(step, before) -> list[float | None]:
        """By what each query's earlier sum is multiplied, as its largest score has grown; None
        where there is no earlier sum.
        """
        return (
            [math.exp(old - new) for old, new in zip(before.top, step.top)]
            if before
            else [None] * len(step.top)
        )

    def rows(self, step, before) -> list[Animation]:
        """The table's new texts: they show what the trace recorded, and the factor that follows
        from it.
        """
        changes = []
        for i, (top, total, factor) in enumerate(
            zip(step.top, step.total, self.factors(step, before))
        ):
            texts = {
                "query": str(step.query_tile[0] + i + 1),
                "largest": f"{round(top, 2) + 0:.2f}".replace("-", "−"),
                "sum": f"{total:.2f}",
                "repair": "–" if factor is None else f"× {factor:.2f}",
            }
            changes += [
                self.table[i][name].change(text)
                for name, text in texts.items()
                if self.table[i][name].text != text
            ]
        return changes

    # -- the point -----------------------------------------------------------------------
    def the_gain(self):
        """What it is worth, measured at the longest context of the lab."""
        rows = results.load("ch02/flash")["rows"]
        context = max(r["context"] for r in rows)
        peak = {
            kind: results.row("ch02/flash", kind=kind, context=context)["peak_bytes"] / 1e6
            for kind in ("written out", "fused")
        }
        self.say("The answer is the same. Only the square of scores is gone.", "same")
        self.rest()
        self.say(
            f"Measured at {context:,} tokens: {peak['fused']:,.0f} MB at the peak instead of"
            f" {peak['written out']:,.0f}.",
            "gain",
        )
        table = [note for row in self.table for note in row.values()]
        self.move(
            FadeOut(*table, *self.header),
            self.phase.change("Fused attention, measured"),
            seconds=BRISK,
        )
        figure = Label(f"{peak['written out'] / peak['fused']:,.0f}×", "figure", NAVY, "bold").put(
            [LEFTMOST, FIGURE, 0], LEFT
        )
        lines = [
            Label(f"less memory at {context:,} tokens", TEXT, INK, "semibold"),
            Label(f"{peak['fused']:,.0f} MB at the peak", TEXT, MUTED),
            Label(f"instead of {peak['written out']:,.0f} MB", TEXT, MUTED),
        ]
        for label, y in zip(lines, LINES):
            label.put([LEFTMOST, y, 0], LEFT)
        self.move(
            FadeIn(figure, shift=0.15 * UP), *[FadeIn(label) for label in lines], seconds=MOVE
        )
        self.rest(2 * PAUSE)


CLIPS = [OnlineSoftmax]

"""Chapter 04's clip: what MLA stores of a token, and two ways to attend to it."""

from __future__ import annotations

import math

import numpy as np
from manim import (
    DOWN,
    LEFT,
    ORIGIN,
    RIGHT,
    UP,
    Animation,
    AnimationGroup,
    Circle,
    Create,
    FadeIn,
    FadeOut,
    GrowFromEdge,
    LaggedStart,
    Line,
    Rectangle,
    ReplacementTransform,
    RoundedRectangle,
    TransformFromCopy,
    VGroup,
    VMobject,
)

from animations.stage.charts import Bar
from animations.stage.clock import CourseScene
from animations.stage.mobjects import Cell, Note, Query, dress
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
    RED,
    TEXT,
    Label,
    formula,
)
from labkit import formulas, presets

MODEL, NAME = presets["deepseek-v3"], "DeepSeek-V3"
H, C = MODEL.n_heads, MODEL.kv_lora_rank
E_N, E_R, E_V = MODEL.qk_nope_head_dim, MODEL.qk_rope_head_dim, MODEL.v_head_dim
FULL = H * (E_N + E_R + E_V)  # numbers that full heads would keep of a token, in a layer
KEPT = formulas.symbols.latent_bits_per_token(C, E_R, 1)

LARGE = 0.4  # of a title, of the number at the crossing
LETTER, TALL = 0.5, 0.78  # of a matrix' name, whose index is smaller; of its box
TITLE, PHASE, ASIDE = 3.35, 2.7, 2.1
# the first picture: areas are to scale
AREA = 3000  # numbers in a square of one unit
VECTOR, NAMES, BLOCKS, SUMS = 1.45, 0.82, -0.8, -2.5  # heights
LATENT, KEY, TOTAL = 0.0, -0.75, -1.6
BLOCK = 2.5  # height of the heads' blocks
NARROW = 0.6  # where the latent stands
# the second picture
HELD = 8  # tokens in the cache when the query comes
START, GAP = -4.85, 0.92
WIDE, HIGH = 0.56, 0.42
OUT = 5.2  # where the output comes out
QUERY, KEYS, VALUES, UP_PROJECTION, LATENTS, TURNED, SHARES = (
    1.58,
    0.92,
    0.36,
    -0.32,
    -1.02,
    -1.52,
    -2.75,
)
EXIT, POURED = 1.12, 0.3  # heights of the output's name, and of its foot
INWARD, MOVED = 0.72, -0.1  # absorbed: the matrix beside the query, the query behind it
SCORE, BAR, FULL_BAR = 0.75, 2.9, 2.95  # where its parts start, from a name to its bar, the longest
# the last picture
AXES, ACROSS, ALOFT = np.array([-6.2, -1.6, 0]), 10.2, 3.7


def column(i: float, y: float) -> np.ndarray:
    """Where a cached token's column meets a row."""
    return np.array([START + (i + 0.5) * GAP, y, 0])


def over_latents(new: float) -> float:
    """FLOPs that absorbing spends on one cached token, for so many new ones."""
    return formulas.symbols.latent_decode_flops(new, 1, H, C, E_R)


def over_heads(new: float) -> float:
    """The same for re-projecting: the token's keys and values are made once, for all of them."""
    made = 2 * C * H * (E_N + E_V)
    return made + formulas.symbols.latent_prefill_flops(new, 1, H, E_N, E_R, E_V)


def crossing() -> float:
    """New tokens from which re-projecting is no dearer, in a long context."""
    return over_heads(0) / (over_latents(1) - over_heads(1) + over_heads(0))


class Small:
    """A layer small enough to work out here: a head of 4 + 2 numbers, latents of 6.

    shares(held): what the newest of so many tokens gives to each, and out(held) the sum. Both are
    worked out in both ways (ValueError unless they agree).
    """

    def __init__(self, tokens: int):
        draw = np.random.default_rng(0)
        self.latents, self.to_value = (
            draw.exponential(size=(tokens, 6)),
            draw.exponential(size=(5, 6)),
        )
        self.to_key, self.query = draw.normal(0, 0.6, (4, 6)), draw.normal(size=(tokens, 4))
        self.turned, self.turned_query = draw.normal(size=(2, tokens, 2))

    def both(self, held: int) -> tuple[np.ndarray, np.ndarray]:
        latents, query = self.latents[:held], self.query[held - 1]
        place = self.turned[:held] @ self.turned_query[held - 1]
        soft = lambda scores: np.exp(scores / 6**0.5) / np.exp(scores / 6**0.5).sum()
        again = soft(latents @ self.to_key.T @ query + place)
        absorbed = soft(latents @ (query @ self.to_key) + place)
        out = again @ (latents @ self.to_value.T), self.to_value @ (absorbed @ latents)
        if not (np.allclose(again, absorbed) and np.allclose(*out)):
            raise ValueError("re-projected and absorbed attention must give the same numbers")
        return absorbed, out[1]


class Heads(VGroup):
    """Keys or values of all heads: a mesh with a cell for each of them."""

    def __init__(self, look: str, width: float, height: float):
        self.box = Cell(look, width, height)
        across = 2 ** math.ceil(math.log2(H) / 2)
        self.mesh = VGroup(
            *[
                Line([x, -height / 2, 0], [x, height / 2, 0])
                for x in np.linspace(-width / 2, width / 2, across + 1)[1:-1]
            ],
            *[
                Line([-width / 2, y, 0], [width / 2, y, 0])
                for y in np.linspace(-height / 2, height / 2, H // across + 1)[1:-1]
            ],
        )
        super().__init__(self.box, self.mesh)
        self.look(look)

    def look(self, look: str) -> Heads:
        self.box.look(look)
        self.mesh.set_stroke(RED if look == "again" else NAVY, 1, 0.35)
        return self


class Dial(VGroup):
    """A rotary key: its hand stands where the token's position has turned it."""

    def __init__(self, position: int, radius=0.15, look="stored"):
        self.face = Circle(radius)
        angle = math.pi / 2 - 0.62 * position
        tip = 0.8 * radius * np.array([math.cos(angle), math.sin(angle), 0])
        self.hand = Line([0, 0, 0], tip, stroke_width=3)
        super().__init__(self.face, self.hand)
        self.look(look)

    def look(self, look: str) -> Dial:
        dress(self.face, look)
        self.hand.set_stroke(GROUND if look == "stored" else NAVY)
        return self


class Matrix(VGroup):
    """A matrix, with these names side by side. Drawn above what passes through it."""

    def __init__(self, width: float, *names: VMobject):
        self.box = RoundedRectangle(corner_radius=0.12, width=width, height=TALL)
        super().__init__(dress(self.box, "layer"), *names)
        for i, name in enumerate(names):
            name.move_to([(i + 0.5 - len(names) / 2) * width / len(names), 0, 0])
        self.set_z_index(2)


class Score(VGroup):
    """How often each way multiplies up in this step."""

    def __init__(self):
        heading = Label("Up-projections in this step", TEXT, INK, "semibold")
        self.ways = [
            Bar(name, np.array([SCORE, y, 0]), HELD + 1, FULL_BAR, look, BAR)
            for name, y, look in (
                ("re-project", PHASE + 0.1, "again"),
                ("absorb", ASIDE + 0.15, "stored"),
            )
        ]
        super().__init__(heading.put([SCORE, TITLE, 0], LEFT), *self.ways)

    def to(self, *counts: int) -> Animation:
        return AnimationGroup(*[way.to(n) for way, n in zip(self.ways, counts)], run_time=0.7)


class Asking(Query):
    """A query whose letter can be read on a phone."""

    def __init__(self, point):
        super().__init__(point, radius=0.3)
        letter = self[1]
        letter.scale(TEXT / letter.cap).put(self.disc)


class Moved(Query):
    """A query in the space of the latents: as wide as one of them."""

    def __init__(self, point):
        self.disc, self.comb = Cell("active", WIDE, HIGH).move_to(point), VGroup()
        VGroup.__init__(self, self.disc)


class Bars(VGroup):
    """Numbers above zero as bars that stand at these places."""

    def __init__(self, values, places, width: float, height: float, look="done"):
        tall = height / max(values)
        super().__init__()
        for value, place in zip(values, places):
            bar = dress(Rectangle(width=width, height=max(0.03, value * tall)), look)
            self.add(bar.move_to(place, DOWN))

    def grow(self) -> Animation:
        return LaggedStart(*[GrowFromEdge(b, DOWN) for b in self], lag_ratio=0.05)

    def look(self, look: str) -> Bars:
        for bar in self:
            dress(bar, look)
        return self


class CompressStoreAbsorb(CourseScene):
    """First a token's numbers, to scale; then a cache of latents, and the two ways to attend to it;
    last, what they cost for one query and for many.
    """

    clip_name = "compress_store_absorb"
    title = "Compress, store, absorb: two ways to attend to latents"
    alt = (
        f"A token's vector stands above two large meshes, the keys and values of {H} heads. They"
        " pale, and the vector shrinks into one small navy square, the latent, beside a dial that"
        " its position turns. A row of latents and dials is the cache. Way 1: every latent goes up"
        " through a wide matrix and becomes red meshes, which a query reads; at the next step all"
        " of it happens again. Way 2: the matrix splits and leaves. One half goes to the query, the"
        " other to the exit; the query passes through once and reads the latents themselves, and"
        " the same bars come out. Last, two lines over the number of queries cross: absorbing"
        f" begins lower, and from {math.ceil(crossing())} on re-projecting is lower."
    )
    poster_at = "same"

    def construct(self):
        self.small = Small(HELD + 1)
        self.full_heads()
        self.compress()
        self.turn()
        self.store()
        self.reproject()
        self.once_more()
        self.absorb()
        self.same()
        self.many()
        self.finish()

    # -- compress ------------------------------------------------------------------------
    def full_heads(self):
        """What full heads would store of a token."""
        heading = Label("Compress, store, absorb", LARGE, NAVY, "bold")
        heading.put([-FRAME, TITLE, 0], LEFT)
        text = f"One token in one layer of {NAME}; boxes to scale"
        self.phase = Note(text, [-FRAME, PHASE, 0], size=TEXT)
        size = MODEL.d_model / AREA
        self.vector = Cell("plain", size / 0.4, 0.4).move_to([-FRAME, VECTOR, 0], LEFT)
        name = Label(f"the token's vector: {MODEL.d_model:,} numbers", TEXT, INK, "medium")
        name.put([-FRAME, VECTOR + 0.55, 0], LEFT)
        widths = [H * e / AREA / BLOCK for e in (E_N + E_R, E_V)]
        self.heads = [Heads("done", w, BLOCK) for w in widths]
        corner = -FRAME
        self.names = [name]
        for block, what in zip(self.heads, (f"{H} keys", f"{H} values")):
            block.move_to([corner, BLOCKS, 0], LEFT)
            self.names.append(Label(what, TEXT, INK, "medium").put([corner, NAMES, 0], LEFT))
            corner += block.width + 0.25
        text = f"{H} × ({E_N + E_R} + {E_V}) = {FULL:,} numbers"
        self.sum = Label(text, TEXT, INK, "semibold").put([-FRAME, SUMS, 0], LEFT)
        self.say(f"Full heads would keep {FULL:,} numbers of each token, in every layer.", "full")
        self.move(FadeIn(heading, self.phase, shift=0.1 * UP), seconds=BRISK)
        self.move(FadeIn(self.vector, name), seconds=BRISK)
        self.move(
            LaggedStart(*[FadeIn(b, shift=0.2 * DOWN) for b in self.heads], lag_ratio=0.4),
            FadeIn(*self.names[1:]),
            seconds=MOVE,
        )
        self.move(FadeIn(self.sum), seconds=QUICK)

    def compress(self):
        """One latent in place of all of them."""
        self.say(f"MLA presses the token into one latent of {C} numbers.", "latent")
        side = math.sqrt(C / AREA)
        self.latent = Cell("active", side, side).move_to([NARROW, LATENT, 0])
        label = Label(f"latent: {C} numbers", TEXT, INK, "medium").beside(self.latent, RIGHT, 0.25)
        self.press(
            self.latent,
            *[FadeOut(b.mesh) for b in self.heads],
            *[b.box.animate.look("empty") for b in self.heads],
        )
        self.move(FadeIn(label), self.latent.animate.look("stored"), seconds=QUICK)
        self.names.append(label)

    def turn(self):
        """The small key that knows where the token stands."""
        self.say(
            f"Beside it, one small key is turned by position. Only these {KEPT} are stored.", "key"
        )
        self.dial = Dial(0, 0.15, "active").move_to([NARROW, KEY, 0])
        label = Label(f"rotary key: {E_R} numbers", TEXT, INK, "medium")
        label.put([self.names[-1].get_left()[0], self.dial.get_y(), 0], LEFT)
        label.align_to(self.names[-1], LEFT)
        total = Label(f"{C} + {E_R} = {KEPT} numbers", TEXT, NAVY, "bold")
        total.put([NARROW - self.latent.width / 2, TOTAL, 0], LEFT)
        self.press(self.dial.face)
        self.add(self.dial)
        self.move(FadeIn(self.dial.hand, label), seconds=QUICK)
        self.move(
            self.dial.animate.look("stored"),
            FadeIn(total),
            seconds=QUICK,
        )
        self.names += [label, total]
        self.rest()

    def press(self, shape: VMobject, *others: Animation):
        """The vector draws together, level, and becomes this shape, which comes down to its
        place.
        """
        place = shape.get_center()
        shape.set_y(VECTOR).set_z_index(-1)
        self.move(TransformFromCopy(self.vector, shape), *others, seconds=MOVE)
        self.move(shape.animate.move_to(place), seconds=QUICK)

    # -- store ---------------------------------------------------------------------------
    def store(self):
        """The cache: a latent and a dial of each token. A query comes."""
        self.say("The cache holds nothing else. Now a query comes.", "query")
        boxes = [b.box for b in self.heads]
        self.move(
            FadeOut(self.vector, self.sum, *self.names, *boxes),
            self.phase.change("The cache: a latent and a rotary key a token"),
            seconds=QUICK,
        )
        self.latents, self.dials = [self.latent], [self.dial]
        first = Cell("stored", WIDE, HIGH).move_to(column(0, LATENTS))
        self.rows = [self.name("latents", LATENTS), self.name("rotary", TURNED)]
        self.move(
            self.latent.animate.become(first),
            self.dial.animate.move_to(column(0, TURNED)),
            FadeIn(*self.rows),
            seconds=BRISK,
        )
        self.move(
            LaggedStart(*[self.cached(i) for i in range(1, HELD)], lag_ratio=0.15), seconds=BRISK
        )
        self.query = self.new_query(HELD)

    @staticmethod
    def name(text: str, y: float) -> Label:
        return Label(text, TEXT, MUTED, "medium").put([START - 0.05, y, 0], RIGHT)

    def cached(self, i: int) -> Animation:
        """Token i's latent and dial come into the cache."""
        self.latents.append(Cell("stored", WIDE, HIGH).move_to(column(i, LATENTS)))
        self.dials.append(Dial(i).move_to(column(i, TURNED)))
        return FadeIn(self.latents[-1], self.dials[-1], shift=0.15 * DOWN)

    def new_query(self, held: int) -> Query:
        """The query of the newest token, and its own dial."""
        query = Asking(column(held - 1, QUERY))
        dress(query.disc, "plain")
        self.hand = Dial(held - 1, look="plain").move_to(column(held - 1, QUERY) + 0.7 * RIGHT)
        self.move(query.appear(), FadeIn(self.hand, shift=0.15 * DOWN), seconds=BRISK)
        return query

    # -- way 1 ---------------------------------------------------------------------------
    def reproject(self):
        """Keys and values of all heads, of every cached token."""
        self.say("Way 1, re-project: expand every latent to all heads' keys and values.", "again")
        self.score = Score()
        names = formula("W_k", LETTER, NAVY), formula("W_v", LETTER, NAVY)
        what = Label("up-projection", TEXT, NAVY, "medium")
        self.matrix = Matrix((HELD + 1) * GAP - 0.1, names[0], what, names[1])
        self.matrix.move_to(column(HELD / 2, UP_PROJECTION))
        self.rows += [
            self.name(n, y)
            for n, y in (("keys", KEYS), ("values", VALUES), ("shares", SHARES + 0.22))
        ]
        self.exit = Note("output", [OUT, EXIT, 0], ORIGIN, TEXT, MUTED, "medium")
        self.move(self.phase.change("Way 1: re-project"), FadeIn(self.matrix), seconds=BRISK)
        self.move(FadeIn(*self.rows[2:], self.exit, self.score), seconds=QUICK)
        self.attend(HELD, MOVE)

    def attend(self, held: int, seconds: float):
        """A whole step of way 1, from latents to an output."""
        keys, self.values = (
            [Heads("again", WIDE, HIGH).move_to(column(i, y)) for i in range(held)]
            for y in (KEYS, VALUES)
        )
        self.made = [
            VGroup(key, Dial(i, 0.12).next_to(key, RIGHT, 0.03)) for i, key in enumerate(keys)
        ]
        self.move(
            LaggedStart(*[self.expand(i) for i in range(held)], lag_ratio=0.2),
            self.score.to(held, 0),
            seconds=1.6 * seconds,
        )
        self.move(relit(self.query.disc, "active"), self.hand.animate.look("active"), seconds=QUICK)
        self.move(self.query.read(keys, lag=0.3), seconds=0.7 * seconds)
        self.weigh(held, self.query, seconds)
        self.pour(self.values, [OUT, VALUES, 0], seconds)
        self.move(
            self.out.grow(),
            relit(self.query.disc, "plain"),
            self.hand.animate.look("plain"),
            seconds=0.4 * seconds,
        )

    def expand(self, i: int) -> Animation:
        """A latent goes up through the matrix and comes out as keys and values."""
        pulse = Cell("active", WIDE, HIGH).move_to(column(i, LATENTS)).set_z_index(-1)
        return LaggedStart(
            pulse.animate(remover=True).move_to(column(i, UP_PROJECTION)).scale(0.6),
            FadeIn(self.made[i], self.values[i], shift=0.3 * UP),
            lag_ratio=0.7,
        )

    def weigh(self, held: int, query: Query, seconds: float):
        """What was read becomes a share of each token."""
        shares, out = self.small.both(held)
        self.shares = Bars(shares, [column(i, SHARES) for i in range(held)], 0.36, 0.75)
        places = [[OUT + 0.28 * (i - 2), POURED, 0] for i in range(len(out))]
        self.out = Bars(out, places, 0.2, 0.46)
        self.move(FadeOut(query.comb), self.shares.grow(), seconds=0.6 * seconds)

    def pour(self, parts: list[VMobject], point, seconds: float):
        """What was weighed runs together at a point."""
        self.move(
            LaggedStart(
                *[p.animate(remover=True).move_to(point) for p in reversed(parts)],
                lag_ratio=0.06,
            ),
            seconds=0.9 * seconds,
        )

    def once_more(self):
        """The next token, and everything is made again."""
        self.say("The next step does it all again, and for one token more.", "more")
        self.move(
            FadeOut(*self.made, self.shares, self.out),
            FadeOut(self.query, self.hand, shift=0.15 * UP),
            self.score.to(0, 0),
            seconds=QUICK,
        )
        self.move(self.cached(HELD), seconds=QUICK)
        self.query = self.new_query(HELD + 1)
        self.attend(HELD + 1, BRISK)

    # -- way 2 ---------------------------------------------------------------------------
    def absorb(self):
        """The matrix leaves its place: one half for the query, one for the result."""
        self.say("Way 2, absorb: the matrix moves to the query instead, and works once.", "absorb")
        x = self.query.disc.get_x()
        self.inward, self.outward = (
            Matrix(0.95, formula(name, LETTER, NAVY)).move_to(place)
            for name, place in (("W_k", [x, INWARD, 0]), ("W_v", [OUT, UP_PROJECTION, 0]))
        )
        self.before = VGroup(self.shares, self.out)
        self.move(
            FadeOut(*self.made, *self.rows[2:4], *self.matrix[1:]),
            self.phase.change("Way 2: absorb"),
            *[b.animate.look("empty") for b in self.before],
            seconds=BRISK,
        )
        self.move(
            TransformFromCopy(self.matrix.box, self.outward.box),
            ReplacementTransform(self.matrix.box, self.inward.box),
            seconds=1.2 * MOVE,
        )
        self.move(FadeIn(self.inward[1], self.outward[1]), seconds=QUICK)
        pulse = dress(Circle(0.2), "active").move_to(self.query.disc).set_z_index(-1)
        self.move(pulse.animate(remover=True).move_to(self.inward), seconds=BRISK)
        self.moved = Moved([x, MOVED, 0])
        self.aside = Label("the rotary part passes by", TEXT, MUTED)
        self.move(
            FadeIn(self.moved, shift=0.5 * DOWN),
            FadeIn(self.aside.put([-FRAME, ASIDE, 0], LEFT)),
            self.hand.animate.look("active").set_y(MOVED),
            self.score.to(HELD + 1, 1),
            seconds=BRISK,
        )

    def same(self):
        """Scores on the latents, their sum, and one product at the end."""
        self.say(
            "It reads what is stored, as it is. The latents' sum goes out by one product.", "same"
        )
        self.move(self.moved.read(self.latents, lag=0.3), seconds=MOVE)
        self.weigh(HELD + 1, self.moved, MOVE)
        self.pour([latent.copy() for latent in self.latents], [OUT, LATENTS, 0], MOVE)
        total = Cell("active", WIDE, HIGH).move_to([OUT, LATENTS, 0])
        self.move(
            relit(self.moved.disc, "done"),
            self.hand.animate.look("plain"),
            FadeIn(total),
            seconds=0.2,
        )
        self.move(total.animate(remover=True).move_to(self.outward), seconds=QUICK)
        self.move(self.out.grow(), self.exit.change("same output"), seconds=BRISK)
        self.rest(2 * PAUSE)

    # -- and many queries ----------------------------------------------------------------
    def many(self):
        """Two lines over the number of queries."""
        at = crossing()
        self.say(
            "A prompt has many queries, and all share one expansion: re-project from"
            f" {math.ceil(at)} new tokens on.",
            "many",
        )
        stage = VGroup(
            *self.rows[:2],
            self.rows[-1],
            *self.latents,
            *self.dials,
            self.hand,
            self.query,
            self.moved,
        )
        stage.add(self.inward, self.outward, self.before, self.shares, self.out, self.score)
        self.move(FadeOut(stage, self.exit, self.aside), seconds=QUICK)
        wide = 2.3 * at
        high = over_latents(wide)
        spot = lambda new, flops: AXES + np.array([ACROSS * new / wide, ALOFT * flops / high, 0])
        axes = VGroup(
            Line(AXES, AXES + ACROSS * RIGHT, color=MUTED, stroke_width=2),
            Line(AXES, AXES + ALOFT * UP, color=MUTED, stroke_width=2),
        )
        lines = [
            Line(spot(1, way(1)), spot(wide, way(wide)), color=colour, stroke_width=5)
            for way, colour in ((over_latents, NAVY), (over_heads, RED))
        ]
        names = [
            Label(text, TEXT, colour, "semibold").put(line.get_end() + 0.2 * RIGHT, LEFT)
            for text, colour, line in zip(("absorb", "re-project"), (NAVY, RED), lines)
        ]
        foot = Label("new tokens in one step", TEXT, MUTED)
        foot.put([FRAME, AXES[1] - 0.4, 0], RIGHT)
        one = Label("1", TEXT, INK, "medium").put(spot(1, 0) + 0.4 * DOWN)
        self.move(
            FadeIn(axes, foot, one),
            self.phase.change(f"{NAME}: arithmetic for each cached token"),
            seconds=BRISK,
        )
        self.move(*[Create(line) for line in lines], seconds=1.6 * MOVE)
        self.move(FadeIn(*names), seconds=QUICK)
        cross = spot(at, over_latents(at))
        drop = Line(cross, spot(at, 0), color=MIST, stroke_width=3)
        dot = dress(Circle(0.14), "active").move_to(cross)
        verdicts = [
            Label(text, TEXT, MUTED).put(spot(at, 0) + 1.05 * DOWN + 0.2 * side, -side)
            for text, side in (("absorb is cheaper", LEFT), ("re-project is cheaper", RIGHT))
        ]
        number = Label(math.ceil(at), LARGE, NAVY, "bold").put(spot(at, 0) + 0.43 * DOWN)
        self.move(FadeIn(drop, dot, number, *verdicts), seconds=BRISK)
        self.rest(2 * PAUSE)


def relit(shape: VMobject, look: str) -> Animation:
    """A shape takes the colours of a look."""
    return shape.animate.become(dress(shape.copy(), look))


CLIPS = [CompressStoreAbsorb]

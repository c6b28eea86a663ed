"""Chapter 05's clip: a window slides, a ring forgets, and layers hand on what they heard."""

from __future__ import annotations

import math

import numpy as np
from manim import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    Animation,
    AnimationGroup,
    Create,
    Ellipse,
    FadeIn,
    FadeOut,
    LaggedStart,
    Line,
    Rectangle,
    VGroup,
    VMobject,
)

from animations.stage.charts import Counter, Tally
from animations.stage.clock import CourseScene
from animations.stage.mobjects import Cell, Chip, Note, dress
from animations.stage.style import (
    BRISK,
    EASE,
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
    Display,
    Label,
)
from labkit import results

TITLE, FIGURE = 3.35, 2.5  # heights
LARGE = 0.4  # height of a capital in titles and sums
NAMES = 1.8  # room for the rows' names, left of the columns
# the ring
ROW = 1.75
MIDDLE, ACROSS, DOWNWARD = np.array([0, -0.85, 0]), 4.6, 1.5
WIDE, HIGH = 1.94, 0.66  # a slot
# the layers: heights of the tokens and of layers 1, 2, …
TOKENS, LEVEL = -1.75, 1.05
# the bytes
LAYERS = {"ring": "sliding: a ring, window {window:,}", "full": "full: all tokens"}
BARS, THICK, BETWEEN, FOOT = 1.3, 0.42, 1.6, -2.0


def noted(n: float) -> str:
    return f"{n / 1e6:.1f} MB"


class Span(VGroup):
    """A bracket over (UP) or under (DOWN) some cells, with a name outside it."""

    def __init__(self, first: VMobject, last: VMobject, name: str, side=UP):
        left, right = (
            cell.get_corner(side + edge) + 0.1 * side
            for cell, edge in ((first, LEFT), (last, RIGHT))
        )
        line = VMobject(color=NAVY, stroke_width=3).set_points_as_corners(
            [left, left + 0.13 * side, right + 0.13 * side, right]
        )
        label = Label(name, TEXT, NAVY, "semibold")
        super().__init__(line, label.put((left + right) / 2 + (0.29 + TEXT / 2) * side))


class Slot(VGroup):
    """A slot of the ring: the word whose key and value lie there."""

    def __init__(self, point):
        self.box, self.word = Cell("empty", WIDE, HIGH).move_to(point), Display(24)
        super().__init__(self.box, self.word)

    def look(self, look: str) -> Slot:
        self.box.look(look)
        self.word.set_fill(self.ink(look))
        return self

    @staticmethod
    def ink(look: str):
        return GROUND if look == "stored" else NAVY

    def fit(self, word: str, look: str) -> Label:
        return Chip.fit(word, WIDE - 0.16, TEXT).put(self.box).set_fill(self.ink(look))

    def take(self, word: str, look="active") -> Animation:
        return Take(self, word, look)


class Take(Animation):
    """What lay in a slot fades; then the slot holds another word."""

    def __init__(self, slot: Slot, word: str, look: str, **kwargs):
        self.old, self.new = slot.word.copy(), slot.fit(word, look)
        self.held, self.look = bool(slot.word.text), look
        super().__init__(slot, **kwargs)

    def interpolate_mobject(self, alpha: float) -> None:
        alpha, slot = self.rate_func(alpha), self.mobject
        if alpha >= 0.6:
            slot.box.look(self.look)
            slot.word.set(self.new, (alpha - 0.6) / 0.4)
        elif self.held:
            for glyph, old in zip(slot.word, self.old):
                glyph.set_fill(opacity=old.get_fill_opacity() * max(0, 1 - alpha / 0.4))


class Held(Counter):
    """A cache's bytes: their number, whose they are, and a bar as long as they are many."""

    def __init__(self, name: str, y: float, first: float, full: float):
        self.full, self.corner = full, np.array([-FRAME, y, 0])
        self.number = Display(12)
        self.label = Label(name, TEXT, INK).put(self.corner + 2.2 * RIGHT, LEFT)
        self.bar = VGroup(dress(self.piece(first), "stored"))
        super().__init__(self.number, self.label, self.bar)
        self.show(first)

    def show(self, value):
        self.value = value
        label = Label(noted(value), TEXT, NAVY, "bold")
        self.number.set(label.put(self.corner + 1.95 * RIGHT, RIGHT))
        return self

    def length(self, value: float) -> float:
        return 2 * FRAME * value / self.full

    def piece(self, value: float) -> Rectangle:
        """What the bar gains when it comes to so many bytes."""
        wide = self.length(value) - self.length(self.value)
        piece = dress(Rectangle(width=wide, height=THICK), "active")
        start = self.corner + self.length(self.value) * RIGHT
        return piece.move_to(start + (TEXT / 2 + 0.2 + THICK / 2) * DOWN, LEFT)


class Widen(Animation):
    """A piece of a bar grows to the right, to the width it has."""

    def __init__(self, piece: Rectangle, **kwargs):
        self.start, self.full = piece.get_left(), piece.width
        super().__init__(piece, **kwargs)

    def interpolate_mobject(self, alpha: float) -> None:
        width = max(1e-3, self.full * self.rate_func(alpha))
        self.mobject.stretch_to_fit_width(width, about_point=self.start)


class WindowOverLayers(CourseScene):
    """One layer's window and its ring; then what reaches the last token through several layers;
    last, what a ring and a full layer keep.
    """

    clip_name = "window_over_layers"
    title = "A window over layers: the ring forgets, the layers hand on"
    alt = (
        "A row of tokens grows, with a bracket over its end: the window. Below it slots stand on a"
        " ring. Each new token, gold, goes to the next slot; when all are full it takes the first,"
        " and the word that lay there is gone. Slots outside the window are pale, and next to go."
        " The ring leaves, and rows of layers rise above the tokens. From the last token lines fan"
        " down to its window; through two layers they reach further back, through three still"
        " further, to tokens that had been overwritten. With the top layer full, its fan spans the"
        " row and every token is reached. Last, two bars over a growing context: the ring's stays"
        " short, the full layer's grows with every token."
    )
    poster_at = "three"
    reads = (
        "ch05/window_ring.trace.json",
        "ch05/reach.*.json",
        "ch05/ring.*.json",
        "machines.json",
    )

    def construct(self):
        self.load()
        self.window()
        self.ring()
        self.overwrite()
        self.round()
        self.one_layer()
        self.more_layers()
        self.full_layer()
        self.price()
        self.time_of_a_step()
        self.finish()

    def load(self):
        """The recorded run and the rows. ValueError if they can't be shown."""
        trace = self.trace("ch05/window_ring")
        self.steps, self.words, self.depth = (
            trace.steps,
            trace.meta["words"],
            len(trace.meta["layers"]),
        )
        self.size, self.many, self.longest = (
            trace.meta[k] for k in ("window", "slots", "longest_step")
        )
        T = len(self.words)
        if T > 24 or self.many > 8 or self.depth != 3:
            raise ValueError(
                "the clip shows at most 24 tokens, 8 slots and just 3 layers, not"
                f" {T}, {self.many} and {self.depth}"
            )
        hybrid = [r for r in results.load("ch05/reach")["rows"] if "full" in r["pattern"]]
        self.hears = max(hybrid, key=lambda r: r["layers"])["heard"]
        if self.hears != T:
            raise ValueError(f"a full layer hears of all {T} tokens, not of {self.hears}")
        self.ring_rows, self.full_rows = (
            sorted(
                (r for r in results.load("ch05/ring")["rows"] if r["kind"] == kind),
                key=lambda r: r["context"],
            )
            for kind in LAYERS
        )
        self.seen = {step.fed[-1]: step.seen for step in self.steps}
        self.gap = (2 * FRAME - NAMES) / T
        self.side = min(0.5, self.gap - 0.075)  # of a token's cell
        self.done, self.looks, self.slots, self.fans = 0, {}, [], []

    @property
    def now(self):
        """The last step that was shown."""
        return self.steps[self.done - 1]

    def spot(self, column: float, y: float) -> np.ndarray:
        """Where a token's column meets a row."""
        return np.array([NAMES - FRAME + (column + 0.5) * self.gap, y, 0])

    def name(self, text: str, y: float) -> Note:
        place = [NAMES - FRAME - 0.2, y, 0]
        return Note(text, place, RIGHT, TEXT, MUTED, "medium", 10)

    # -- one layer: the window and its ring --------------------------------------------------
    def window(self):
        """The first tokens are read; the newest sees a window."""
        heading = Label("Sliding windows", LARGE, NAVY, "bold").put([-FRAME, TITLE, 0], LEFT)
        self.cells = [
            Cell("empty", self.side, self.side).move_to(self.spot(i, ROW))
            for i in range(len(self.words))
        ]
        self.row = self.name("tokens", ROW)
        self.say(
            f"The prompt, {self.longest} tokens a step. Each sees a window of {self.size}, itself"
            " included.",
            "window",
        )
        self.move(FadeIn(heading, self.row, shift=0.1 * UP), seconds=BRISK)
        self.move(*self.advance(), seconds=BRISK)
        while len(self.now.seen) < self.size:
            self.move(*self.advance(), seconds=BRISK)
        ends = (self.cells[self.now.seen[i]] for i in (0, -1))
        self.span = Span(*ends, f"window of {self.size}")
        self.move(FadeIn(self.span), seconds=BRISK)

    def advance(self) -> list[Animation]:
        """The next step, in the row of tokens."""
        self.done += 1
        return [*self.appear(), *self.relook(self.now.seen, self.now.held)]

    def appear(self) -> list[Animation]:
        """The step's own tokens."""
        self.looks |= dict.fromkeys(self.now.fed, "active")
        cells = [self.cells[p].look("active") for p in self.now.fed]
        return [FadeIn(cell, shift=0.2 * DOWN) for cell in cells]

    def relook(self, seen, ring: list[int]) -> list[Animation]:
        """Every earlier token looks as it now is: seen, only held in the ring, overwritten."""
        moves = []
        for position, before in self.looks.items():
            look = "stored" if position in seen else "done" if position in ring else "empty"
            if position in self.now.fed or look == before:
                continue
            self.looks[position] = look
            moves.append(self.cells[position].animate.look(look))
            if self.slots and position in ring:
                moves.append(self.slots[ring.index(position)].animate.look(look))
        return moves

    def ring(self):
        """The ring comes, and takes what has been read."""
        n = self.many
        angle = lambda i: math.pi / 2 - 2 * math.pi * i / n
        self.slots = [
            Slot(
                MIDDLE + ACROSS * math.cos(angle(i)) * RIGHT + DOWNWARD * math.sin(angle(i)) * UP
            ).set_z_index(2)
            for i in range(n)
        ]
        self.loop = Ellipse(2 * ACROSS, 2 * DOWNWARD, color=MIST, stroke_width=4)
        self.loop.move_to(MIDDLE).set_z_index(-2)
        # what goes to a slot passes under the words in the middle
        self.ground = Rectangle(width=7, height=1.9).move_to(MIDDLE)
        self.ground.set_fill(GROUND, 1).set_stroke(width=0)
        self.sum = VGroup(
            Label(f"{self.size} + {self.longest} − 1 = {n} slots", LARGE, NAVY, "bold").put(
                MIDDLE + 0.32 * UP
            ),
            Label("window + longest step − 1", TEXT, MUTED).put(MIDDLE + 0.4 * DOWN),
        )
        self.say(f"Their keys and values go into a ring of {n} slots.", "ring")
        self.move(
            FadeIn(self.loop, self.ground), LaggedStart(*map(FadeIn, self.slots), lag_ratio=0.1)
        )
        takes = [
            self.put(position, slot, self.looks[position])
            for slot, position in enumerate(self.now.held)
            if position >= 0
        ]
        self.move(LaggedStart(*takes, lag_ratio=0.15), FadeIn(self.sum), seconds=1.4 * MOVE)

    def put(self, position: int, slot: int, look="active") -> Animation:
        """A token's key and value go from its cell into a slot."""
        pulse = Cell("active", self.side, self.side).move_to(self.cells[position])
        return AnimationGroup(
            pulse.set_z_index(-1).animate(remover=True).move_to(self.slots[slot]),
            self.slots[slot].take(self.words[position], look),
        )

    def write(self) -> list[Animation]:
        """The step's own keys and values."""
        return [self.put(p, slot) for p, slot in zip(self.now.fed, self.now.written)]

    def over(self, columns: int) -> Animation:
        """The window moves on."""
        return self.span.animate.shift(columns * self.gap * RIGHT)

    def turn(self) -> list[Animation]:
        """The next step, in the row of tokens and on the ring."""
        before = self.now.seen[0]
        return [*self.advance(), *self.write(), self.over(self.now.seen[0] - before)]

    def overwrite(self):
        """The ring is full, and goes round: one step, slowly."""
        while not self.steps[self.done].lost:
            self.move(*self.turn(), seconds=BRISK)
        before = self.now
        self.done += 1
        wraps = next(p for p, slot in zip(self.now.fed, self.now.written) if slot == 0)
        self.say(
            f"Token {wraps + 1} finds it full and takes the first slot. What lay there is gone.",
            "full",
        )
        # the first of the step's tokens sees further back than its last
        first = max(0, self.now.fed[0] - self.size + 1)
        wide = range(first, self.now.fed[-1] + 1)
        self.move(
            *self.appear(),
            *self.relook(wide, before.held),
            self.over(first - before.seen[0]),
            seconds=BRISK,
        )
        self.move(LaggedStart(*self.write(), lag_ratio=0.5), seconds=1.8 * MOVE)
        self.move(
            *self.relook(self.now.seen, self.now.held),
            self.over(self.now.seen[0] - first),
            seconds=BRISK,
        )

    def round(self):
        """The remaining steps, faster and faster."""
        self.say(
            "The window slides on. Pale slots have left it, and are overwritten next.", "round"
        )
        x = MIDDLE - [0.75, 0, 0]
        lines = "tokens read", "overwritten", "in the ring"
        self.tallies = [
            Tally(0, x + 0.52 * (1 - i) * UP, RIGHT, TEXT, NAVY) for i in range(len(lines))
        ]
        names = VGroup(
            *[
                Label(line, TEXT, INK).put(x + 0.52 * (1 - i) * UP + 0.2 * RIGHT, LEFT)
                for i, line in enumerate(lines)
            ]
        )
        for tally, value in zip(self.tallies, self.counts()):
            tally.show(value)
        self.counted = VGroup(names, *self.tallies)
        self.move(FadeOut(self.sum), seconds=QUICK)
        self.move(FadeIn(self.counted), seconds=QUICK)
        first = self.done
        while self.done < len(self.steps):
            pace = max(0.24, 0.7 - 0.12 * (self.done - first))
            turn = self.turn()
            counts = [t.to(v) for t, v in zip(self.tallies, self.counts())]
            self.move(*turn, *counts, seconds=pace)
        self.rest(0.6 * PAUSE)

    def counts(self) -> tuple[int, int, int]:
        """Tokens read so far, overwritten, in the ring."""
        past = self.steps[: self.done]
        held = sum(position >= 0 for position in past[-1].held)
        return past[-1].fed[-1] + 1, sum(len(s.lost) for s in past), held

    # -- several layers ----------------------------------------------------------------------
    def heard(self, layers: int) -> int:
        """Tokens that reach the last one through so many layers."""
        return len(self.words) - self.steps[-1].reach[layers - 1]

    def level(self, layer: int) -> float:
        return TOKENS + LEVEL * layer

    def one_layer(self):
        """The ring goes, layers come; the last token sees its window."""
        lost = sum(len(step.lost) for step in self.steps)
        self.say(
            f"{lost} are overwritten. Lost? In one layer the last token sees {self.heard(1)}.",
            "one",
        )
        self.move(FadeOut(self.loop, self.span), seconds=QUICK)
        self.remove(self.ground)
        self.move(FadeOut(*self.slots, self.counted), seconds=QUICK)
        T = len(self.words)
        self.layers = {0: self.cells} | {
            layer: [
                Cell("empty", self.side, self.side).move_to(self.spot(i, self.level(layer)))
                for i in range(T)
            ]
            for layer in range(1, self.depth + 1)
        }
        self.names = [self.name(f"layer {n}", self.level(n)) for n in range(1, self.depth + 1)]
        self.move(
            *[c.animate.look("empty").set_y(TOKENS) for c in self.cells],
            VGroup(self.row).animate.shift((TOKENS - ROW) * UP),
            seconds=BRISK,
        )
        self.move(
            FadeIn(*self.names),
            *[FadeIn(VGroup(*self.layers[n])) for n in range(1, self.depth + 1)],
            seconds=QUICK,
        )
        self.figure = Note(self.derived(1), [-FRAME, FIGURE, 0], LEFT, LARGE, NAVY, "bold")
        self.top = self.layers[1][-1]
        self.move(self.top.animate.look("active"), seconds=QUICK)
        self.fan(1, T - 1, self.seen[T - 1], FadeIn(self.figure))

    def derived(self, layers: int) -> str:
        """How many tokens are heard of, and the sum that says so."""
        if layers == 1:
            return f"1 layer: {self.heard(1)} tokens"
        sum = f"{layers} × ({self.size} − 1) + 1"
        return f"{layers} layers: {sum} = {self.heard(layers)} tokens"

    def fan(self, layer: int, column: int, seen: list[int], *others: Animation, seconds=BRISK):
        """A token of a layer looks at these, one layer below, and they are heard."""
        start, thin = self.layers[layer][column].get_bottom(), 2.5 if len(seen) <= 8 else 1.5
        below = [self.layers[layer - 1][i] for i in seen]
        lines = VGroup(
            *[Line(start, cell.get_top(), color=NAVY, stroke_width=thin) for cell in below]
        ).set_z_index(-1)
        look = "stored" if layer == 1 else "done"
        self.fans.append(lines)
        self.move(
            LaggedStart(*map(Create, reversed(lines)), lag_ratio=0.1),
            LaggedStart(*[c.animate.look(look) for c in reversed(below)], lag_ratio=0.1),
            *others,
            seconds=seconds,
        )

    def more_layers(self):
        """Each of those has a window of its own, one layer below."""
        sentences = {
            2: f"Each of these saw a window, too: in 2 layers it can hear of {self.heard(2)}.",
            3: f"In 3 it can hear of {self.heard(3)}, though {self.passed_on()} of them have left"
            " the ring.",
        }
        T = len(self.words)
        for layers, moment in ((2, "two"), (3, "three")):
            self.say(sentences[layers], moment)
            top = self.layers[layers][-1]
            self.move(
                self.top.animate.look("done"),
                top.animate.look("active"),
                self.figure.change(self.derived(layers)),
                seconds=BRISK,
            )
            self.top, column = top, T - 1
            for layer in range(layers, 0, -1):
                self.fan(layer, column, self.seen[column])
                column = self.seen[column][0]
        first, held = self.steps[-1].reach[-1], sorted(self.steps[-1].held)
        self.spans = [
            Span(self.cells[held[0]], self.cells[-1], f"in the ring: {len(held)}", DOWN),
            Span(
                self.cells[first],
                self.cells[held[0] - 1],
                f"overwritten: {self.passed_on()}",
                DOWN,
            ),
        ]
        self.move(FadeIn(*self.spans), seconds=BRISK)
        self.rest()

    def passed_on(self) -> int:
        """Tokens that are heard of though the ring has lost them."""
        last = self.steps[-1]
        return len(set(range(last.reach[-1], len(self.words))) - set(last.held))

    def full_layer(self):
        """One layer sees everything."""
        self.say(f"With one full layer among them, it can hear of all {self.hears}.", "all")
        self.move(
            FadeOut(*self.spans, *self.fans),
            self.names[-1].change("full"),
            self.figure.change(f"2 sliding layers, 1 full: {self.hears} tokens"),
            seconds=BRISK,
        )
        T = len(self.words)
        self.fan(self.depth, T - 1, list(range(T)), seconds=1.2 * MOVE)
        self.move(
            *[c.animate.look("done") for c in self.layers[1]],
            *[c.animate.look("stored") for c in self.cells],
            seconds=BRISK,
        )
        self.rest()

    # -- what is kept ------------------------------------------------------------------------
    def price(self):
        """The cache of one layer, as the context grows."""
        self.say("But a full layer's cache grows with every token. A ring does not.", "price")
        grid = [c for row in self.layers.values() for c in row]
        self.move(FadeOut(*grid, *self.names, self.row, self.fans[-1], self.figure), seconds=BRISK)
        both = self.ring_rows, self.full_rows
        place = np.array([-FRAME + 2.2, FIGURE - 0.1, 0])
        unit = Label("tokens of context", TEXT, INK).put(place, LEFT)
        first, most = both[0][0], both[1][-1]["cache_bytes"]
        self.context = Tally(first["context"], place + 0.25 * LEFT, RIGHT, TEXT, NAVY)
        self.kept = [
            Held(name.format(**first), BARS - BETWEEN * i, rows[0]["cache_bytes"], most)
            for i, (name, rows) in enumerate(zip(LAYERS.values(), both))
        ]
        self.move(FadeIn(self.context, unit, *self.kept), seconds=BRISK)
        for rows in list(zip(*both))[1:]:
            self.grow(*rows)

    def grow(self, ring, full):
        """Both caches at the next context: what is new is gold, then stored."""
        moves, pieces = [self.context.to(ring["context"])], []
        for kept, row in zip(self.kept, (ring, full)):
            if row["cache_bytes"] > kept.value:
                pieces.append(kept.piece(row["cache_bytes"]))
                kept.bar.add(pieces[-1])
                moves += [kept.to(row["cache_bytes"]), Widen(pieces[-1], rate_func=EASE)]
        self.move(*moves, seconds=QUICK)
        self.move(*[p.animate.become(dress(p.copy(), "stored")) for p in pieces], seconds=0.25)

    def time_of_a_step(self):
        """What that means for a step, measured."""
        document = results.load("ch05/ring")
        env = document["env"]
        machine = results.where(document)
        if "gpu" not in env and "threads" in env:
            machine += f", {env['threads']} thread" + "s" * (env["threads"] > 1)
        ring, full = self.ring_rows[-1], self.full_rows[-1]
        self.say(
            f"At {full['context']:,} tokens its step takes {full['multiple']:.1f} times as long, a"
            f" ring's {ring['multiple']:.1f}.",
            "time",
        )
        labels = [
            Label(f"step: {t:.1f}× as long", TEXT, NAVY, "bold").put(
                [FRAME, BARS - BETWEEN * i, 0], RIGHT
            )
            for i, t in enumerate((ring["multiple"], full["multiple"]))
        ]
        short = self.ring_rows[0]["context"]
        foot = [
            Label(f"against a step at {short:,} tokens, measured on", TEXT, MUTED),
            Label(machine, TEXT, MUTED),
        ]
        for i, label in enumerate(foot):
            if label.width > 2 * FRAME:
                label.scale(2 * FRAME / label.width)
            label.put([-FRAME, FOOT - 0.52 * i, 0], LEFT)
        self.move(FadeIn(*labels), seconds=BRISK)
        self.move(FadeIn(*foot), seconds=BRISK)
        self.rest(2 * PAUSE)


CLIPS = [WindowOverLayers]

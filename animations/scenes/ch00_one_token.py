"""Chapter 00's clip: from tokens to attention, and on to the next token."""

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
    Rectangle,
    VGroup,
    interpolate_color,
    linear,
)

from animations.stage.clock import CourseScene
from animations.stage.mobjects import Cell, Chip, LayerBox, Note, Query, dress
from animations.stage.style import (
    BRISK,
    FRAME,
    INK,
    MONO,
    MOVE,
    MUTED,
    NAVY,
    QUICK,
    SKY,
    TEXT,
    Label,
)
from labkit import results
from labkit.published import presets

NAMES = 1.95  # room for the rows' names, left of the columns
COLUMNS = 7
GAP = (2 * FRAME - NAMES) / COLUMNS
WIDE = GAP - 0.1
SIDE = 0.45  # where the right half begins
PARTS = 6  # cells that stand for a vector
BIG, SPACE = 0.5, 0.42  # the text before it is cut: a capital's height, the space between words
# heights of the rows
TITLE, PHASE = 3.43, 2.84
CHIPS, IDS, VECTORS = 2.12, 1.5, 0.94
QUERY, KEYS, SCORES, SHARES, VALUES = 0.26, -0.44, -0.99, -1.53, -2.45
MIX = 4.9  # length of the mixed value
HEADS, DOT, MAP = 1.53, 0.205, 0.15  # the map of heads: its words, a cell's pitch, its upper edge
STACK, LAST = 1.1, -2.4  # the layers: their upper and lower edge
CANDIDATE = 0.75  # from one candidate to the next
MODEL, PASSES, PASS = 1.15, 0.28, 0.8


class TokensToAttention(CourseScene):
    """A sentence becomes tokens, numbers and vectors; one head mixes them; the next token is
    written, and the loop begins.
    """

    clip_name = "tokens_to_attention"
    title = "From tokens to attention, and to the next token"
    alt = (
        "The text “the cat sat” is cut into three tokens, each with its id and its vector. Every"
        " vector gives a key and a value. The query of “sat” meets the three keys; three scores"
        " become three shares, the largest for “cat”, and the values are mixed by them. A map of"
        " all heads of the model shows that most look at the first word. Then the likeliest of"
        " five candidates is written, and the text grows: the prompt in one pass through the"
        " model, then one token a pass."
    )
    poster_at = "mix"
    reads = ("ch00/attention.*.json", "ch00/sentence.*.json", "machines.json")

    def construct(self):
        self.load()
        self.cut()
        self.vectors()
        self.keys()
        self.ask()
        self.shares()
        self.mix()
        self.heads()
        self.next_token()
        self.passes()
        self.finish()

    def load(self):
        """What SmolLM2 did with the sentence."""
        rows = results.load("ch00/sentence")["rows"]
        known, likely, written = (
            [r for r in rows if r["what"] == what] for what in ("token", "candidate", "written")
        )
        self.tokens, self.ids = [r["text"] for r in known], [r["id"] for r in known]
        self.vector = [r["vector"][:PARTS] for r in known]
        self.scores, self.share = ([r[k] for r in known] for k in ("score", "share"))
        self.layer, self.head = known[0]["layer"], known[0]["head"]
        self.candidates = [(r["text"], r["share"]) for r in likely]
        self.written = [r["text"] for r in written]
        self.looks = {  # (layer, head) -> the shares that the last token gives
            (r["layer"], head): queries[-1]
            for r in results.load("ch00/attention")["rows"]
            if r["what"] == "".join(self.tokens)
            for head, queries in enumerate(r["weights"])
        }
        config = presets["smollm2-135m"]
        self.layers, self.width, self.vocabulary = (
            config.n_layers,
            config.d_model,
            config.vocab_size,
        )
        self.root = round(config.head_dim**0.5)
        self.check()

    def check(self):
        """ValueError if the two results do not belong together, or can't be shown."""
        seen = self.looks.get((self.layer, self.head), [])
        if len(seen) != len(self.share) or not np.allclose(seen, self.share, atol=1e-3):
            raise ValueError(
                f"ch00/sentence has shares of {self.share} in layer {self.layer}, head {self.head},"
                f" and ch00/attention {seen}"
            )
        if len(self.tokens) != 3 or len(self.written) != COLUMNS - 3:
            raise ValueError(
                f"the clip has room for 3 tokens and {COLUMNS - 3} more, not for"
                f" {len(self.tokens)} and {len(self.written)}"
            )

    # -- places --------------------------------------------------------------------------
    @staticmethod
    def spot(column: float, y: float) -> np.ndarray:
        """Where a column meets a row."""
        return np.array([NAMES - FRAME + (column + 0.5) * GAP, y, 0])

    def name(self, text: str, y: float) -> Label:
        """A row's name."""
        return Label(text, TEXT, MUTED, "medium").put([-FRAME, y, 0], LEFT)

    def remark(self, text: str, y: float) -> Label:
        """What a row means, right of it."""
        return Label(text, TEXT, INK).put([SIDE, y, 0], LEFT)

    # -- text to vectors -----------------------------------------------------------------
    def cut(self):
        """The text, whole, then as tokens at the head of their columns."""
        heading = Label("One token at a time", "title", NAVY, "bold").put([-FRAME, TITLE, 0], LEFT)
        self.phase = Note("From text to numbers", [-FRAME, PHASE, 0], size=TEXT)
        self.say("A model reads numbers. So your text is cut into tokens.", "cut")
        self.chips = [self.chip(t, i) for i, t in enumerate(self.tokens)]
        words = VGroup(*[Label(t.strip(), BIG, NAVY, "medium", MONO) for t in self.tokens])
        words.arrange(RIGHT, buff=SPACE, aligned_edge=DOWN).move_to(0.3 * UP)
        words.set_z_index(1)
        big = BIG / TEXT
        boxes = [c.box.copy().scale(big).move_to(0.3 * UP) for c in self.chips]
        VGroup(*boxes).arrange(RIGHT, buff=0.2).move_to(0.3 * UP)
        self.move(FadeIn(heading, self.phase, shift=0.1 * UP), FadeIn(words), seconds=BRISK)
        self.rest(0.3)
        apart = [w.animate.put(b) for w, b in zip(words, boxes)]
        self.move(*apart, seconds=BRISK)
        self.move(LaggedStart(*[FadeIn(b) for b in boxes], lag_ratio=0.3), seconds=BRISK)
        wholes = [VGroup(b, w) for b, w in zip(boxes, words)]
        self.names = {"tokens": self.name("tokens", CHIPS)}
        self.move(
            *[w.animate.scale(1 / big).move_to(c) for w, c in zip(wholes, self.chips)],
            seconds=MOVE,
        )
        self.remove(*wholes)
        self.add(*self.chips)
        self.move(FadeIn(self.names["tokens"]), seconds=QUICK)

    def chip(self, token: str, column: int, y: float = CHIPS) -> Chip:
        return Chip(token, WIDE, 0.6, TEXT).move_to(self.spot(column, y))

    def strip(self, i: int, y: float) -> VGroup:
        """Token i's vector, as its first numbers: the darker, the larger."""
        wide = WIDE / PARTS
        top = max(abs(v) for vector in self.vector for v in vector)
        cells = VGroup()
        for j, value in enumerate(self.vector[i]):
            cell = Cell("done", wide - 0.03, 0.34).move_to(self.spot(i, y))
            cell.shift((j - (PARTS - 1) / 2) * wide * RIGHT).set_stroke(width=1)
            cells.add(cell.set_fill(interpolate_color(SKY, NAVY, 0.9 * abs(value) / top)))
        return cells

    def vectors(self):
        """Each token's number, and the row of the table that it picks."""
        self.say("Each token is a number, and each number picks a vector.", "vectors")
        self.names["ids"] = self.name("ids", IDS)
        ids = [Label(n, TEXT, NAVY, "medium", MONO) for n in self.ids]
        ids = VGroup(*[label.put(self.spot(i, IDS)) for i, label in enumerate(ids)])
        self.move(
            FadeIn(self.names["ids"]),
            LaggedStart(*[FadeIn(n, shift=0.15 * DOWN) for n in ids], lag_ratio=0.3),
            seconds=MOVE,
        )
        self.strips = [self.strip(i, VECTORS) for i in range(len(self.tokens))]
        self.names["vectors"] = self.name("vectors", VECTORS)
        about = Note(f"{self.width} numbers each", [SIDE, VECTORS, 0], size=TEXT, color=INK)
        self.move(
            FadeIn(self.names["vectors"], about),
            LaggedStart(*[FadeIn(s, shift=0.15 * DOWN) for s in self.strips], lag_ratio=0.3),
            seconds=MOVE,
        )
        self.rest()
        self.about = {"vectors": about, "ids": ids}

    # -- one head ------------------------------------------------------------------------
    def keys(self):
        """A key and a value from every vector."""
        self.say("Each vector makes a key, which advertises, and a value, which gives.", "keys")
        head = f"Attention in SmolLM2: layer {self.layer}, head {self.head}, counted from 0"
        self.move(
            self.phase.change(head),
            self.about["vectors"].change(f"as they reach layer {self.layer}"),
            # no longer the table's numbers: the layers before have added to them
            *[c.animate.set_fill(SKY) for strip in self.strips for c in strip],
            seconds=BRISK,
        )
        everywhere = range(len(self.tokens))
        self.key, self.value = (
            [Cell("stored", WIDE, 0.34).move_to(self.spot(i, VECTORS)) for i in everywhere]
            for _ in range(2)
        )
        VGroup(*self.key, *self.value).set_z_index(-1)
        for row, y in ((self.key, KEYS), (self.value, VALUES)):
            self.move(
                LaggedStart(
                    *[c.animate.move_to(self.spot(i, y)) for i, c in enumerate(row)],
                    lag_ratio=0.15,
                ),
                seconds=MOVE,
            )
        self.name_row("keys", "what each token offers", KEYS)
        self.name_row("values", "what each token gives", VALUES)
        self.move(*self.row_names("keys", "values"), seconds=QUICK)

    def name_row(self, name: str, about: str, y: float):
        """A row's name, left, and what it means, right."""
        self.names[name], self.about[name] = self.name(name, y), self.remark(about, y)

    def row_names(self, *rows: str) -> list[Animation]:
        return [FadeIn(self.names[r], self.about[r]) for r in rows]

    def ask(self):
        """The last token's query meets every key; each dot product is a score."""
        self.say("The newest query asks. Its dot product with each key is a score.", "ask")
        self.query = Query(self.spot(len(self.tokens) - 1, QUERY), 0.3)
        enlarged(self.query, 1)
        self.name_row("query", f"what “{self.tokens[-1].strip()}” looks for", QUERY)
        self.move(self.query.appear(), *self.row_names("query"), seconds=BRISK)
        self.score = [
            Label(f"{s:.1f}".replace("-", "−"), TEXT, NAVY, "semibold").put(self.spot(i, SCORES))
            for i, s in enumerate(self.scores)
        ]
        self.name_row("scores", f"query · key / {self.root}", SCORES)
        self.move(
            self.query.read(self.key),
            LaggedStart(
                *[FadeIn(s, shift=0.1 * DOWN) for s in reversed(self.score)], lag_ratio=0.7
            ),
            *self.row_names("scores"),
            seconds=1.6 * MOVE,
        )

    def shares(self):
        """The scores as shares of one."""
        self.say("Softmax turns the scores into shares that add up to one.", "shares")
        self.bars = []
        for i, share in enumerate(self.share):
            bar = dress(Rectangle(width=WIDE * share, height=0.16), "stored")
            bar.move_to(self.spot(i, SHARES - 0.36) - WIDE / 2 * RIGHT, LEFT)
            text = Label(f"{share:.0%}", TEXT, NAVY, "bold").put(self.spot(i, SHARES))
            whole = dress(Rectangle(width=WIDE, height=0.16), "empty").move_to(bar, LEFT)
            self.bars.append(VGroup(text, whole.set_stroke(width=1), bar))
        self.name_row("shares", "softmax of the scores", SHARES)
        self.move(
            *self.row_names("shares"),
            LaggedStart(*[FadeIn(b, shift=0.1 * DOWN) for b in self.bars], lag_ratio=0.3),
            seconds=1.4 * MOVE,
        )
        self.rest()

    def mix(self):
        """The values become one, each with a part as large as its share."""
        self.say("Mix the values by these shares: that is attention's answer.", "mix")
        asked = (self.names.pop("query"), self.about.pop("query"), self.about.pop("values"))
        self.move(self.query.leave(), FadeOut(*asked), seconds=QUICK)
        left, parts, moves, words = SIDE, [], [], []
        for value, token, share in zip(self.value, self.tokens, self.share):
            part = dress(Rectangle(width=share * WIDE, height=value.height), "active")
            parts.append(part.move_to(value, LEFT).set_z_index(1))
            goal = Rectangle(width=share * MIX, height=0.46).move_to([left, VALUES, 0], LEFT)
            moves.append(part.animate.become(dress(goal, "active").set_z_index(1)))
            word = Label(token.strip(), TEXT, NAVY, "medium", MONO).put(goal).set_z_index(2)
            words += [word] if word.width + 0.08 < goal.width else []
            left += goal.width
        self.move(*[FadeIn(part) for part in parts], seconds=BRISK)
        self.move(LaggedStart(*moves, lag_ratio=0.15), seconds=1.4 * MOVE)
        self.about["mix"] = Label("mix", TEXT, NAVY, "semibold").put(
            [SIDE + MIX + 0.25, VALUES, 0], LEFT
        )
        self.move(FadeIn(self.about["mix"], *words), seconds=QUICK)
        self.parts = VGroup(*parts, *words)
        self.rest()

    def heads(self):
        """All heads at once: for whom is the largest share?"""
        first = [max(shares) == shares[0] for shares in self.looks.values()]
        count, of = sum(first), len(first)
        self.say(f"That was one of {of} heads. In {count}, the first word gets the most.", "heads")
        gone = [a for n, a in self.about.items() if n != "ids"]
        self.move(FadeOut(*gone, self.parts), seconds=QUICK)
        grid = VGroup()
        for (layer, head), at_first in zip(self.looks, first):
            cell = dress(Rectangle(width=0.15, height=0.15), "stored" if at_first else "done")
            cell.set_stroke(width=1)
            grid.add(cell.move_to([SIDE + (layer + 0.5) * DOT, MAP - (head + 0.5) * DOT, 0]))
            if (layer, head) == (self.layer, self.head):
                self.mine = cell
        first_word, asks = self.tokens[0].strip(), self.tokens[-1].strip()
        words = VGroup(
            Label(f"{count} of {of} heads", 0.4, NAVY, "bold").put([SIDE, HEADS, 0], LEFT),
            self.remark(f"look most at “{first_word}”", HEADS - 0.56),
            self.remark(f"when “{asks}” asks", HEADS - 1.06),
        )
        under = MAP - of // self.layers * DOT
        legend = VGroup(
            self.meaning("stored", f"“{first_word}”", 0, under - 0.35),
            self.meaning("active", "this one", 2.4, under - 0.35),
            self.meaning("done", "another word", 0, under - 0.87),
        )
        self.map = VGroup(grid, words, legend)
        columns = [grid[i : i + of // self.layers] for i in range(0, of, of // self.layers)]
        self.move(
            LaggedStart(*[FadeIn(c) for c in columns], lag_ratio=0.15),
            FadeIn(words),
            seconds=1.4 * MOVE,
        )
        mine = dress(self.mine.copy(), "active").scale(1.25).set_z_index(1)
        self.map.add(mine)
        self.move(FadeIn(legend, mine), seconds=QUICK)
        self.rest()

    def meaning(self, look: str, text: str, right: float, y: float) -> VGroup:
        """A cell's look, and what it says: so far right of where the right half begins."""
        cell = Cell(look, 0.36, 0.3).move_to([SIDE + right, y, 0], LEFT)
        return VGroup(cell, Label(text, TEXT, MUTED).beside(cell, RIGHT, 0.16))

    # -- the next token ------------------------------------------------------------------
    def next_token(self):
        """Every token has a probability; the likeliest is written."""
        self.say(
            f"After {self.layers} layers, each of {self.vocabulary:,} tokens has a probability.",
            "next",
        )
        gone = [n for r, n in self.names.items() if r != "tokens"]
        rows = VGroup(*self.key, *self.value, *self.score, *self.bars, *self.strips)
        last, high = len(self.tokens), (STACK - LAST) / self.layers
        self.move(
            FadeOut(*gone, rows, self.about["ids"], self.map),
            self.phase.change("The next token"),
            seconds=QUICK,
        )
        middle = self.spot((last - 1) / 2, STACK)
        stack = VGroup(
            *[
                dress(Rectangle(width=last * GAP - 0.1, height=0.6 * high), "layer")
                .set_stroke(width=1)
                .move_to(middle + (i + 0.5) * high * DOWN)
                for i in range(self.layers)
            ]
        )
        name = Label(f"{self.layers} layers", TEXT, MUTED, "medium").put(middle + 0.32 * UP)
        self.move(FadeIn(stack, name), seconds=QUICK)
        pulse = dress(Rectangle(width=stack[0].width, height=0.16), "active")
        pulse.move_to(stack[0]).set_z_index(1)
        self.move(pulse.animate(rate_func=linear).move_to(stack[-1]), seconds=MOVE)
        chips, bars = [], []
        for i, (token, share) in enumerate(self.candidates):
            y = STACK - 0.25 - CANDIDATE * i
            chips.append(self.chip(token, last, y))
            bar = dress(Rectangle(width=3.2 * share / self.candidates[0][1], height=0.3), "stored")
            bar.move_to(self.spot(last + 0.55, y), LEFT)
            text = Label(f"{share:.0%}", TEXT, NAVY, "semibold").beside(bar, RIGHT, 0.15)
            bars.append(VGroup(bar, text))
        shown = [FadeIn(c, b, shift=0.1 * RIGHT) for c, b in zip(chips, bars)]
        self.move(FadeOut(pulse), LaggedStart(*shown, lag_ratio=0.3), seconds=1.2 * MOVE)
        self.say("The likeliest is written, and joins the text.", "write")
        best, *others = chips
        self.move(best.animate.look("active"), FadeOut(*others, *bars[1:]), seconds=BRISK)
        self.move(FadeOut(bars[0]), best.animate.move_to(self.spot(last, CHIPS)), seconds=MOVE)
        self.move(best.animate.look("plain"), FadeOut(stack, name), seconds=QUICK)
        self.chips.append(best)

    def passes(self):
        """The passes through the model: one for the prompt, then one a token."""
        self.say("Your prompt went in all at once. That is prefill.", "prefill")
        model = LayerBox(f"SmolLM2, all {self.layers} layers", COLUMNS * GAP - 0.1, 0.6)
        enlarged(model, 1).move_to(self.spot((COLUMNS - 1) / 2, MODEL))
        self.move(self.phase.change("The loop"), FadeIn(model), seconds=BRISK)
        known = len(self.tokens)
        self.go(0, 0, known, 1.2 * MOVE)
        said = ("prefill: all at once", 0), ("decode: one token a pass", 2)
        left = self.spot(0, PASSES) + (0.15 - WIDE / 2) * RIGHT
        prefill, decode = (
            Label(text, TEXT, NAVY, "semibold").put(left + row * PASS * DOWN, LEFT)
            for text, row in said
        )
        self.move(FadeIn(prefill), seconds=QUICK)
        self.say(
            "Its keys and values are kept. So only the newest token goes in: decode.", "decode"
        )
        for i, token in enumerate(self.written[1:], 1):
            pace = 0.9 if i == 1 else 0.5
            self.go(i, known + i - 1, 1, pace)
            self.chips.append(self.chip(token, known + i))
            others = [FadeIn(decode)] if i == 1 else []
            self.move(FadeIn(self.chips[-1], shift=0.2 * UP), *others, seconds=BRISK * pace)
        self.rest(0.3)

    def go(self, i: int, column: int, tokens: int, seconds: float):
        """Pass i: these tokens go through the model, and a cell of the ledger is left."""
        middle = column + (tokens - 1) / 2
        cell = Cell("active", tokens * GAP - 0.1, 0.6).move_to(self.spot(middle, CHIPS))
        cell.set_z_index(-1)
        name = self.name(f"pass {i + 1}", PASSES - i * PASS)
        self.move(
            FadeIn(name),
            cell.animate.move_to(self.spot(middle, PASSES - i * PASS)),
            seconds=seconds,
        )
        self.move(cell.animate.look("done"), seconds=QUICK)


def enlarged(thing: VGroup, part: int) -> VGroup:
    """A thing of the stage whose label, this part of it, is as large as all text here."""
    label = thing[part]
    label.scale(TEXT / label.cap).put(thing[0])
    return thing


CLIPS = [TokensToAttention]

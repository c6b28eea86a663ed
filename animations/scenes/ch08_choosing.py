"""Chapter 08's clip: every design on one map of bytes and speed, and what takes them off it."""

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
    Circle,
    Create,
    FadeIn,
    FadeOut,
    GrowFromEdge,
    Line,
    MoveAlongPath,
    Rectangle,
    VGroup,
    VMobject,
)

from animations.stage.clock import CourseScene
from animations.stage.mobjects import Note, dress
from animations.stage.style import (
    BRISK,
    FRAME,
    GROUND,
    INK,
    MIST,
    MOVE,
    MUTED,
    NAVY,
    QUICK,
    TEXT,
    Label,
)
from labkit import formulas, results
from labkit.tables import listed

CONTEXT = 16384
TWIN = "MHA again"
# one layer of the measured MLA: heads, numbers of a head, of a latent, of a rotary key
H, E, C, E_R = 16, 128, 512, 64
FP32, MIB = 4, 2**20  # bytes
LIMITS = (128, 16)  # MiB that the cache may take
TITLE, HEAD = 3.4, 2.75  # heights of title and axis name
# the map: its corner, what stands there, and how far it is to the double
CORNER = np.array([-5.35, -2.2, 0])
LEAST, SLOWEST = 1.4, 0.75  # MiB, times MHA's speed
WIDER, FASTER, RIGHTMOST, TOP = 1.19, 1.68, 6.5, 2.35
RADIUS = 0.15
# where a dot's name stands, seen from the dot: the point, and the edge that is there
NAMES = {
    "MHA": ([0.0, -0.41], ORIGIN),
    "GQA": ([0.12, 0.52], LEFT),
    "SWA hybrid": ([0.3, 0.08], LEFT),
    "MQA": ([0.0, -0.45], ORIGIN),
    "SWA": ([0.3, 0.02], LEFT),
    "DeltaNet": ([0.3, -0.3], LEFT),
    "MLA": ([-0.3, 0.0], RIGHT),
    "MoE": ([0.24, 0.31], LEFT),
}
# where a second word of it stands
SECOND = {
    "SWA": ([0.3, 0.46], LEFT),
    "DeltaNet": ([0.3, -0.76], LEFT),
    "MLA": ([-0.3, -0.46], RIGHT),
    "MoE": ([1.55, 0.73], RIGHT),
}
HYBRIDS = ("SWA hybrid", "DeltaNet hybrid")
HALF, FAR = ("GQA", *HYBRIDS), ("MQA", "SWA", "DeltaNet")
DESIGNS = ("MHA", TWIN, *HALF, *FAR, "MLA", "MoE")


def computed() -> float:
    """How many times the FLOPs of plain heads MLA spends on a cached token, absorbed."""
    return formulas.symbols.latent_decode_flops(1, 1, H, C, E_R) / (4 * H * E)


class TradeoffMap(CourseScene):
    """Bytes of cache across, speed up. Every design walks from MHA's place to its own; then recall
    and a limit take their share.
    """

    clip_name = "tradeoff_map"
    title = "The trade-off map: bytes, speed, and what they cost"
    alt = (
        "A map of the cache that a decode step reads, across, and its speed against MHA's, up. MHA"
        " and its twin stand at the lower right, a narrow band of chance around them. A line runs"
        " up to the left: where designs would stand if only bytes counted. One by one dots walk"
        " along it and stop close to it: GQA and two hybrids at half the cache; MQA, SWA and"
        " DeltaNet far up. MLA falls from the line to GQA's height. MoE stays at MHA. Lines of own"
        " code appear beside three names. Then SWA and DeltaNet pale, for they fail at recall, and"
        " a golden limit cuts off all to its right: MLA and MQA keep their colour."
    )
    poster_at = "recall"
    reads = ("ch08/matched.*.json", "ch08/quality.*.json", "machines.json")

    def construct(self):
        self.load()
        self.empty_map()
        self.twins()
        self.by_bytes()
        self.half()
        self.far()
        self.compressed()
        self.experts()
        self.recall()
        self.limit()
        self.choose()
        self.finish()

    def load(self):
        """The measured rows, and what each design recalls."""
        self.rows = {
            name: results.row("ch08/matched", variant=name, context=CONTEXT) for name in DESIGNS
        }
        self.recalled = {
            name: results.row("ch08/quality", variant=name) for name in DESIGNS if name != TWIN
        }
        self.fall_short = [n for n, r in self.recalled.items() if r["verdict"] != "recalls"]
        whole = self.rows["MHA"]
        self.weights, self.cache = FP32 * whole["active_parameters"], whole["cache_bytes"]
        twin = self.rows[TWIN]["multiple"]
        self.chance = max(twin, 1 / twin)
        self.check()

    def check(self):
        """ValueError if the rows don't tell what the clip says."""
        speed = {name: row["multiple"] for name, row in self.rows.items()}
        fastest = sorted(speed, key=speed.get)[-2:]
        left = [n for n in self.fitting(LIMITS[0]) if n not in self.fall_short]
        for says, holds in {
            "MLA is as fast as GQA": 1 / self.chance <= speed["MLA"] / speed["GQA"] <= self.chance,
            "MoE saves no cache": self.rows["MoE"]["cache_bytes"] == self.cache,
            "the fastest two fall short": sorted(self.fall_short) == sorted(fastest),
            f"MQA and MLA are left of {LIMITS[0]} MiB": left == ["MQA", "MLA"],
            f"only DeltaNet fits {LIMITS[1]} MiB": self.fitting(LIMITS[1]) == ["DeltaNet"],
        }.items():
            if not holds:
                raise ValueError(f"the clip says that {says}, and the stored rows don't")

    def fitting(self, limit: float) -> list[str]:
        """The designs whose cache takes no more than so many MiB."""
        return [n for n, row in self.rows.items() if row["cache_bytes"] <= limit * MIB]

    # -- places ------------------------------------------------------------------------------
    @staticmethod
    def spot(cache: float, speed: float) -> np.ndarray:
        """Where so many bytes and such a speed meet on the map."""
        across = WIDER * math.log2(cache / MIB / LEAST)
        return CORNER + np.array([across, FASTER * math.log2(speed / SLOWEST), 0])

    def place(self, name: str) -> np.ndarray:
        row = self.rows[name]
        return self.spot(row["cache_bytes"], row["multiple"])

    def by_bytes_alone(self, cache: float) -> float:
        """Times MHA's speed if a step took as long as its bytes, weights included."""
        return (self.weights + self.cache) / (self.weights + cache)

    def on_line(self, cache: float) -> np.ndarray:
        return self.spot(cache, self.by_bytes_alone(cache))

    def along(self, cache: float, to: np.ndarray) -> VMobject:
        """The way from MHA along the line, and to a place beside it."""
        way = [self.on_line(c) for c in np.geomspace(self.cache, cache, 40)]
        return VMobject(stroke_width=0).set_points_as_corners([*way, to])

    # -- the map -----------------------------------------------------------------------------
    def empty_map(self):
        """Two axes, and what was measured on what."""
        heading = Label("Trade-off map", "title", NAVY, "bold").put([-FRAME, TITLE, 0], LEFT)
        self.phase = Note(f"at {CONTEXT:,} tokens", [FRAME, TITLE, 0], RIGHT, TEXT)
        up = Label("times MHA's speed", TEXT, MUTED).put([-FRAME, HEAD, 0], LEFT)
        end, top = CORNER * UP + RIGHTMOST * RIGHT, CORNER * RIGHT + TOP * UP
        self.axes = VGroup(
            Line(CORNER, end, color=MUTED, stroke_width=2),
            Line(CORNER, top, color=MUTED, stroke_width=2),
        )
        self.ticks = VGroup()
        for number in (2, 8, 32, 128, 512):
            at = self.spot(number * MIB, SLOWEST)
            self.axes.add(Line(at, at + 0.1 * DOWN, color=MUTED, stroke_width=2))
            self.ticks.add(Label(number, TEXT, INK).put(at + 0.42 * DOWN))
        for number in (1, 2, 4):
            at = self.spot(LEAST * MIB, number)
            self.axes.add(Line(at, at + 0.1 * LEFT, color=MUTED, stroke_width=2))
            self.ticks.add(Label(f"{number}×", TEXT, INK).put(at + 0.25 * LEFT, RIGHT))
        across = Label("MiB of cache", TEXT, MUTED)
        across.put(CORNER + np.array([0.25, 0.31, 0]), LEFT)
        env = self.rows["MHA"].document["env"]
        threads = f", {env['threads']} thread" + "s" * (env["threads"] > 1)
        self.given = VGroup(
            *[
                Label(text, TEXT, INK).put([0.55, y, 0])
                for text, y in (
                    ("two layers, 1,024 wide, fp32, one request", 1.1),
                    (results.where(self.rows["MHA"].document) + threads, 0.45),
                )
            ]
        )
        self.say(f"A decode step at {CONTEXT:,} tokens: the cache it reads, and its speed.", "map")
        self.move(FadeIn(heading, self.phase), seconds=QUICK)
        self.move(Create(self.axes), FadeIn(self.ticks), seconds=MOVE)
        self.move(FadeIn(across, up), FadeIn(self.given), seconds=BRISK)
        self.across = across

    def dot(self, at: np.ndarray) -> Circle:
        return dress(Circle(RADIUS), "active").move_to(at)

    def settle(self, name: str, text: str = "") -> list[Animation]:
        """A dot is at its place: it gets its name, if it has one of its own."""
        told = [lit(self.dots[name])]
        if name in NAMES:
            self.names[name] = self.beside(name, text or name, NAMES[name])
            told.append(FadeIn(self.names[name]))
        return told

    def beside(self, name: str, text: str, where, color=NAVY) -> Note:
        """A word beside a dot's place."""
        offset, edge = where
        return Note(text, self.place(name) + np.array([*offset, 0]), edge, TEXT, color, "semibold")

    def twins(self):
        """MHA twice, and the band of what is chance."""
        self.say("The same MHA timed twice: differences as small as theirs are chance.", "twins")
        self.dots, self.names = {}, {}
        for name in ("MHA", TWIN):
            self.dots[name] = self.dot(self.place(name))
            self.move(FadeIn(self.dots[name], shift=0.3 * DOWN), seconds=QUICK)
            self.move(*self.settle(name), seconds=QUICK)
        width = RIGHTMOST - CORNER[0]
        self.band = self.alike(width).move_to(self.spot(LEAST * MIB, 1), LEFT).set_z_index(-2)
        self.chances = Label(f"chance: {self.chance - 1:.0%}", TEXT, MUTED)
        self.chances.put(self.band.get_corner(UP + LEFT) + np.array([0.25, 0.28, 0]), LEFT)
        self.move(
            self.names["MHA"].change("MHA and twin"), FadeIn(self.band, self.chances), seconds=BRISK
        )

    def alike(self, width: float) -> Rectangle:
        """A band as high as what chance makes of one speed, in both directions."""
        return dress(Rectangle(width=width, height=2 * FASTER * math.log2(self.chance)), "marked")

    def by_bytes(self):
        """Where designs would stand if only bytes counted."""
        self.say("If bytes alone counted, the weights' too, all would lie on this line.", "line")
        caches = np.geomspace(self.cache, 1.6 * MIB, 60)
        self.line = VMobject(color=MIST, stroke_width=5).set_points_as_corners(
            [self.on_line(c) for c in caches]
        )
        self.line.set_z_index(-1)
        self.move(FadeOut(self.given), seconds=QUICK)
        self.move(Create(self.line), seconds=1.4 * MOVE)
        name = Label("by bytes alone", TEXT, MUTED)
        self.move(FadeIn(name.put(self.on_line(160 * MIB) + 0.65 * UP, LEFT)), seconds=QUICK)

    def walk(self, name: str, text: str = ""):
        """A design leaves MHA's place for its own."""
        self.dots[name] = self.dot(self.place("MHA"))
        self.add(self.dots[name])
        way = self.along(self.rows[name]["cache_bytes"], self.place(name))
        self.move(MoveAlongPath(self.dots[name], way), seconds=BRISK)
        self.move(*self.settle(name, text), seconds=QUICK)

    def half(self):
        """GQA, and hybrids with one full layer of two."""
        speeds = sorted(self.rows[n]["multiple"] for n in HALF)
        self.say(
            f"GQA and two hybrids read about half the cache: {speeds[0]:.1f} times as fast.", "half"
        )
        self.walk("GQA")
        self.walk(HYBRIDS[0], "hybrids")
        self.walk(HYBRIDS[1])

    def far(self):
        """What reads a small part of it, or none that grows."""
        speeds = sorted(self.rows[n]["multiple"] for n in FAR)
        self.say(
            f"{listed(FAR)} read far less: {speeds[0]:.1f} to {speeds[-1]:.1f} times as fast.",
            "far",
        )
        for name in FAR:
            self.walk(name)

    def compressed(self):
        """MLA goes where its bytes belong, and falls."""
        mla, gqa = self.rows["MLA"], self.rows["GQA"]
        self.say(
            f"MLA reads {gqa['cache_bytes'] / mla['cache_bytes']:.1f} times less than GQA, but"
            f" attends with {computed():.1f} times the FLOPs: as fast.",
            "mla",
        )
        self.dots["MLA"] = self.dot(self.place("MHA"))
        self.add(self.dots["MLA"])
        stop = self.on_line(mla["cache_bytes"])
        self.move(MoveAlongPath(self.dots["MLA"], self.along(mla["cache_bytes"], stop)))
        self.drop = Line(stop, self.place("MLA"), color=MUTED, stroke_width=2.5).set_z_index(-1)
        self.move(
            self.dots["MLA"].animate.move_to(self.place("MLA")), Create(self.drop), seconds=MOVE
        )
        level, ends = self.place("GQA")[1], [self.place(n)[0] for n in ("MLA", "GQA")]
        self.same = self.alike(ends[1] - ends[0]).move_to([ends[0], level, 0], LEFT)
        self.move(*self.settle("MLA"), FadeIn(self.same.set_z_index(-2)), seconds=QUICK)

    def experts(self):
        """MoE, and the code that designs bring."""
        own = {n: row["own_lines"] for n, row in self.rows.items() if row["own_lines"]}
        own = {n: lines for n, lines in own.items() if n not in HYBRIDS}  # theirs are DeltaNet's
        self.say(f"MoE saves no cache. {listed(own)} need code of their own.", "code")
        self.walk("MoE")
        self.lines = {
            n: self.beside(n, f"{lines} lines", SECOND[n], INK) for n, lines in own.items()
        }
        self.move(
            FadeIn(*self.lines.values()), self.phase.change("lines of own code"), seconds=BRISK
        )

    # -- what takes designs off it -----------------------------------------------------------
    def recall(self):
        """What small models of each recall."""
        self.say(f"Small models trained to recall: {listed(self.fall_short)} fall short.", "recall")
        rest = min(r["recall"] for n, r in self.recalled.items() if n not in self.fall_short)
        pairs = self.recalled["MHA"]["pairs"]
        self.move(
            FadeOut(*self.lines.values()),
            self.phase.change(f"recall of {pairs} pairs; others {rest:.0%}"),
            seconds=BRISK,
        )
        self.shares = {}
        for name in self.fall_short:
            share = f"{self.recalled[name]['recall']:.0%}"
            self.shares[name] = self.beside(name, share, SECOND[name], INK)
            self.move(relit(self.dots[name], "active"), seconds=QUICK)
            self.move(FadeIn(self.shares[name]), *self.pale(name), seconds=QUICK)

    def pale(self, *names: str) -> list[Animation]:
        """These designs are out."""
        words = [self.names[n] for n in names if n in self.names]
        return [
            *[self.dots[n].animate.set_fill(GROUND).set_stroke(MUTED, 2) for n in names],
            *[w.animate.set_fill(MUTED) for w in words],
        ]

    def limit(self):
        """A limit on the cache cuts the map; another one leaves nothing."""
        loose, tight = LIMITS
        left = [n for n in self.fitting(loose) if n not in self.fall_short]
        only = self.fitting(tight)
        second = f"Allow {tight}: only {listed(only)} fits."
        self.say(f"Allow {loose} MiB: {listed(left)} are left. {second}", "limit")
        out = [n for n in self.dots if n not in self.fitting(loose)]
        self.cut(loose, *self.pale(*out))
        self.at(second)
        self.move(FadeOut(self.gold), seconds=0.5 * QUICK)
        self.cut(tight, *self.pale(*left))

    def cut(self, limit: float, *others: Animation):
        """A golden line at so many MiB, and what it does."""
        self.gold = dress(Rectangle(width=0.1, height=TOP - CORNER[1] - 0.1), "active")
        self.gold.move_to(self.spot(limit * MIB, SLOWEST) + 0.05 * UP, DOWN)
        self.move(
            GrowFromEdge(self.gold, DOWN), self.phase.change(f"limit: {limit} MiB"), seconds=BRISK
        )
        self.move(*others, seconds=BRISK)

    def choose(self):
        """The last word, with the first limit."""
        self.say("No dot is best in all. Name your limit, then test what is left.", "choose")
        self.at("Name your limit")
        self.move(FadeOut(self.gold), seconds=0.5 * QUICK)
        left = [n for n in self.fitting(LIMITS[0]) if n not in self.fall_short]
        self.cut(
            LIMITS[0],
            *[lit(self.dots[n]) for n in left],
            *[self.names[n].animate.set_fill(NAVY) for n in left],
        )
        self.rest()


def lit(dot: Circle) -> Animation:
    """A dot at its place; a pale edge parts it from those it lies on."""
    return dot.animate.set_fill(NAVY).set_stroke(GROUND, 2)


def relit(shape: VMobject, look: str) -> Animation:
    """A shape takes the colours of a look."""
    return shape.animate.become(dress(shape.copy(), look))


CLIPS = [TradeoffMap]

"""Visual language of the films: colours, type, easing.

Everything on screen is set in these and nothing else.

Navy is what is stored, gold the one thing active now (always outlined, never text), mist what is
empty, red what is done again. All text and maths go through Typst: kerning is right, a line never
wraps, and a 480p draft is laid out exactly like an 8K master.
"""

from __future__ import annotations

import subprocess
from functools import cache, lru_cache
from itertools import zip_longest

import numpy as np
import typst
from manim import LEFT, ORIGIN, RIGHT, ManimColor, MathTypst, Typst, VGroup, VMobject, smooth

from labkit.palette import MONO, PALETTE, SANS

_LIGHT = {
    name: ManimColor(code) for name, code in PALETTE["light"].items() if isinstance(code, str)
}
GROUND, PANEL, INK, MUTED = (_LIGHT[k] for k in ("ground", "panel", "ink", "muted"))
NAVY, GOLD, OUTLINE, MIST, SKY, RED = (
    _LIGHT[k] for k in ("accent", "active", "outline", "line", "wash", "bad")
)

# Cap heights in scene units; the frame is 8 high, so 0.2 is 12 pixels at 480p and 27 at 1080p.
CAP = {"figure": 0.8, "title": 0.4, "head": 0.29, "body": 0.235, "small": 0.2}
SMALLEST = 0.165  # a cap height under which nothing is legible at 480p
TEXT = 0.33  # one that is 11 px of type where a phone shows a clip, 358 px wide

FRAME = 6.6  # half the width that we use: half a unit is left free at either side
CAPTIONS = -3.0  # below this line lie the captions: no text of ours
EASE = smooth
MOVE, BRISK, QUICK = 1.0, 0.7, 0.4  # seconds of a first move, of a repeated one, of a small change
PAUSE = 0.5  # seconds to look at a new fact


@cache
def fonts() -> typst.Fonts:
    """The machine's fonts, looked up once.

    RuntimeError when ours are missing, as Typst would silently take others.
    """
    found = typst.Fonts()
    missing = sorted({SANS, MONO} - set(found.families()))
    if missing:
        raise RuntimeError(
            f"the films are set in {SANS} and {MONO}, and this machine lacks"
            f" {' and '.join(missing)}: install the packages fonts-inter and fonts-jetbrains-mono"
        )
    return found


@cache
def glyphs() -> frozenset[int]:
    """The characters that some font here has: what ours lack, Typst takes from another."""
    command = ["fc-list", "--format", "%{charset}\n"]
    ranges = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ends = ((int(end, 16) for end in (part.split("-")[0], part.split("-")[-1])) for part in ranges)
    return frozenset(code for low, high in ends for code in range(low, high + 1))


@lru_cache(maxsize=1024)
def _typeset(text: str, font: str, weight: str) -> tuple[np.ndarray, ...]:
    """The outlines of a line between two struts "H", which carry the baseline, the cap height and
    where the line starts and ends.
    """
    body = text.replace("\\", "\\\\").replace('"', '\\"')
    setting = f'font: "{font}", weight: "{weight}", number-width: "tabular", ligatures: false'
    return tuple(
        glyph.points
        for glyph in Typst(
            f'#set text({setting}); #text("H{body}H")', font_paths=fonts()
        ).submobjects
    )


class Label(VGroup):
    """One line of text that knows its baseline, so that neighbours line up whatever their letters.

    size: a name in CAP, or a cap height in scene units. Raises ValueError if nothing of the text
    can be seen, or no font has a character: Typst would draw an empty box, silently.
    """

    def __init__(self, text, size="body", color=INK, weight="regular", font=SANS):
        self.text = str(text)
        if missing := sorted(c for c in set(self.text) if ord(c) not in glyphs()):
            raise ValueError(f"no font has {' '.join(missing)}, which {self.text!r} needs")
        first, *ink, last = (
            VMobject(fill_color=color, fill_opacity=1, stroke_width=0).set_points(p)
            for p in _typeset(self.text, font, weight)
        )
        if not ink:
            raise ValueError(f"a label needs something to show, not {self.text!r}")
        super().__init__(*ink)
        # Kept as shares of the ink's height, so that they stay true when the label is scaled.
        self._cap = first.height / self.height
        self._drop = (first.get_bottom()[1] - self.get_bottom()[1]) / self.height
        self._bearing = {
            -1: (self.get_left()[0] - first.get_right()[0]) / self.height,
            1: (last.get_left()[0] - self.get_right()[0]) / self.height,
        }
        self.scale(CAP.get(size, size) / first.height)

    @property
    def cap(self) -> float:
        """Height of a capital letter, in scene units."""
        return self._cap * self.height

    @property
    def middle(self) -> np.ndarray:
        """The ink's centre, at half a capital's height above the baseline."""
        return np.array(
            [
                self.get_center()[0],
                self.get_bottom()[1] + self._drop * self.height + self.cap / 2,
                0,
            ]
        )

    def put(self, point, edge=ORIGIN) -> Label:
        """Centre on a point or mobject; with edge LEFT or RIGHT, start or end the line there."""
        point = point.get_center() if hasattr(point, "get_center") else np.asarray(point, float)
        side = int(np.sign(edge[0]))
        ink = (
            self.middle
            if not side
            else self.middle + side * (self.width / 2 + self._bearing[side] * self.height) * RIGHT
        )
        return self.shift(point - ink)

    def beside(self, mobject, side=LEFT, gap=0.2) -> Label:
        """Put to the left or right of a mobject, on its middle line."""
        return self.put(mobject.get_edge_center(side) + gap * side, -side)


class Display(VGroup):
    """Text that changes in place.

    It keeps room for `capacity` letters: what a play moves must be there when the play begins.
    """

    def __init__(self, capacity: int):
        super().__init__(*[VMobject(stroke_width=0) for _ in range(capacity)])
        self.text = ""

    def set(self, label: Label, opacity: float = 1) -> Display:
        """Show what this label shows, where it stands.

        Raises ValueError when it has more letters than there is room for.
        """
        if len(label) > len(self):
            raise ValueError(
                f"{label.text!r} has {len(label)} letters, and there is room for {len(self)}"
            )
        self.text, self.cap = label.text, label.cap
        for slot, glyph in zip_longest(self, label):
            slot.set_points(glyph.points if glyph else np.zeros((0, 3)))
            if glyph:
                slot.set_fill(glyph.get_fill_color(), opacity)
        return self


@cache
def _math_capital() -> float:
    return MathTypst("H", font_paths=fonts()).height


def formula(source: str, size="body", color=INK) -> MathTypst:
    """Typst maths, sized by the height of its capitals like a Label; `{{ x : name }}` parts answer
    to `.select("name")`.
    """
    out = MathTypst(source, color=color, font_paths=fonts()).scale(
        CAP.get(size, size) / _math_capital()
    )
    out.text = source
    return out

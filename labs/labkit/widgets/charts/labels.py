"""Names beside points, so that none covers another, at any width the card may have.

Heights are in pixels, and so are a label's size and its distance to its point. Places along x are
shares of a width between two ends: a label that is clear of another, on the same side, at both ends
is clear of it in between.
"""

from __future__ import annotations

import math
from typing import NamedTuple

SIZE = 12  # px of the letters, as in widgets.css
ASCENT, DESCENT = 11, 3
MARKER = 7  # half of a marker's box, in px
GOLD = 11  # half of the box of the disc behind the chosen point
# where a label may stand, best first: dx and dy of its baseline, and which part of it stands there
NEAR = [
    (12, 4, "start"),
    (-12, 4, "end"),
    (0, -14, "middle"),
    (0, 22, "middle"),
    (8, -8, "start"),
    (8, 17, "start"),
    (-8, -8, "end"),
    (-8, 17, "end"),
]
# farther away, joined to their point by a thin line
FAR = [
    (dx, dy, "start" if dx > 0 else "end")
    for away in range(1, 7)
    for dx, dy in [
        (14 * away, 4 - 17 * away),
        (14 * away, 4 + 17 * away),
        (-14 * away, 4 - 17 * away),
        (-14 * away, 4 + 17 * away),
        (14 + 16 * away, 4),
        (-14 - 16 * away, 4),
    ]
]
SIDES: list[tuple[int, int, str]] = [*NEAR, *FAR]
FAR_OUT = 18  # px that a label may stand out of the plot on the right, where the card has a margin
TRIES = 20_000


class Room(NamedTuple):
    """A plot of one height, whose width is anything between two."""

    narrow: float  # px
    wide: float
    height: float


class Box(NamedTuple):
    """A rectangle at both widths: left and right at the narrow one and at the wide one."""

    left: float
    right: float
    left_wide: float
    right_wide: float
    top: float
    bottom: float

    def clear(self, other: Box) -> bool:
        """Do they stand apart at every width?"""
        return (
            self.bottom <= other.top
            or other.bottom <= self.top
            or (self.right <= other.left and self.right_wide <= other.left_wide)
            or (other.right <= self.left and other.right_wide <= self.left_wide)
        )


def width(words: str) -> float:
    """At most so many px are words wide, in the fonts that readers have (DejaVu is the widest)."""
    return SIZE * sum(map(_em, words))


def _em(letter: str) -> float:
    if letter in "mwMW%@…—+=×→≈~<>":
        return 1.0
    if letter in "ijltfrI.,:;'|!()[]/-· \u00a0":
        return 0.42
    if letter.isupper():
        return 0.79
    return 0.6 if letter in "ckosvxyz" else 0.64


def leader(side: tuple[int, int, str]) -> str:
    """The path from a point to a label that stands far from it; none for a near one."""
    if side in NEAR:
        return ""
    dx, dy, anchor = side
    x, y = dx + (-3 if anchor == "start" else 3), dy - 4
    start = MARKER / math.hypot(x, y)
    return f"M{x * start:.3g} {y * start:.3g}L{x} {y}"


def box(place: list[int], side: tuple[int, int, str], words: str, room: Room) -> Box:
    """Where a label would stand."""
    dx, dy, anchor = side
    long = width(words)
    start = dx - {"start": 0, "middle": long / 2, "end": long}[anchor]
    base = place[1] / 1000 * room.height + dy
    left, left_wide = (place[0] / 1000 * w + start for w in (room.narrow, room.wide))
    return Box(left, left + long, left_wide, left_wide + long, base - ASCENT, base + DESCENT)


def marker(place: list[int], room: Room, half: float = MARKER) -> Box:
    """A point's own box."""
    x, x_wide = (place[0] / 1000 * w for w in (room.narrow, room.wide))
    y = place[1] / 1000 * room.height
    return Box(x - half, x + half, x_wide - half, x_wide + half, y - half, y + half)


def inside(one: Box, room: Room) -> bool:
    """Does it stay off the labels of the axes, and in the card?"""
    return (
        one.left >= 2
        and one.left_wide >= 2
        and one.right <= room.narrow + FAR_OUT
        and one.right_wide <= room.wide + FAR_OUT
        and one.top >= -2
        and one.bottom <= room.height - 1
    )


def sides(
    places: list[list[int]], words: list[str], room: Room, others: list[Box]
) -> list[int] | None:
    """A side (an index of SIDES) for each label, none over another, over a marker or over `others`.

    None where no such choice is found.
    """
    markers = [marker(place, room) for place in places]
    free = []  # by point: the sides on which nothing fixed is in the way
    for i, place in enumerate(places):
        fixed = markers[:i] + markers[i + 1 :] + others
        stands = [(k, box(place, side, words[i], room)) for k, side in enumerate(SIDES)]
        free.append(
            [
                (k, one)
                for k, one in stands
                if inside(one, room) and all(one.clear(other) for other in fixed)
            ]
        )
    order = sorted(range(len(places)), key=lambda i: len(free[i]))
    chosen: dict[int, tuple[int, Box]] = {}
    tries = 0

    def settle(depth: int) -> bool:
        """Choose for the points from `depth` on, the least free first; take back what fails."""
        nonlocal tries
        if depth == len(order):
            return True
        i = order[depth]
        for k, one in free[i]:
            tries += 1
            if tries > TRIES:
                return False
            if all(one.clear(other) for _, other in chosen.values()):
                chosen[i] = (k, one)
                if settle(depth + 1):
                    return True
                del chosen[i]
        return False

    return [chosen[i][0] for i in range(len(places))] if settle(0) else None


def most(
    places: list[list[int]], words: list[str], room: Room, others: list[Box]
) -> list[int | None]:
    """As `sides`, but a label that finds no place is left out (None): a key has it."""
    found: list[int | None] = []
    taken = list(others)
    for place, word in zip(places, words):
        stands = [(k, box(place, side, word, room)) for k, side in enumerate(SIDES)]
        clear = [
            (k, one)
            for k, one in stands
            if inside(one, room) and all(one.clear(other) for other in taken)
        ]
        found.append(clear[0][0] if clear else None)
        taken += [one for _, one in clear[:1]]
    return found

"""Named points on two axes of numbers: trade-offs, frontiers."""

from __future__ import annotations

from html import escape

from labkit.widgets import markup, plot
from labkit.widgets.charts import labels
from labkit.widgets.charts.chart import Answer, Chart, checked_lines, pair
from labkit.widgets.numbers import as_text, on_axis

HEIGHT = 320  # px of the plot, as in charts.css
CARDS = {"slim": (240, 600), "wide": (600, 694)}  # px between a card's paddings
LETTER, MARGIN = 8, 22  # px: a letter of the gutter, what is kept free on the right
# a shape for each group, about its own place; colours repeat what shapes say
SHAPES = [
    "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0z",  # disc
    "M-5 -5h10v10h-10z",  # square
    "M0 -6.5L6 4.5H-6z",  # triangle
    "M0 -7L7 0L0 7L-7 0z",  # diamond
    "M-1.8 -6h3.6v4.2h4.2v3.6h-4.2v4.2h-3.6v-4.2h-4.2v-3.6h4.2z",  # plus
    "M0 6.5L6 -4.5H-6z",  # triangle, on its tip
]


class Points(Chart):
    """`fn` gives `{"name": (x, y)}` or `{"group": {"name": (x, y)}}`; None for a missing point.

    mark: the name of the chosen point. frontier: names in the order in which a line joins them; or
    such a list by group, for a line each.
    """

    takes = ("series", "say", "mark", "frontier")
    noun = "points"

    def read(self, full: dict, call: str) -> Answer:
        groups = full["series"]
        if not isinstance(groups, dict) or not groups:
            raise ValueError(
                f"{call} gives no points: give {{'name': (x, y)}} or"
                " {'group': {'name': (x, y)}}"
            )
        if not all(isinstance(points, dict) for points in groups.values()):
            groups = {"": groups}
        if len(groups) > len(SHAPES):
            raise ValueError(f"{call} has {len(groups)} groups, but there are {len(SHAPES)} shapes")
        names = [(group, name) for group, points in groups.items() for name in points]
        for group, name in names:
            place = groups[group][name]
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"{call} has a point at {place!r} whose name is {name!r}: name it")
            if place is not None and not pair(place):
                raise ValueError(
                    f"{call} puts {name} at {place!r}: give two finite numbers, x and y, or None"
                    " where it is missing"
                )
        at = [groups[group][name] for group, name in names]
        xs = [None if p is None else float(p[0]) for p in at]
        ys = [None if p is None else float(p[1]) for p in at]
        chosen = self._chosen(full.get("mark"), names, at, call)
        lines = self._lines(full.get("frontier"), names, call)
        return Answer(names, [xs, ys], full.get("say"), None, {"chosen": chosen, "lines": lines})

    def _chosen(self, mark, names: list, at: list, call: str) -> int | None:
        """Which point is marked."""
        if mark is None:
            return None
        i = _index(mark, names, f"{call} marks")
        if at[i] is None:
            raise ValueError(f"{call} marks {mark!r}, which is missing there")
        return i

    def _lines(self, frontier, names: list, call: str) -> dict[str | None, list[int]]:
        """Which points a line joins, by group; None stands for a line through all groups."""
        if frontier is None:
            return {}
        what = f"{call} has a frontier through"
        if isinstance(frontier, dict):
            groups = {group for group, _ in names}
            for group in frontier:
                if group not in groups:
                    raise ValueError(f"{what} the group {group!r}, but there is none")
            return {
                group: [_index((group, name), names, what) for name in chain]
                for group, chain in frontier.items()
            }
        return {None: [_index(name, names, what) for name in frontier]}

    def lay(self, answers: list[Answer]) -> None:
        o = self.options
        self.names = answers[0].names
        self.groups = list(dict.fromkeys(group for group, _ in self.names))
        self.group_of = [self.groups.index(group) for group, _ in self.names]
        limits = checked_lines(o.lines, "lines"), checked_lines(o.x_lines, "x_lines")
        ys = [y for a in answers for y in a.series[1] if y is not None]
        xs = [x for a in answers for x in a.series[0] if x is not None]
        x_scale, x_ticks = _scale([*xs, *limits[1].values()], o.log_x, "log_x")
        y_scale, y_ticks = _scale([*ys, *limits[0].values()], o.log_y, "log_y")
        self.axes = plot.Axes(
            chart="points",
            x=[],
            x_words=[],
            x_labels=[(x_scale.at(tick), on_axis(tick, o.x_unit)) for tick in x_ticks],
            x_scale=x_scale,
            y=y_scale,
            y_labels=plot.y_labels(y_scale, y_ticks, o.y_unit),
            unit=o.y_unit,
            limits=[(y_scale.down(limit), name) for name, limit in limits[0].items()],
            uprights=[(x_scale.at(limit), name) for name, limit in limits[1].items()],
        )
        self.gutter = max(len(words) for _, words in self.axes.y_labels)
        self.lined = any(a.more["lines"] for a in answers)
        self.joined = any(None in a.more["lines"] for a in answers)
        names = [name for _, name in self.names]
        numbers = [str(i + 1) for i in range(len(names))]
        self.words, self.stands = {}, {}
        for card in CARDS:
            # names where they fit in every answer, or numbers and a key: never now this, now that
            different = {self._key_of(a): a for a in answers}
            stands = [self._sides(a, names, card) for a in different.values()]
            self.words[card] = names
            if None in stands:
                self.words[card] = numbers
                stands = [self._sides(a, numbers, card, needed=True) for a in different.values()]
            self.stands[card] = dict(zip(different, stands))

    def _places(self, answer: Answer) -> list[list[int] | None]:
        return [None if x is None else self.axes.place(x, y) for x, y in zip(*answer.series)]

    def _key_of(self, answer: Answer) -> tuple:
        """What of an answer decides where its labels stand."""
        places = (place and tuple(place) for place in self._places(answer))
        return (*places, answer.more["chosen"])

    def _sides(self, answer: Answer, words: list[str], card: str, needed=False) -> list | None:
        """The side of each label, None for a missing point; None where they cannot all stand."""
        narrow, wide = (w - (self.gutter + 2) * LETTER - MARGIN for w in CARDS[card])
        room = labels.Room(narrow, wide, HEIGHT)
        others = [
            labels.box([0, at], (6, -5, "start"), name, room) for at, name in self.axes.limits
        ]
        places, chosen = self._places(answer), answer.more["chosen"]
        if chosen is not None:
            others.append(labels.marker(places[chosen], room, labels.GOLD))
        there = [i for i, place in enumerate(places) if place is not None]
        shown = [places[i] for i in there], [words[i] for i in there]
        found = labels.sides(*shown, room, others)
        if found is None and needed:
            found = labels.most(*shown, room, others)
        if found is None:
            return None
        by_point = dict(zip(there, found))
        return [by_point.get(i) for i in range(len(places))]

    def picture(self, answer: Answer) -> dict:
        o = self.options
        places = self._places(answer)
        xs, ys = answer.series
        picture = {
            "d": self._paths(answer, places),
            "y": [[as_text(x, o.x_unit) for x in xs], [as_text(y, o.y_unit) for y in ys]],
            "points": places,
        }
        picture |= {card: self.stands[card][self._key_of(answer)] for card in CARDS}
        if answer.more["chosen"] is not None:
            picture["mark"] = places[answer.more["chosen"]]
        return picture

    def _paths(self, answer: Answer, places: list) -> list[str]:
        """The line of each group, then the one through all; empty where there is none."""
        chains = answer.more["lines"]
        keys = [*self.groups, None] if self.lined else []
        paths = []
        for key in keys:
            chain = [places[i] for i in chains.get(key, []) if places[i] is not None]
            paths.append("M" + " ".join(f"{x} {y}" for x, y in chain) if len(chain) > 1 else "")
        return paths

    def sentence(self, answer: Answer) -> str:
        """The chosen point, or the ends of both axes."""
        o = self.options
        told = [
            (o.x_label or "x", o.x_unit, answer.series[0]),
            (o.y_label or "y", o.y_unit, answer.series[1]),
        ]
        chosen = answer.more["chosen"]
        if chosen is not None:
            both = ", ".join(f"{n} **{as_text(v[chosen], unit)}**" for n, unit, v in told)
            return f"{self.names[chosen][1]}: {both}."
        parts = []
        for n, unit, v in told:
            there = sorted((value, i) for i, value in enumerate(v) if value is not None)
            if there:
                low, high = (
                    f"**{as_text(value, unit)}** ({self.names[i][1]})"
                    for value, i in (there[0], there[-1])
                )
                parts.append(f"{n} from {low} to {high}")
        words = "; ".join(parts) or "no point is there"
        return words[0].upper() + words[1:] + "."

    def body(self, picture: dict) -> str:
        o = self.options
        classes = [f"lk-s{j}" for j in range(len(self.groups))] + ["lk-front"]
        drawn = list(zip(classes, picture["d"]))
        parts = [*plot.frame(self.axes), plot.stretched(drawn, "lk-lines")]
        if "mark" in picture:
            parts.append(plot.gold(picture["mark"]))
        for place, j in zip(picture["points"], self.group_of):
            parts.append(_point(place, j))
        for card in CARDS:
            triples = zip(picture["points"], picture[card], self.words[card])
            parts += [_name(*triple, card) for triple in triples]
        alt = (
            f"{o.title} {len(self.names)} points: {o.y_label or 'y'} by {o.x_label or 'x'}."
            " The table below the picture has their numbers."
        )
        return self._legend() + self.box(
            plot.svg(parts, alt), self.gutter, "lk-points", self._key()
        )

    def _legend(self) -> str:
        entries = [_shape(j) + escape(group) for j, group in enumerate(self.groups) if group]
        if self.joined:
            entries.append('<i class="lk-stroke lk-front"></i>frontier')
        spans = "".join(f"<span>{entry}</span>" for entry in entries)
        return f'<p class="lk-legend">{spans}</p>' if spans else ""

    def _key(self) -> str:
        """What the numbers mean, where numbers stand for names."""
        shown = [card for card in CARDS if self.words[card] != [name for _, name in self.names]]
        if not shown:
            return ""
        only = f" lk-{shown[0]}" if len(shown) == 1 else ""
        keys = "".join(
            f"<span><b>{i}</b> {_shape(j) if len(self.groups) > 1 else ''}{escape(name)}</span>"
            for i, ((_, name), j) in enumerate(zip(self.names, self.group_of), 1)
        )
        return f'<p class="lk-legend lk-key{only}">{keys}</p>'

    def table(self, picture: dict) -> tuple[list[str], list[list[str]]]:
        o = self.options
        head = ["point", o.x_label or "x", o.y_label or "y"]
        rows = [[name, *both] for (_, name), *both in zip(self.names, *picture["y"])]
        if self.groups != [""]:
            head.append("group")
            rows = [[*row, group] for row, (group, _) in zip(rows, self.names)]
        return head, rows

    def spec(self) -> dict:
        return {"sides": [[*side, labels.leader(side)] for side in labels.SIDES]}


def _index(name, names: list[tuple[str, str]], what: str) -> int:
    """The place of a point among all, by its name, or by its group and name."""
    found = [i for i, full in enumerate(names) if name in (full, full[1])]
    if len(found) != 1:
        there = ", ".join(dict.fromkeys(n for _, n in names))
        raise ValueError(
            f"{what} {name!r}, but the points are {there}"
            if not found
            else f"{what} {name!r}, but {len(found)} points are called so: give (group, name)"
        )
    return found[0]


def _scale(values: list[float], log: bool, option: str) -> tuple[plot.Scale, list[float]]:
    """A scale with round ends that holds all values, and its ticks; from zero only where zero is
    near.
    """
    if not values:
        raise ValueError("there is nothing to draw: every point is missing")
    low, high = min(values), max(values)
    if log:
        if low <= 0:
            raise ValueError(f"{option} needs values above zero, but the smallest is {low:g}")
        low, high, ticks = plot.decades(low, high)
        return plot.Scale(low, high, True), ticks
    if 0 < low < high / 2:
        low = 0
    elif high < 0 and high > low / 2:
        high = 0
    step = plot.round_step((high - low) / 4 or abs(high) / 4 or 1)
    first, last = plot.steps(low, high, step)
    ticks = [step * i for i in range(first, last + 1)]
    return plot.Scale(ticks[0], ticks[-1]), ticks


def _shape(j: int) -> str:
    """A group's shape between words."""
    return (
        '<svg class="lk-shape" viewBox="-8 -8 16 16" aria-hidden="true">'
        f'<path class="lk-s{j}" d="{SHAPES[j]}"></path></svg>'
    )


def _point(place: list[int] | None, j: int) -> str:
    """A marker at its place; a missing point is hidden."""
    x, y = map(plot.percent, place or (0, 0))
    return markup.tag(
        "svg",
        markup.tag("path", class_=f"lk-s{j}", d=SHAPES[j]),
        class_="lk-point",
        x=x,
        y=y,
        overflow="visible",
        visibility=None if place else "hidden",
    )


def _name(place: list[int] | None, side: int | None, words: str, card: str) -> str:
    """A label beside its point; hidden where the point is missing or there is no room."""
    at = labels.SIDES[side or 0]
    x, y = map(plot.percent, place or (0, 0))
    dx, dy, anchor = at
    text = markup.tag("text", escape(words), x=dx, y=dy, text_anchor=anchor)
    return markup.tag(
        "svg",
        markup.tag("path", d=labels.leader(at)) + text,
        class_=f"lk-name lk-{card}",
        x=x,
        y=y,
        overflow="visible",
        visibility=None if place and side is not None else "hidden",
    )

"""Layout checks that run a scene without drawing it: after every play, and in the middle of it.

    inspect(KVCacheLoop).findings    # an empty list is a clean scene

A text is anything with a `text`. What is asked of it: inside the margins and above the captions;
touching no other text, no line; wholly inside or wholly outside each box, with room to its edge;
not covered; legible; 4.5:1 on what lies under it (3:1 when large). Of colours: gold is never text
and never without its outline.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field

import numpy as np
from manim import CairoRenderer, Circle, Mobject, Rectangle, VMobject, config, tempconfig
from manim.utils.family import extract_mobject_family_members

from animations.stage.clock import CourseScene
from animations.stage.render import QUALITIES, settings
from animations.stage.style import CAPTIONS, GOLD, GROUND, OUTLINE, SMALLEST
from labkit.palette import contrast

# room between texts, to a box from within, from without, to the frame
TEXT_GAP, INSIDE, OUTSIDE, EDGE = 0.06, 0.03, 0.05, 0.3
SEEN, SOLID = 0.15, 0.95  # opacities from which a thing counts as seen, as wholly there
GOLD_RGB, OUTLINE_RGB = GOLD.to_rgb(), OUTLINE.to_rgb()
LARGE = 0.28  # cap height of large text in WCAG's sense: 24 px at 480p
SAMPLES = (0.2, 0.35, 0.5, 0.65, 0.8)  # where in a play we look


@dataclass(frozen=True)
class Finding:
    """One defect: which rule, what, and the second it was first seen."""

    rule: str
    what: str
    when: float


@dataclass
class Report:
    """What an inspection found, and the scene after its last frame.

    `texts` holds every text that was ever fully shown.
    """

    scene: CourseScene
    findings: list[Finding] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Shape:
    """Something visible: its bounds, its place in the drawing order, its paint (red, green, blue,
    opacity).
    """

    mobject: Mobject
    x0: float
    y0: float
    x1: float
    y1: float
    order: int
    fill: np.ndarray
    stroke: np.ndarray  # opacity 0 where there is no stroke

    @property
    def opacity(self) -> float:
        return max(self.fill[3], self.stroke[3])

    def inside(self, other: Shape, room: float = 0.0) -> bool:
        return (
            min(self.x0 - other.x0, other.x1 - self.x1, self.y0 - other.y0, other.y1 - self.y1)
            >= room - 1e-9
        )


def inspect(scene_class: type[CourseScene], clock=None) -> Report:
    """Run a scene without drawing and look at every layout it passes through."""
    with tempfile.TemporaryDirectory() as folder, tempconfig(settings(*QUALITIES["480p"], folder)):
        probe = Probe()
        scene = scene_class(clock=clock, renderer=probe)
        probe.report = Report(scene)
        scene.render()
        return probe.report


class Probe(CairoRenderer):
    """Plays like the real renderer, frame count included, but looks at a few layouts of a play
    instead of drawing all.
    """

    report: Report

    def play(self, scene, *args, **kwargs):
        scene.compile_animation_data(*args, **kwargs)
        scene.begin_animations()
        frames = scene.duration * config.frame_rate
        if scene.is_current_animation_frozen_frame():
            frames = math.floor(frames + 1e-6)
        else:
            for share in SAMPLES:
                scene.update_to_time(share * scene.duration)
                self.look(scene, self.time + share * scene.duration)
            for animation in scene.animations:
                animation.finish()
                animation.clean_up_from_scene(scene)
            frames = math.ceil(frames - 1e-6)
        self.time += frames / config.frame_rate
        self.num_plays += 1
        self.look(scene, self.time, at_rest=True)

    def update_frame(self, *args, **kwargs):
        """Nothing is drawn."""

    def look(self, scene, when: float, at_rest: bool = False) -> None:
        texts, boxes, paths = shapes(scene)
        known = {(f.rule, f.what) for f in self.report.findings}
        for rule, what in (*of_texts(texts, boxes, paths, at_rest), *of_shapes(boxes + paths)):
            if (rule, what) not in known:
                known.add((rule, what))
                self.report.findings.append(Finding(rule, what, when))
        self.report.texts |= {t.mobject.text for t in texts if t.opacity > SOLID}


def shapes(scene) -> tuple[list[Shape], list[Shape], list[Shape]]:
    """The visible texts, boxes (rectangles, discs) and other paths, each in drawing order."""
    owner: dict[int, Mobject] = {}

    def claim(mobject, text):
        text = mobject if text is None and isinstance(getattr(mobject, "text", None), str) else text
        if text is not None:
            owner[id(mobject)] = text
        for part in mobject.submobjects:
            claim(part, text)

    for mobject in scene.mobjects:
        claim(mobject, None)
    glyphs: dict[int, list[Shape]] = {}
    boxes, paths = [], []
    for order, leaf in enumerate(
        extract_mobject_family_members(
            scene.mobjects, use_z_index=True, only_those_with_points=True
        )
    ):
        (x0, y0, _), (x1, y1, _) = (
            leaf.points.min(axis=0).tolist(),
            leaf.points.max(axis=0).tolist(),
        )
        stroke = leaf.stroke_rgbas[0] if leaf.stroke_width > 0 else np.zeros(4)
        shape = Shape(leaf, x0, y0, x1, y1, order, leaf.fill_rgbas[0], stroke)
        if shape.opacity <= SEEN:
            continue
        if id(leaf) in owner:
            glyphs.setdefault(id(owner[id(leaf)]), []).append(shape)
        else:
            (boxes if isinstance(leaf, Rectangle | Circle) else paths).append(shape)
    by_id = {id(text): text for text in owner.values()}
    return [whole(by_id[i], parts) for i, parts in glyphs.items()], boxes, paths


def whole(text: Mobject, glyphs: list[Shape]) -> Shape:
    """A text's glyphs as one shape."""
    x0, y0 = (min(getattr(g, side) for g in glyphs) for side in ("x0", "y0"))
    x1, y1 = (max(getattr(g, side) for g in glyphs) for side in ("x1", "y1"))
    return Shape(text, x0, y0, x1, y1, glyphs[0].order, glyphs[0].fill, glyphs[0].stroke)


def bounds(shapes_: list[Shape]) -> np.ndarray:
    """Bounds as rows: left, bottom, right, top."""
    return np.array([(s.x0, s.y0, s.x1, s.y1) for s in shapes_]).reshape(-1, 4)


def overlaps(one: Shape, others: np.ndarray) -> np.ndarray:
    """How far each of these bounds reaches into the shape's; negative: how far they are apart."""
    x0, y0, x1, y1 = others.T
    return np.minimum(
        np.minimum(one.x1, x1) - np.maximum(one.x0, x0),
        np.minimum(one.y1, y1) - np.maximum(one.y0, y0),
    )


def of_texts(texts, boxes, paths, at_rest):
    """The rules for texts."""
    wide, high = config.frame_width / 2 - EDGE, config.frame_height / 2 - EDGE
    edges, text_edges, path_edges = bounds(boxes), bounds(texts), bounds(paths)
    for i, t in enumerate(texts):
        name, depths = t.mobject.text, overlaps(t, edges)
        near = [(boxes[j], depths[j]) for j in np.flatnonzero(depths > -OUTSIDE)]
        if t.x0 < -wide or t.x1 > wide or t.y0 < -high or t.y1 > high:
            yield "off the frame", name
        elif t.y0 < CAPTIONS:
            yield "in the captions' place", name
        under = max(
            (b.order for b, _ in near if b.order < t.order and b.fill[3] > SOLID and t.inside(b)),
            default=-1,
        )
        for b, depth in near:
            if b.order < under:
                continue
            if depth > 0.01 and b.order > t.order and b.fill[3] > SOLID:
                yield "covered by a box", name
            elif depth > 0.01 and not t.inside(b, INSIDE):
                yield "crosses a box's edge", name
            elif at_rest and depth <= 0.01:
                yield "too near a box", name
        if any(
            paths[j].order > under and crosses(paths[j].mobject, t)
            for j in np.flatnonzero(overlaps(t, path_edges) > -1e-6)
        ):
            yield "a line runs through it", name
        yield from of_colour(
            t, [b for b, _ in near if under <= b.order < t.order and t.inside(b)], at_rest
        )
        for j in np.flatnonzero(overlaps(t, text_edges[:i]) > -TEXT_GAP):
            yield "texts touch", " | ".join(sorted((name, texts[j].mobject.text)))


def of_colour(t: Shape, ground_boxes, at_rest: bool):
    """Gold, legibility and contrast of one text on what lies under it."""
    if golden(t.fill):
        yield "gold is text", t.mobject.text
    if not at_rest or t.opacity <= SOLID:
        return
    cap = getattr(t.mobject, "cap", None) or t.y1 - t.y0
    if cap < SMALLEST - 1e-3:
        yield "too small", t.mobject.text
    ground = np.array(GROUND.to_rgb())
    for b in ground_boxes:
        ground += b.fill[3] * (b.fill[:3] - ground)
    if contrast(hexadecimal(t.fill), hexadecimal(ground)) < (3.0 if cap >= LARGE else 4.5):
        yield "too little contrast", t.mobject.text


def of_shapes(shapes_):
    """The rules for everything that is not text."""
    for s in shapes_:
        if max(-s.x0, s.x1) > config.frame_width / 2 or max(-s.y0, s.y1) > config.frame_height / 2:
            yield "off the frame", type(s.mobject).__name__
        outlined = (
            close(s.stroke, OUTLINE_RGB)
            and s.mobject.stroke_width >= 1.5
            and s.stroke[3] >= s.fill[3] - 0.01
        )
        if (s.fill[3] > SEEN and golden(s.fill) and not outlined) or (
            s.stroke[3] > SEEN and golden(s.stroke)
        ):
            yield "gold without outline", type(s.mobject).__name__


def close(paint: np.ndarray, rgb: list[float]) -> bool:
    return (
        abs(paint[0] - rgb[0]) < 0.06
        and abs(paint[1] - rgb[1]) < 0.06
        and abs(paint[2] - rgb[2]) < 0.06
    )


def golden(paint: np.ndarray) -> bool:
    return close(paint, GOLD_RGB)


def hexadecimal(paint: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in paint[:3])


def crosses(path: VMobject, t: Shape) -> bool:
    """Whether a path runs through a text's bounds (its curves taken as straight between their
    ends).
    """
    for a, b in zip(path.get_start_anchors(), path.get_end_anchors()):
        low, high = 0.0, 1.0
        for start, step, lo, hi in (
            (a[0], b[0] - a[0], t.x0, t.x1),
            (a[1], b[1] - a[1], t.y0, t.y1),
        ):
            if abs(step) < 1e-9:
                if not lo < start < hi:
                    low = 2.0
            else:
                near, far = sorted(((lo - start) / step, (hi - start) / step))
                low, high = max(low, near), min(high, far)
        if low < high:
            return True
    return False

"""What pages draw from code: source that cannot drift, charts that follow the theme, a drawing
whose edges are real tests.
"""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import labkit
from labkit import palette, plotting

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_ink_is_readable_on_every_ground(theme):
    colours = palette.PALETTE[theme]
    for ink in ("ink", "muted", "accent", "good", "bad"):
        for ground in ("ground", "panel", "wash"):
            assert palette.contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for line in colours["series"]:  # lines and bars: WCAG asks 3:1 of what is not text
        assert min(palette.contrast(line, colours[g]) for g in ("ground", "panel")) >= 3
    gold_edge = max(
        palette.contrast(colours["outline"], colours["active"]),
        palette.contrast(colours["active"], colours["ground"]),
    )
    assert gold_edge >= 3


def test_a_listing_is_the_source_that_runs():
    shown = labkit.show(labkit.sampling.pick)
    assert "torch.multinomial" in shown.text and "labkit/sampling.py, line" in shown.where
    assert shown._repr_markdown_().startswith("```python\ndef pick(")
    assert '"""' not in labkit.show(labkit.sampling.pick, doc=False).text


def test_a_comparison_marks_what_differs_and_only_that():
    html = labkit.compare(labkit.decode.naive, labkit.decode.cached)._repr_html_()
    marked = re.sub(r"<[^>]+>", "", "\n".join(re.findall(r"<mark>(.*?)</mark>", html, re.S)))
    assert "done[r]" in marked and "return" not in marked and html.count("<figure>") == 2


def test_a_chart_has_a_text_and_follows_the_theme():
    chart = plotting.lines(
        [1, 2, 3], {"a": [1, 2, 3], "b": [3, 2, 1]}, alt="two lines cross", marks={"limit": 2}
    )
    html = chart._repr_html_()
    assert (
        'aria-label="two lines cross"' in html
        and "var(--lk-series0, #1A365D)" in html
        and "var(--lk-muted" in html
    )
    assert "<text" in html and "DejaVu" in html  # letters stay letters, with a fallback font
    assert (
        html
        == plotting.lines(
            [1, 2, 3], {"a": [1, 2, 3], "b": [3, 2, 1]}, alt="two lines cross", marks={"limit": 2}
        )._repr_html_()
    )
    assert (
        "var(--lk-active"
        in plotting.bars({"x": 1, "y": 2}, alt="bars", highlight="y")._repr_html_()
    )


def test_a_chart_is_drawn_for_a_phone_too():
    """Long names stand above the lines, and numbers under the axis keep apart."""
    x = [1000, 2000, 3000, 4000, 5000, 8000, 16000]
    chart = plotting.lines(x, {"a": x, "b, of a long name": x}, alt="two", log_x=True)
    assert chart._repr_html_().count("<svg") == 2 and "lk-narrow" in chart.svg(narrow=True)
    wide, narrow = chart.figure.axes[0], chart.narrow.axes[0]
    assert not chart.figure.legends and len(chart.narrow.legends) == 1
    for ax, shown in ((wide, 5), (narrow, 3)):
        ax.figure.draw_without_rendering()
        labels = [label for label in ax.get_xticklabels() if label.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        assert labels[-1].get_text() == "16,000" and len(labels) >= shown
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    bars = plotting.bars({"a name that does not fit beside its bar": 1}, alt="one")
    assert "\n" in bars.narrow.axes[0].get_yticklabels()[0].get_text()


def test_a_slim_drawing_lacks_nothing_that_it_points_to():
    """Every clip and marker that is used is defined; names of what nobody points to are gone."""
    chart = plotting.lines([1, 2, 3], {"a": [1, 2, 3], "b": [3, 2, 1]}, alt="two")
    for narrow in (False, True):
        svg = chart.svg(narrow)
        used = set(re.findall(r'url\(#(\w+)\)|href="#(\w+)"', svg))
        used = {one or other for one, other in used}
        assert len(used) > 2 and used == set(re.findall(r' id="(\w+)"', svg))
        assert svg.count("<g") == svg.count("</g>") and not re.search(r"\.\d{3}", svg)


@pytest.mark.parametrize("log", [False, True])
def test_names_at_line_ends_keep_apart(log):
    # 0 has no place on a log axis
    series = {"a": [1, 2, 5], "b": [3, 2, 5], "c": [4, 9, 5.01], "d": [9, 9, 0 if log else 1]}
    chart = plotting.lines([1, 2, 16], series, alt="", log_x=log, log_y=log)
    chart.figure.draw_without_rendering()
    names = [t for t in chart.figure.axes[0].texts if t.get_text() in series]
    heights = sorted(t.get_window_extent().y0 for t in names)
    assert len(names) == 4 and all(
        b - a >= names[0].get_window_extent().height * 0.9 for a, b in pairwise(heights)
    )
    assert not log or [t.get_text() for t in chart.figure.axes[0].get_xticklabels()] == [
        "1",
        "2",
        "16",
    ]


def test_each_drawn_edge_names_a_test_that_joins_its_two_ends():
    """The test exists, and in its source stand what the edge joins and exactly the caches the edge
    names.
    """
    sources = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                first = min(n.lineno for n in (node, *node.decorator_list))
                sources[node.name] = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    drawing = re.search(
        r"^```\{container\} proofs\n(.*?)^```",
        (ROOT / "book/chapters/02_kv_cache.md").read_text(),
        re.M | re.S,
    )[1]
    marks = {
        "transformers": r"theirs",
        "NumPy": r"reference|numpy",
        "loop": r"_loop|cached?=",
        "chunks": "chunks",
        "ragged": "schedule",
        "batch": "PROMPTS",
    }
    hub, edges = "", 0
    for line in filter(str.strip, drawing.splitlines()):
        if line.startswith("- "):
            hub = line
            continue
        words, name = re.fullmatch(r"  - (.*) `(test_\w+)`", line).groups()
        assert name in sources, name
        caches = set(re.findall(r"\b(static|paged|ring)\b", words))
        assert caches == set(re.findall(r'"(static|paged|ring)"', sources[name])), (
            f"{name} is about other caches than {words!r}"
        )
        for word, pattern in marks.items():
            assert word not in f"{hub} {words}" or re.search(pattern, sources[name]), (
                f"{name} has no {word}"
            )
        edges += 1
    assert edges >= 9

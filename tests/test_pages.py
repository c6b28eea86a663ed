"""What pages draw from code: source that cannot drift, charts that follow the theme, a chain whose edges are real tests."""
import re
from pathlib import Path

import pytest

import labkit
from labkit import palette, plotting

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_ink_is_readable_on_every_ground(theme):
    colours = palette.PALETTE[theme]
    for ink in ("ink", "muted", "accent", "good", "bad"):
        for ground in ("ground", "panel", "wash"):
            assert palette.contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for line in colours["series"]:  # lines and bars: WCAG asks 3:1 of what is not text
        assert min(palette.contrast(line, colours[g]) for g in ("ground", "panel")) >= 3
    gold_edge = max(palette.contrast(colours["outline"], colours["active"]), palette.contrast(colours["active"], colours["ground"]))
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
    chart = plotting.lines([1, 2, 3], {"a": [1, 2, 3], "b": [3, 2, 1]}, alt="two lines cross", marks={"limit": 2})
    html = chart._repr_html_()
    assert 'aria-label="two lines cross"' in html and "var(--lk-series0, #1A365D)" in html and "var(--lk-muted" in html
    assert "<text" in html and "DejaVu" in html  # letters stay letters, with a fallback font
    assert html == plotting.lines([1, 2, 3], {"a": [1, 2, 3], "b": [3, 2, 1]}, alt="two lines cross", marks={"limit": 2})._repr_html_()
    assert "var(--lk-active" in plotting.bars({"x": 1, "y": 2}, alt="bars", highlight="y")._repr_html_()


def test_the_chapters_chain_names_real_tests():
    chapter = (ROOT / "book/chapters/02_kv_cache.md").read_text()
    named = set(re.findall(r'"(test_\w+)"', chapter))
    defined = set(re.findall(r"def (test_\w+)", "".join(p.read_text() for p in (ROOT / "tests").glob("test_*.py"))))
    assert len(named) >= 7 and named <= defined
    assert "lk-chain" in plotting.chain([("a", ""), ("b", "test_x")])._repr_html_()

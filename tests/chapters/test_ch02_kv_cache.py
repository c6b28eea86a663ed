"""Chapter 02's clips show the numbers of what was recorded and measured, and follow it."""

import json
from itertools import pairwise

import pytest

from animations.scenes.ch02_kv_cache import KVCacheLoop
from animations.scenes.ch02b_online_softmax import OnlineSoftmax
from animations.stage.audit import inspect
from labkit import results
from labkit.trace import DecodeStep, Trace
from tests.cases import report


def stored(folder, prompt, new, multiple=7.25):
    """Traces and a measured row as the clip reads them, for any text."""
    text = [*prompt, *new]
    steps = {"cached": [], "naive": []}
    for i, token in enumerate(new):
        n = len(prompt) + i
        fresh = n if i == 0 else 1
        steps["cached"].append(DecodeStep(token, text[n - fresh : n], fresh, n, fresh, n))
        steps["naive"].append(DecodeStep(token, text[:n], n, n, 0, 0))
    for kind, each in steps.items():
        Trace("decode", "a test", {"prompt": prompt, "layers": 4}, each).save(
            folder / f"ch02/decode_{kind}.trace.json"
        )
    rows = [
        dict(variant=v, multiple=m, context=50, new=9, tokens_per_second=2.0 * m)
        for v, m in (("naive", 1.0), ("cached", multiple))
    ]
    results.save("ch02/baseline", rows, into=folder)


def test_the_cache_clip_shows_the_numbers_of_its_traces():
    cached, naive = (
        Trace.load(results.folder() / f"ch02/decode_{kind}.trace.json").steps
        for kind in ("cached", "naive")
    )
    multiple = results.row("ch02/baseline", variant="cached")["multiple"]
    seen, made = report(KVCacheLoop).texts, report(KVCacheLoop).scene
    assert {
        f"{sum(s.computed for s in cached):,}",
        f"{sum(s.computed for s in naive):,}",
        f"{multiple:.1f}×",
    } <= seen
    assert [b.value for b in made.score.bars] == [
        sum(s.computed for s in cached),
        sum(s.computed for s in naive),
    ]
    assert [len(row) - 1 for row in made.rows] == [s.computed for s in naive]
    assert len(made.keys.cells) == len(made.values.cells) == cached[-1].held
    assert [c.token for c in made.chips] == [
        *Trace.load(results.folder() / "ch02/decode_cached.trace.json").meta["prompt"],
        *(s.token for s in cached),
    ]


def test_the_cache_clip_follows_other_traces(tmp_path, monkeypatch):
    stored(tmp_path, ["Über", " antidisestablishment", "\n", " is"], [" a", " “word”", "#", "."])
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    other = inspect(KVCacheLoop)
    assert other.findings == []
    assert {
        "Über",
        "↵",
        "“word”",
        "#",
        "one of the model's 4 layers",
        "7",
        "22",
        "7.2×",
    } <= other.texts
    assert any(t.endswith("…") for t in other.texts)


def test_the_softmax_clip_shows_the_numbers_of_its_trace():
    seen, made = report(OnlineSoftmax).texts, report(OnlineSoftmax).scene
    visited = [s for s in made.run.steps if not s.skipped]
    assert {f"{x:.2f}".replace("-", "−") for s in visited for x in (*s.top, *s.total)} <= seen
    assert [b.value for b in made.score.bars] == [16, made.run.meta["score_matrix_floats"]]
    assert (
        f"× {min(s.change for a, s in pairwise(visited) if a.query_tile == s.query_tile):.2f}"
        in seen
    )
    longest = max(results.load("ch02/flash")["rows"], key=lambda r: r["context"])["context"]
    ours, theirs = (
        results.row("ch02/flash", kind=k, context=longest)["peak_bytes"]
        for k in ("fused", "written out")
    )
    assert {
        f"{theirs / ours:,.0f}×",
        f"{ours / 1e6:,.0f} MB at the peak instead of {theirs / 1e6:,.0f} MB",
    } <= seen


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d["meta"].update(prompt=["another"]), "same text"),
        (lambda d: d["meta"].update(prompt=["x"] * 12), "at most 14 tokens"),
    ],
)
def test_traces_that_cannot_be_shown_are_refused(change, message, tmp_path, monkeypatch):
    stored(tmp_path, ["a", " b"], [" c", " d", " e"])
    for kind in ("cached", "naive")[: 1 if "same" in message else 2]:
        path = tmp_path / f"ch02/decode_{kind}.trace.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=message):
        inspect(KVCacheLoop)

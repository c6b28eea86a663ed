"""Chapter 02's clips show the numbers of what was recorded and measured, and follow it; page,
player and clip show one recording; and what the page says breaks does break.
"""

import json
import re
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from animations.scenes.ch02_kv_cache import KVCacheLoop
from animations.scenes.ch02b_online_softmax import OnlineSoftmax
from animations.stage.audit import inspect
from labkit import formulas, presets, reference, results, traces
from labkit.trace import DecodeStep, Trace
from labkit_labs.ch02_kv_cache import breakages, flash
from tests.cases import quick_rows, report

PAGES = Path(__file__).parents[2] / "book" / "chapters"


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
    path = results.save("ch02/baseline", rows, into=folder)
    # a long name wherever this runs: on a machine of a shorter one no line would be too long
    document = json.loads(path.read_text())
    cpu = {"cpu": "Intel(R) Xeon(R) Processor", "cores": 2, "capability": "AVX512", "threads": 1}
    document["env"] |= cpu
    path.write_text(json.dumps(document))


def test_the_cache_clip_shows_the_numbers_of_its_traces():
    cached, naive = (traces.stored(f"ch02/decode_{kind}").steps for kind in ("cached", "naive"))
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
    assert [len(row) for row in made.rows] == [s.computed for s in naive]
    assert len(made.keys.cells) == len(made.values.cells) == cached[-1].held
    assert [c.token for c in made.chips] == [
        *traces.stored("ch02/decode_cached").meta["prompt"],
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
    numbers = {round(x, 2) + 0 for s in visited for x in (*s.top, *s.total)}  # -0.00 is 0.00
    assert {f"{x:.2f}".replace("-", "−") for x in numbers} <= seen
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
        f"{ours / 1e6:,.0f} MB at the peak",
        f"instead of {theirs / 1e6:,.0f} MB",
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


# -- one recording of the online softmax --------------------------------------------------


def same(a, b) -> bool:
    """Two plain values are equal, numbers up to the last digits of float64."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == pytest.approx(b, rel=1e-12) if isinstance(a, float) else a == b


def test_the_stored_online_softmax_is_what_the_code_does_today():
    stored = traces.stored("ch02/online_softmax")
    assert same(stored.to_dict(), flash.small_example().to_dict())


def test_the_page_computes_on_the_numbers_that_its_player_shows():
    """Its cell draws q, k, v itself: the same draw, and so the same statistics at the end."""
    (page,) = [p for p in PAGES.glob("02*.md") if "ch02/online_softmax" in p.read_text()]
    (draw,) = re.findall(
        r"^q, k, v = (np\.random\.default_rng.*?)(?: #.*)?$", page.read_text(), re.M
    )
    q, k, _ = eval(draw, {"np": np})
    stored = traces.stored("ch02/online_softmax")
    assert (*q.shape, stored.meta["tile"]) == (stored.meta["T"], stored.meta["E"], 4)
    scores = np.where(np.tri(len(q), dtype=bool), q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    last = [s for s in stored.steps if not s.skipped][-1]
    rows = scores[slice(*last.query_tile)]
    assert last.top == pytest.approx(rows.max(axis=1).tolist())
    assert last.total == pytest.approx(np.exp(rows - rows.max(axis=1)[:, None]).sum(1).tolist())
    assert any(s.change < 1 for s in stored.steps[1:] if s.key_tile[0])  # something to repair


@pytest.mark.smollm2
@pytest.mark.parametrize("id", ["CH02-CACHED"])
def test_memory_grows_by_the_cache_the_activations_and_little_else(id):
    """The lab looks in a process of its own, where no memory freed earlier could hide a copy."""
    for row in quick_rows(id):
        assert 0 < row["grown_bytes"] <= row["cache_bytes"] + row["activation_bytes"] + 64e6, row


# -- experiments that can fail, and their controls --------------------------------------------

PROMPT = list(b"the cat sat")


def hashes(kind, layer) -> int:
    """Into how many different hashes the prompt's keys of five steps fall."""
    model = kind(presets["tiny"])
    return len(set(reference.key_fingerprints(model, PROMPT, 5, layer)))


def test_keys_stay_the_same_because_of_the_mask():
    """Without it they change at every step, in every layer but the first, where no mask matters."""
    assert [hashes(reference.TinyGPT, layer) for layer in range(4)] == [1, 1, 1, 1]
    assert [hashes(breakages.Unmasked.Model, layer) for layer in range(4)] == [1, 5, 5, 5]


def test_a_deep_layer_is_hashed_unless_told_otherwise():
    model = reference.TinyGPT(presets["tiny"])
    last = reference.key_fingerprints(model, PROMPT, 1, layer=3)
    assert reference.key_fingerprints(model, PROMPT, 1) == last


def test_a_server_without_a_fault_passes_every_test():
    assert all(test(breakages.Server) for test in breakages.TESTS.values())
    assert breakages.symptom(breakages.Server) == "none: both texts are right"


TWIN, LEAK = "cached = naive", "shapes, twice the same, as alone"
SEEN = {  # the tests that fail, and words of the symptom
    breakages.Forgets: (f"shapes, {TWIN}", "from token 3"),
    breakages.TooFar: (TWIN, "from token 2"),
    breakages.StaleLearned: (TWIN, "from token 1"),
    breakages.StaleRope: ("no test here", "none"),
    breakages.StaleSlots: (TWIN, "from token 1"),
    breakages.StaleLong: (f"shapes, {TWIN}, twice the same, as alone", "refused"),
    breakages.Unmasked: (TWIN, "from token 1"),
    breakages.Corner: (TWIN, "from token 2"),
    breakages.Shared: (LEAK, "the second request"),
    breakages.PartialReset: (LEAK, "the second request"),
    breakages.PartialResetOfTheLast: ("shapes", "none"),
}


@pytest.mark.parametrize("fault", breakages.FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_has_its_symptom_and_is_seen_by_its_tests(fault):
    (row,) = breakages.bench([fault])
    seen, symptom = SEEN[fault]
    assert row["seen by"] == seen and symptom in row["symptom"], row


def test_a_common_offset_is_hidden_by_rope_to_the_last_digits():
    """Differences of positions are all that it knows; learned positions are another matter."""
    changes = {"rope": {}, "learned": {"position": "learned"}}
    moved = {}
    for name, change in changes.items():
        model = reference.TinyGPT(presets["tiny"].replace(**change))
        here, there = (model.forward(PROMPT, reference.Cache(4), start=at) for at in (0, 100))
        moved[name] = float(np.abs(here - there).max())
    assert moved["rope"] < 1e-4 < 0.1 < moved["learned"]


@pytest.mark.parametrize("layer,right", [(0, False), (1, False), (2, False), (3, True)])
def test_a_partial_reset_of_the_last_layer_looks_clean(layer, right):
    model = reference.TinyGPT(presets["tiny"])
    used, second = reference.Cache(4), list(b"a dog ran off")
    alone = model.forward(second, reference.Cache(4))[-1].argmax()
    model.forward(PROMPT, used)
    used.keys[layer] = used.values[layer] = None
    assert (model.forward(second, used)[-1].argmax() == alone) == right


def test_a_softmax_that_does_not_repair_its_sums_is_wrong():
    """The control of page 02b: as `absorb`, without the shrinking."""

    def unrepaired(state, scores, values):
        top, total, out = state
        top = np.maximum(top, scores.max(axis=1))
        p = np.exp(scores - top[:, None])
        return top, total + p.sum(axis=1), out + p @ values

    scores, values = np.array([[2.0], [3.0]]), np.array([[1.0], [0.0]])
    right = wrong = reference.nothing_yet(1, 1)
    for score, value in zip(scores, values):
        right = reference.absorb(right, score[None], value[None])
        wrong = unrepaired(wrong, score[None], value[None])
    want = np.exp([2, 3]) / np.exp([2, 3]).sum()
    assert right[2][0] / right[1] == pytest.approx(want[:1])
    assert wrong[2][0] / wrong[1] == pytest.approx([0.5])


# -- what the page writes out ----------------------------------------------------------------


@pytest.mark.parametrize("prompt,new", [(300, 128), (1, 5), (300, 1890)])
@pytest.mark.parametrize("cached", [False, True])
def test_the_pages_four_lines_are_the_formulas(prompt, new, cached):
    """Its cell: FLOPs per token fed, per pair, per step."""
    page = (PAGES / "02_kv_cache.md").read_text()
    (cell,) = re.findall(r"^```\{code-cell\} ipython3\n(L, D, .*?)^```", page, re.M | re.S)
    names = {"presets": presets, "formulas": formulas}
    exec(cell, names)
    want = formulas.loop_flops(presets["smollm2-135m"], prompt, new, cached)
    assert names["work"](prompt, new, cached) == want


def test_the_snippet_in_the_wild_warns_of_nothing():
    """With warnings as errors, on the transformers that is installed."""
    pytest.importorskip("transformers")
    import torch

    page = (PAGES / "02_kv_cache.md").read_text()
    (cell,) = re.findall(r"^:tags: \[needs-transformers\]\n(.*?)^```", page, re.M | re.S)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(cell, {"torch": torch})

"""Chapter 05: what its labs hide is hidden, rings break as the page says, recall is what is in
reach, and its clip shows what was recorded and measured.
"""

import json

import numpy as np
import pytest
import torch

import labkit
from animations.scenes.ch05_swa import WindowOverLayers
from animations.stage.audit import inspect
from animations.stage.style import NAVY
from labkit import formulas, presets, reference, results, traces
from labkit.tables import only
from labkit_labs.ch05_swa import breakages, learning, ratios, reach, rings, sinks
from labkit_labs.common import corpus, recall
from tests.cases import report

TINY = presets["tiny"]


def test_a_mask_around_the_mixers_is_a_window_inside_them():
    torch.manual_seed(0)
    full = labkit.GPT(TINY).eval()
    sliding = labkit.GPT(TINY.replace(layer_types=("sliding",) * 4, window=8)).eval()
    sliding.load_state_dict(full.state_dict())
    tokens = list(range(40))
    with sinks.seen_through(full, sinks.visible(40, 8, 0)):
        assert torch.allclose(
            corpus.losses(full, tokens), corpus.losses(sliding, tokens), atol=1e-5
        )
    with sinks.seen_through(full, sinks.visible(40, 8, 4)):
        kept = corpus.losses(full, tokens)
    assert not torch.allclose(kept[8:], corpus.losses(sliding, tokens)[8:], atol=1e-3)
    # and afterwards the model is itself again
    assert torch.allclose(kept[:7], corpus.losses(full, tokens)[:7], atol=1e-5)
    assert sinks.visible(6, 2, 1).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]


def shell_of(kind: str, layers: int, window: int | None = None):
    return recall.SHELL.replace(n_layers=layers, layer_types=(kind,) * layers, window=window)


def test_a_window_that_hides_nothing_trains_to_the_same_model():
    seen = learning.trained(shell_of("full", 2), 0, 3, 6e-3)
    wide = learning.trained(shell_of("sliding", 2, 500), 0, 3, 6e-3)
    small = learning.trained(shell_of("sliding", 2, 4), 0, 3, 6e-3)
    ours, same, other = (m.state_dict()["embed.weight"] for m in (seen, wide, small))
    assert (ours - other).abs().mean() > 30 * (ours - same).abs().mean()


def test_the_patterns_have_the_ratios_they_are_called_after():
    full = {name: types.count("full") for name, types in ratios.PATTERNS.items()}
    assert list(full.values()) == [6, 3, 1, 1, 0]
    assert {len(types) for types in ratios.PATTERNS.values()} == {6}
    # no full layer may stand below three sliding ones, or it is no longer 3 to 1
    assert ratios.PATTERNS["3 sliding : 1 full"][:4] == ("sliding",) * 3 + ("full",)


# -- rings ---------------------------------------------------------------------------------


def given(tokens: int):
    draw = np.random.default_rng(tokens).standard_normal
    q = draw((tokens, 4, 8))
    k, v = draw((2, tokens, 2, 8))
    return q, k, v, np.arange(tokens)


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("longest", [1, 2, 8])
def test_a_ring_needs_the_window_and_the_longest_step_less_one(window, longest):
    q, k, v, pos = given((window + 3) * longest + window)
    whole = reference.attention(q, k, v, pos, pos, window)
    chunks = [longest] * (window + 3) + [1] * window

    def right(slots: int) -> bool:
        with np.errstate(invalid="ignore"):
            return np.allclose(rings.fed(rings.Ring(slots, 2, 8), q, k, v, chunks, window), whole)

    needed = window + longest - 1
    assert right(needed) and right(needed + 1)
    assert needed == 1 or not right(needed - 1)


@pytest.mark.parametrize(("slots", "window"), [(4, 4), (6, 4), (9, 3)])
def test_a_ring_goes_back_by_what_it_has_to_spare(slots, window):
    q, k, v, pos = given(30)
    whole = reference.attention(q, k, v, pos, pos, window)

    def returns(back: int) -> bool:
        ring = rings.Ring(slots, 2, 8)
        rings.fed(ring, q, k, v, [1] * 30, window)
        out = [ring.attend(q[[p]], k[[p]], v[[p]], pos[[p]], window) for p in pos[-back:]]
        return np.allclose(np.concatenate(out), whole[-back:])

    assert returns(slots - window + 1) and not returns(slots - window + 2)


@pytest.mark.parametrize("types", [("sliding",) * 3, ("sliding", "full", "sliding")])
def test_the_numpy_model_with_windows_is_the_one_in_torch(types):
    torch.manual_seed(0)
    model = labkit.GPT(TINY.replace(n_layers=3, layer_types=types, window=4)).eval()
    ids = list(range(30))
    ours = rings.SlidingGPT.of(model).forward(ids)
    assert np.allclose(ours, labkit.logits(model, ids, [3] * 5 + [1] * 15, "ring"), atol=1e-4)
    other = reference.TinyGPT.of(model).forward(ids)  # which knows of no window
    assert not np.allclose(ours, other, atol=1e-2)


def test_an_unbroken_ring_passes_every_test():
    assert all(test(breakages.Layer) for test in breakages.TESTS.values())
    assert breakages.symptom(breakages.Layer) == "none"


@pytest.mark.parametrize(
    ("fault", "seen", "wrong"),
    [
        (breakages.TooSmall, "chunks = whole, chunks = oracle", 3),
        (breakages.TurnedBySlot, "one by one = whole, chunks = whole, chunks = oracle", 8),
        (breakages.NumberedBySlot, "one by one = whole, chunks = whole, chunks = oracle", 14),
        (breakages.AllOfTheRing, "one by one = whole, chunks = whole, chunks = oracle", 14),
        (breakages.OneMore, "chunks = whole, chunks = oracle", 14),
        (breakages.OneMoreInStep, "chunks = oracle", 16),
    ],
)
def test_each_fault_is_seen_by_the_tests_the_page_names(fault, seen, wrong):
    row = next(r for r in breakages.bench() if r["switch"] == fault.switch)
    assert row["seen by"] == seen
    assert row["symptom"].startswith(f"{wrong} of 20 tokens wrong")


@pytest.mark.parametrize("window", [0, -1, 2.5, None])
def test_a_window_that_is_none_is_refused_in_a_sentence(window):
    with pytest.raises(ValueError, match=r"needs a window of at least 1 token, not"):
        TINY.replace(layer_types=("sliding",) * 4, window=window)


# -- numbers that the page derives ---------------------------------------------------------


def test_what_lies_in_reach_is_counted_as_the_task_lays_it_out():
    draw = torch.Generator().manual_seed(0)
    for pairs, heard in ((4, 9), (16, 31), (32, 16)):
        step, asked, _ = recall.batch(pairs, 400, draw)
        ids, at = step.ids.view(400, -1), (asked % (3 * pairs)).view(400, -1)
        shown = ids[:, : 2 * pairs : 2]
        which = (ids.gather(1, at)[:, :, None] == shown[:, None]).int().argmax(2)
        counted = (at - 2 * which < heard).float().mean().item()
        assert counted == pytest.approx(rings.in_reach(pairs, heard), abs=0.02)


def test_recall_is_what_two_layers_hear_of_and_not_what_one_sees():
    row = only(results.load("ch08/quality")["rows"], variant="SWA")
    guessed = lambda pairs, heard: 1 / 32 + rings.in_reach(pairs, heard) * 31 / 32
    for pairs in (8, 16, 32, 64):
        assert row[f"recall_{pairs}"] == pytest.approx(guessed(pairs, 31), abs=0.05)
    for pairs in (8, 16, 32):
        assert row[f"recall_{pairs}"] > 1.4 * guessed(pairs, 16)


def test_one_full_layer_of_six_recalls_all_wherever_it_stands_and_windows_alone_do_not():
    """The page says so, and that both patterns with one hold the same bytes."""
    rows = {r["pattern"]: r for r in results.load("ch05/ratios")["rows"]}
    fourth, last, alone = (
        rows[name] for name in ("3 sliding : 1 full", "5 sliding : 1 full", "all sliding")
    )
    assert min(fourth["recall_min"], last["recall_min"]) > 0.99 and alone["recall_max"] < 0.1
    assert fourth["cache_bytes"] == last["cache_bytes"] and fourth["full_layers"] == 1


def test_a_small_window_with_its_sinks_reads_better_than_a_large_one_without():
    """The page says so, of 64 and 1,024."""
    large = [r for r in results.load("ch05/windows")["rows"] if r["what"] == "SmolLM2"]
    assert only(large, window=64, sinks=4)["lost"] < only(large, window=1024, sinks=0)["lost"]


def test_after_few_steps_a_window_recalls_what_one_layer_sees():
    """The page says so, of a window of 64."""
    row = only(results.load("ch05/windows")["rows"], what="recall", window=64)
    for pairs in (32, 64):
        seen, heard = (1 / 32 + rings.in_reach(pairs, n) * 31 / 32 for n in (64, 127))
        assert abs(row[f"recall_{pairs}"] - seen) < 0.03 < heard - row[f"recall_{pairs}"]


def test_more_steps_bring_a_window_from_what_it_sees_to_what_it_hears_of():
    """The page says so, of a window of 16 and 32 pairs."""
    few = only(results.load("ch05/windows")["rows"], what="recall", window=16)
    many = only(results.load("ch08/quality")["rows"], variant="SWA")
    seen, heard = (1 / 32 + rings.in_reach(32, n) * 31 / 32 for n in (16, 31))
    assert few["steps"] < many["steps"]
    assert abs(few["recall_32"] - seen) < 0.04 < heard - few["recall_32"]
    assert abs(many["recall_32"] - heard) < 0.02


def test_what_gpt_oss_holds_and_reserves():
    model = presets["gpt-oss-20b"]
    assert formulas.kv_cache_bytes(model, 8192, 32) == 2048 * 32 * (12 * 8192 + 12 * 128)
    assert formulas.kv_cache_reserved_bytes(model, 8192, 32) == 2048 * 32 * 24 * 8192


def test_gemmas_full_layers_outweigh_its_windows_from_the_ratio_times_the_window_on():
    at = 1024 * 52 / 10
    for context, more in ((int(at) - 10, "sliding"), (int(at) + 10, "full")):
        parts = formulas.cache_parts(presets["gemma3-27b"], context)
        assert max(parts, key=parts.get) == more


# -- the clip ------------------------------------------------------------------------------


def test_the_clip_shows_the_numbers_of_its_trace():
    trace = traces.stored("ch05/window_ring")
    seen, made = report(WindowOverLayers).texts, report(WindowOverLayers).scene
    meta, last, T = trace.meta, trace.steps[-1], len(trace.meta["words"])
    W, slots = meta["window"], meta["slots"]
    heard = [T - first for first in last.reach]
    # its last picture of the ring is the trace's last step
    assert [slot.word.text for slot in made.slots] == [meta["words"][p] for p in last.held]
    lost = sum(len(step.lost) for step in trace.steps)
    assert [tally.value for tally in made.tallies] == [T, lost, slots] == [24, 16, 8]
    # what the layers hand on is what the formula says, and what was recorded
    assert heard == [formulas.receptive_field(n, W) for n in (1, 2, 3)] == [6, 11, 16]
    assert {
        f"window of {W}",
        f"{W} + {meta['longest_step']} − 1 = {slots} slots",
        f"1 layer: {heard[0]} tokens",
        f"2 layers: 2 × ({W} − 1) + 1 = {heard[1]} tokens",
        f"3 layers: 3 × ({W} − 1) + 1 = {heard[2]} tokens",
        f"2 sliding layers, 1 full: {T} tokens",
        f"in the ring: {slots}",
        f"overwritten: {heard[2] - slots}",
    } <= seen
    said = {moment.name: moment.sentence for moment in made.moments}
    wrapped = next(s.fed[s.written.index(0)] for s in trace.steps if s.lost)
    assert said["full"].startswith(f"Token {wrapped + 1} ")
    for moment, n in zip(("one", "two", "three", "all"), (*heard, T)):
        assert f" {n}" in said[moment]


def test_the_clips_fans_are_the_windows_that_were_recorded():
    """A line for each token that a query looks at; every token is reached in the end."""
    trace, made = traces.stored("ch05/window_ring"), report(WindowOverLayers).scene
    seen = {step.fed[-1]: step.seen for step in trace.steps}
    T = len(trace.meta["words"])
    column = lambda x: next(i for i, c in enumerate(made.cells) if abs(c.get_x() - x) < 1e-6)
    drawn = [
        (column(fan[0].get_start()[0]), [column(line.get_end()[0]) for line in fan])
        for fan in made.fans
    ]
    assert drawn[:-1] == [(at, seen[at]) for at in (23, 23, 18, 23, 18, 13)]
    assert drawn[-1] == (T - 1, list(range(T)))
    assert all(cell.get_fill_color() == NAVY for cell in made.cells)


def test_the_clip_shows_the_bytes_and_times_of_its_rows():
    seen, made = report(WindowOverLayers).texts, report(WindowOverLayers).scene
    rows = results.load("ch05/ring")["rows"]
    longest = max(r["context"] for r in rows if r["what"] == "one layer")
    ring, full = (
        results.row("ch05/ring", kind=kind, context=longest, what="one layer")
        for kind in ("ring", "full")
    )
    assert [kept.value for kept in made.kept] == [ring["cache_bytes"], full["cache_bytes"]]
    lengths = [kept.bar.width for kept in made.kept]
    assert lengths[1] / lengths[0] == pytest.approx(full["cache_bytes"] / ring["cache_bytes"])
    assert made.context.value == longest
    assert {
        f"{longest:,}",
        f"{ring['cache_bytes'] / 1e6:.1f} MB",
        f"{full['cache_bytes'] / 1e6:.1f} MB",
        f"step: {ring['multiple']:.1f}× as long",
        f"step: {full['multiple']:.1f}× as long",
    } <= seen
    assert f" {full['multiple']:.1f} times" in made.moments[-1].sentence
    # a kind's first row is what its steps are compared with
    assert f"against a step at {ring['window']:,} tokens, measured on" in seen


def kept_elsewhere(folder, monkeypatch, text: str, window: int, chunks: list[int]):
    """Another recording, and rows of another machine, as the clip reads them."""
    words = text.split()
    monkeypatch.setattr(reach, "WORDS", words)
    monkeypatch.setattr(reach, "CHUNKS", chunks)
    shell = reach.SHELL.replace(vocab_size=99, max_context=99, window=window)
    monkeypatch.setattr(reach, "SHELL", shell)
    trace = reach.watched(("sliding",) * 3, "cpu")
    trace.save(folder / "ch05/window_ring.trace.json")
    results.save(
        "ch05/reach", [{"pattern": "1 full", "layers": 3, "heard": len(words)}], into=folder
    )
    rows = [
        {"what": "one layer", "kind": kind, "window": window, "context": 2000 * n}
        | {"cache_bytes": 10**6 * (n if kind == "full" else 1), "multiple": float(n)}
        for kind in ("ring", "full")
        for n in (1, 3)
    ]
    path = results.save("ch05/ring", rows, into=folder)
    # a long name wherever this runs: on a machine of a shorter one no line would be too long
    document = json.loads(path.read_text())
    cpu = {"cpu": "Intel(R) Xeon(R) Processor", "cores": 2, "capability": "AVX512", "threads": 1}
    document["env"] |= cpu
    path.write_text(json.dumps(document))
    monkeypatch.setattr(results, "folder", lambda: folder)
    return trace


def test_the_clip_follows_another_trace(tmp_path, monkeypatch):
    text = "Über jedem antidisestablishment “Wort” liegt # ein kleines Fenster . Es gleitet weiter"
    trace = kept_elsewhere(tmp_path, monkeypatch, text, 4, [2] * 3 + [1] * 7)
    other = inspect(WindowOverLayers)
    assert other.findings == []
    assert {
        "4 + 2 − 1 = 5 slots",
        "3 layers: 3 × (4 − 1) + 1 = 10 tokens",
        "overwritten: 5",
        "Über",
        "“Wort”",
        "3.0 MB",
        "Intel(R) Xeon(R) Processor, 2 cores, AVX512, 1 thread",
    } <= other.texts
    assert any(t.endswith("…") for t in other.texts)
    assert len(other.scene.cells) == len(trace.meta["words"]) == 13


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d["meta"].update(layers=["sliding"] * 2), "just 3 layers"),
        (lambda d: d["meta"].update(words=["x"] * 25), "at most 24 tokens"),
        (lambda d: d["meta"]["words"].pop(), "a full layer hears of all 23 tokens, not of 24"),
    ],
)
def test_a_trace_that_the_clip_cannot_show_is_refused(change, message, tmp_path, monkeypatch):
    kept_elsewhere(tmp_path, monkeypatch, reach.TEXT, 6, reach.CHUNKS)
    path = tmp_path / "ch05/window_ring.trace.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        inspect(WindowOverLayers)

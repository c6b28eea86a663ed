"""The players of an engine's traces: what they say, count and draw is what was recorded, counted
here by other code.
"""

import re
from collections import Counter
from dataclasses import replace
from itertools import accumulate

import pytest

from labkit import Engine, traces
from labkit.traces import Trace
from labkit.traces.schedule import ScheduleStep
from labkit.traces.speculation import SpeculationStep
from labkit.widgets import play, scene, views
from tests import engines

STORED = {
    "schedule": "ch09/schedule_continuous",
    "blocks": "ch10/blocks_prefix",
    "speculation": "ch12/speculation_lookup",
}


def stored(kind: str) -> Trace:
    return traces.stored(STORED[kind])


def shown(kind: str) -> scene.Scene:
    return views.scene(stored(kind))


def meter(view: scene.Scene, label: str) -> list:
    return next(m.values for m in view.meters if m.label == label)


def alive(view: scene.Scene, now: int, *looks: str) -> list[scene.Box]:
    """The boxes that are to be seen at a step."""
    there = ("past", "now")
    return [b for b in view.boxes if b.look in looks and scene.tense(b.step, b.until, now) in there]


def busy() -> Engine:
    """An engine that preempts, shares, copies, evicts and guesses, with its numbers after every
    step as `stats` has them.
    """
    engine = Engine(
        engines.model(), max_batch=3, n_blocks=11, block_size=4, speculative="ngram", drafts=3
    )
    engine.seen = []
    for i, (prompt, _) in enumerate(engines.prompts()[:6]):
        engine.add((prompt * 12)[: 8 + 4 * (i % 2)], 24, stop=())
    while engine.scheduler.running or engine.scheduler.waiting:
        engine.step()
        engine.seen.append(engine.stats)
    return engine


@pytest.mark.parametrize("kind", STORED)
def test_every_stored_trace_of_an_engine_has_a_player(kind):
    w = play(stored(kind))
    steps = stored(kind).steps
    assert len(w.says) == len(steps) and all(says[0] for says in w.says)
    assert all(len(m.values) == len(steps) for m in w.scenes[0].meters)
    # what was stored, read back and drawn is what a live trace draws
    assert traces.path_of(STORED[kind]).stat().st_size < 100_000
    assert "lk-grid" in w.still and len(w.still) < 60_000


@pytest.mark.parametrize("kind", STORED)
def test_a_live_trace_is_drawn_as_the_stored_one(kind, tmp_path):
    """JSON makes words of a request's number."""
    live = busy().trace(kind)
    assert views.scene(live) == views.scene(Trace.load(live.save(tmp_path / "a.trace.json")))


# -- what the stored ones show -----------------------------------------------------------


def test_the_stored_schedule_has_a_late_joiner_and_a_prompt_in_chunks():
    steps = stored("schedule").steps
    first = {}
    for k, step in enumerate(steps):
        for id in [row[1] for row in step.rows] + step.waiting:
            first.setdefault(id, k)
    late = {id for id, k in first.items() if k}
    assert late and all(any(row[1] not in late for row in steps[first[id]].rows) for id in late)
    says = [says for (says,) in play(stored("schedule")).says]
    assert {int(id) for s in says for id in re.findall(r"r(\d+) \*\*joins", s)} == late
    chunks = Counter(row[1] for s in steps for row in s.rows if row[2] == "prefill" and row[5] == 0)
    assert chunks and sum("not yet its last" in s for s in says) == sum(chunks.values())
    seats = Counter((row[0], row[1]) for s in steps for row in s.rows)
    assert max(Counter(seat for seat, _ in seats).values()) > 1, "a seat is filled again"


def test_the_stored_blocks_have_an_eviction_a_preemption_and_a_copy():
    steps = stored("blocks").steps
    says = [says for (says,) in play(stored("blocks")).says]
    for events, words in (
        ([s.evicted for s in steps], "**evicted**"),
        ([s.preempted for s in steps], "**preempted**"),
        ([s.copied for s in steps], "**copied**"),
    ):
        assert any(events), words
        assert [words in said for said in says] == [bool(e) for e in events]
    gone = next(k for k, s in enumerate(steps) if s.preempted)
    assert any("comes back and finds" in said for said in says[gone:])


def test_the_stored_guesses_have_refusals_and_a_bonus():
    steps = stored("speculation").steps
    outcomes = [n == len(drafts) for s in steps for _, drafts, n in s.checks]
    assert {True, False} == set(outcomes)
    says = [says for (says,) in play(stored("speculation")).says]
    assert sum("**bonus**" in said for said in says) == outcomes.count(True)
    assert sum("**refused**" in said for said in says) == outcomes.count(False)


# -- what is drawn is what was -----------------------------------------------------------


def test_the_schedules_picture_and_counters_are_the_engines():
    engine = busy()
    trace = engine.trace()
    view = views.scene(trace)
    new = [sum(len(tokens) for _, tokens in s.new) for s in engine.trace("speculation").steps]
    assert meter(view, "new tokens so far") == list(accumulate(new))
    assert meter(view, "requests waiting") == [s.waiting for s in engine.seen]
    running = meter(view, "seats taken")
    gone = [len(s.finished) for s in trace.steps]
    assert [a - b for a, b in zip(running, gone)] == [s.running for s in engine.seen]
    for k, step in enumerate(trace.steps):
        said = sum(int(n) for n in re.findall(r"(\d+) of 256 tokens", view.says[k]))
        assert said == sum(row[3] for row in step.rows) == meter(view, "tokens in this step")[k]
        short = views.scene(replace(trace, steps=[step]))
        drawn = {(b.x, b.text.split()[0]) for b in short.boxes if b.text and b.x < 3}
        assert drawn == {(seat, f"r{id}") for seat, id, *_ in step.rows}
    assert (
        sum("**set back**" in said for said in view.says)
        == len([s for s in trace.steps if s.preempted])
        > 0
    )


def test_the_blocks_picture_and_counters_are_the_engines():
    engine = busy()
    trace = engine.trace("blocks")
    view = views.scene(trace)
    seen = engine.seen
    assert meter(view, "blocks held") == [s.blocks_used for s in seen]
    assert meter(view, "tokens found so far") == [s.prefix_hit_tokens for s in seen]
    assert meter(view, "preempted so far") == [s.preemptions for s in seen]
    assert meter(view, "preempted so far")[-1] and meter(view, "evicted so far")[-1]
    across = 6  # 11 blocks are two rows of six
    for k, step in enumerate(trace.steps):
        memory = {
            (b.y // 2) * across + b.x + 1: b
            for b in alive(view, k, "held", "shared", "kept")
            if b.y in (1, 3)
        }
        holders = Counter(block for blocks in step.tables.values() for block in blocks)
        assert {n: b.look for n, b in memory.items()} == {
            **{n: "shared" if held > 1 else "held" for n, held in holders.items()},
            **{n: "kept" for n in step.kept},
        }
        for n in holders:
            names = {f"r{id}" for id, blocks in step.tables.items() if n in blocks}
            assert set(memory[n].text.split()) == names
        tables = {int(view.down[b.y][1:]): [] for b in alive(view, k, "held") if view.down[b.y]}
        for b in sorted(alive(view, k, "held"), key=lambda b: b.x):
            if view.down[b.y]:
                tables[int(view.down[b.y][1:])].append(int(b.text))
        assert tables == step.tables
        filled = {block: 0 for block in holders}
        for id, blocks in step.tables.items():
            for i, block in enumerate(blocks):
                here = len(range(4 * i, min(4 * i + 4, step.tokens[id])))
                filled[block] = max(filled[block], here)
        empty = sum(4 - n for n in filled.values())
        assert meter(view, "places held and empty")[k] == empty


def test_accepted_drafts_and_the_models_own_tokens_are_the_reply():
    engine = busy()
    trace = engine.trace("speculation")
    accepted = own = 0
    given = {}
    for step in trace.steps:
        checks = {id: (drafts, n) for id, drafts, n in step.checks}
        for id, new in step.new:
            drafts, n = checks.get(id, ([], 0))
            assert new[:n] == drafts[:n] and len(new) == n + 1
            accepted, own = accepted + n, own + 1
            given.setdefault(id, []).extend(new)
    assert given == {id: r.new for id, r in engine.requests.items()}
    view = views.scene(trace)
    assert meter(view, "tokens so far")[-1] == accepted + own
    assert meter(view, "drafts accepted so far")[-1] == accepted > 0
    assert meter(view, "drafts thrown away so far")[-1] > 0


def test_a_rounds_boxes_are_its_drafts_and_its_tokens():
    trace = stored("speculation")
    view = views.scene(trace)
    words = lambda tokens: [text_of(trace, t) for t in tokens]
    for k, step in enumerate(trace.steps):
        drafts = [d for _, ds, _ in step.checks for d in ds]
        n = sum(n for *_, n in step.checks)
        new = [t for _, tokens in step.new for t in tokens]
        left = [b for b in alive(view, k, "held", "lost", "kept") if b.x == 0]
        right = sorted((b for b in alive(view, k, "slot", "solid") if b.x == 1), key=lambda b: b.y)
        assert [b.text[2:] for b in left] == words(drafts)
        refused = ["lost"] + ["kept"] * (len(drafts) - n - 1) if n < len(drafts) else []
        assert [b.look for b in left] == ["held"] * n + refused
        assert [b.text.removeprefix("+ ") for b in right] == words(new)
        assert [b.look for b in right] == ["slot"] * n + ["solid"]
        assert right[-1].text.startswith("+ ") == (n == len(drafts) > 0)
    assert [word for word, _ in view.words] == words(trace.meta["reply"])


def text_of(trace: Trace, token: int) -> str:
    text = trace.meta["words"][str(token)].strip(" ")
    return text.replace("\n", "⏎") or "␣"


# -- other traces ------------------------------------------------------------------------


def test_a_long_schedule_is_drawn_thin_and_without_words():
    step = ScheduleStep(0.1, [[0, 0, "decode", 1, 9, 1]], [1], [], {})
    long = views.scene(Trace("schedule", "t", {"max_batch": 2, "token_budget": 8}, [step] * 60))
    assert long.row < 0.5 and not any(b.text for b in long.boxes)
    assert long.boxes and not any(long.down)


def test_many_drafts_and_requests_are_counted_not_drawn():
    checks = [[id, list(range(40)), 20] for id in range(5)]
    step = SpeculationStep(0.1, checks, [[id, [*range(20), 99]] for id in range(5)])
    view = views.scene(Trace("speculation", "t", {}, [step]))
    assert (view.columns, view.rows) == (6, 12)
    assert "5 requests check 200 drafts: **100** are accepted" in view.says[0]
    assert sum(b.text == "and 29 more" for b in view.boxes) == 3
    assert [b.text for b in view.boxes if b.look == "solid"] == ["99"] * 3


def test_a_reply_that_stops_within_its_drafts_and_a_prompt_without_a_token_are_told():
    stops = SpeculationStep(0.1, [[0, [5, 6, 7], 2]], [[0, [5, 6]]])
    reads = SpeculationStep(0.1, [], [])
    view = views.scene(Trace("speculation", "t", {}, [reads, stops]))
    assert "**no token** comes of it yet" in view.says[0]
    assert "the last ends the reply. One forward, 2 tokens." in view.says[1]
    assert [b.look for b in view.boxes] == ["held", "held", "kept", "slot", "slot"]


@pytest.mark.parametrize("kind", STORED)
def test_a_trace_of_a_later_schema_or_of_no_kind_is_refused_in_one_sentence(kind):
    old = stored(kind)
    for read in (Trace.from_dict, lambda d: Trace(d["kind"], "t", {}, [], d["schema"])):
        with pytest.raises(ValueError, match="reads traces of schema 1, not 2: update labkit"):
            read(old.to_dict() | {"schema": 2})
        with pytest.raises(ValueError, match="no trace is of kind 'dreams': choose attention"):
            read(old.to_dict() | {"kind": "dreams"})
    with pytest.raises(ValueError, match=f"the {kind} trace has no steps to play"):
        play(Trace(kind, "t", old.meta, []))

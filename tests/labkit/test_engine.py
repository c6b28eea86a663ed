"""The engine's promises one by one: events, errors that concern one request, prefix hits, copies,
preemption, seeds, batching foils.
"""

import json
import math
import random
from collections import deque
from types import SimpleNamespace

import pytest
import torch

import labkit
from labkit import Engine, QueueFull, Sampling
from labkit.engine.prefix import PrefixIndex
from labkit_labs.common import workload as serving
from tests import engines

TEXT = list(range(1, 33))


def make(**changes):
    return Engine(engines.model(), **dict(max_batch=4, n_blocks=40, block_size=4) | changes)


def finish(engine):
    """Run to the end, checking the blocks after each step; all events."""
    events = []
    while engine.scheduler.running or engine.scheduler.waiting:
        events += engine.step()
        engines.check(engine)
    return events


# -- one request at a time ---------------------------------------------------------------


def test_events_tell_a_request_s_story():
    engine = make()
    alone = engines.alone("full", tuple(TEXT))
    a, b = engine.add(TEXT, 3, stop=()), engine.add(TEXT, 24, stop=[alone[4]])
    events = finish(engine)
    assert [t for e in events if e.id == a for t in e.tokens] == alone[:3]
    assert [e.finished for e in events if e.id == a] == [None, None, "length"]
    last = [e for e in events if e.id == b][-1]
    assert last.finished == "stop" and last.tokens == [alone[4]] and last.message == ""
    assert engine.run() == {a: alone[:3], b: alone[: alone.index(alone[4]) + 1]}
    assert engine.step() == []
    stats = engine.stats
    assert stats.running == stats["waiting"] == stats.blocks_used == 0 and stats.blocks_total == 40
    assert set(stats.ttft) == {a, b} and stats.tpot[a] > 0 and set(stats.tpot) == {a, b}


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(max_batch=0), "max_batch must be a whole number >= 1, not 0"),
        (dict(block_size=2.5), "block_size must be"),
        (dict(n_blocks=-1), "n_blocks must be"),
        (dict(token_budget=0), "token_budget must be"),
        (dict(max_waiting=-1), "max_waiting must be a whole number >= 1, not -1"),
        (dict(speculative="magic"), "speculative must be None, 'ngram' or a Proposer"),
        (dict(speculative="ngram", drafts=0), "drafts must be a whole number >= 1, not 0"),
        (dict(speculative="ngram", drafts="many"), "drafts must be a whole number >= 1"),
        (dict(drafts=4), "drafts=4 needs somebody who makes them: set speculative"),
        (dict(cache_dtype="fp7"), "cache_dtype must be None or one of fp32"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([], 4), "the prompt is empty"),
        (([1, 64], 4), "token id 64 is outside the vocabulary"),
        (([1, -1], 4), "token id -1 is outside"),
        (([1], 0), "max_new_tokens must be a whole number >= 1, not 0"),
        (([1] * 90, 8), "exceed the model's context of 96"),
        (("text", 4), "a prompt must be a list of token ids .whole numbers., not 'text'"),
        (([1], 4, None, 2), "stop must be a list of token ids, or None, not 2"),
        (([1], 2.5), "max_new_tokens must be a whole number >= 1, not 2.5"),
        (([1], 4, 0.7), "sampling must be a labkit.Sampling"),
        (([1] * 30, 12), "30 prompt tokens . 12 new ones need 11 blocks, but there are 10"),
    ],
)
def test_a_bad_request_is_refused_and_the_others_go_on(arguments, message):
    engine = make(n_blocks=10)
    # needs exactly the 10 blocks: its last token is never written
    good = engine.add(TEXT, 8, stop=())
    engine.step()
    with pytest.raises(ValueError, match=message):
        engine.add(*arguments)
    assert engine.run() == {good: engines.alone("full", tuple(TEXT))[:8]}


def test_a_full_queue_and_an_unknown_id_are_said():
    engine = make(max_waiting=1, max_batch=1)
    first = engine.add(TEXT, 2)
    with pytest.raises(QueueFull, match="1 requests are waiting already"):
        engine.add(TEXT, 2)
    engine.step()
    second = engine.add(TEXT, 2)
    with pytest.raises(KeyError, match="no request has the id 7"):
        engine.cancel(7)
    assert set(engine.run()) == {first, second}
    engine.cancel(first)  # it has ended: nothing happens
    assert engine.step() == []


def test_cancelling_frees_blocks_at_once_and_touches_nobody_else():
    engine = make(max_batch=2, prefix_cache=False)
    ids = [engine.add(TEXT[i:], 9, stop=()) for i in range(3)]
    engine.step()
    used = engine.stats.blocks_used
    engine.cancel(ids[0])
    engine.cancel(ids[2])  # one that waits
    assert engine.stats.blocks_used < used and engine.stats.waiting == 0
    events = finish(engine)
    assert {e.id for e in events if e.finished == "cancelled"} == {ids[0], ids[2]}
    assert engine.run()[ids[1]] == engines.alone("full", tuple(TEXT[1:]))[:9]


def test_logits_that_are_not_finite_end_their_request_only(monkeypatch):
    engine = make()
    bad, good = engine.add([5, 6, 7], 9), engine.add(TEXT, 9, stop=())
    forward = engine.model.forward

    def broken(step, caches, last=None):
        logits = forward(step, caches, last)
        rows = step.token_rows[last]
        return torch.where(
            (rows == engine.requests[bad].row)[:, None] & (len(engine.requests[bad].new) == 2),
            math.nan,
            logits,
        )

    monkeypatch.setattr(engine.model, "forward", broken)
    events = finish(engine)
    assert [(e.finished, e.message) for e in events if e.id == bad][-1] == (
        "error",
        "the model's logits are not finite",
    )
    assert (
        len(engine.run()[bad]) == 2 and engine.run()[good] == engines.alone("full", tuple(TEXT))[:9]
    )


# -- steps, blocks, prefixes -------------------------------------------------------------


def test_one_budget_feeds_decodes_first_and_chunks_with_the_rest():
    engine = make(token_budget=10, prefix_cache=False)
    engine.add(TEXT[:8], 20, stop=())
    engine.step()
    engine.add(TEXT, 4, stop=())
    finish(engine)
    steps = [[(id, kind, fed) for _, id, kind, fed, _, _ in s.rows] for s in engine.trace().steps]
    assert steps[:6] == [
        [(0, "prefill", 8)],
        [(0, "decode", 1), (1, "prefill", 9)],
        [(0, "decode", 1), (1, "prefill", 9)],
        [(0, "decode", 1), (1, "prefill", 9)],
        [(0, "decode", 1), (1, "prefill", 5)],
        [(0, "decode", 1), (1, "decode", 1)],
    ]


def test_a_prefix_is_computed_once_and_a_whole_hit_copies_its_last_block():
    engine = make()
    engine.add(TEXT, 4, stop=())
    finish(engine)
    again, other = engine.add(TEXT, 4, stop=()), engine.add(TEXT[:30], 4, stop=())
    engine.step()
    fed = {id: n for _, id, _, n, _, _ in engine.trace().steps[-1].rows}
    assert fed == {again: 1, other: 2} and engine.stats.prefix_hit_tokens == 31 + 28
    copied = engine.trace("blocks").steps[-1].copied
    tables = engine.trace("blocks").steps[-1].tables
    assert copied == [(8, 9)] and tables[again][:7] == tables[other][:7] == [1, 2, 3, 4, 5, 6, 7]
    # what was written into the copy turned out to be the same text again: one is enough
    assert tables[again][7] == 8
    finish(engine)
    assert engine.run()[again] == engine.run()[0] == engines.alone("full", tuple(TEXT))[:4]


def test_a_colliding_hash_never_serves_another_text():
    index = PrefixIndex(2, hash=lambda key: 0)
    first = index.insert(None, [1, 2], 1)
    assert index.match([1, 2, 3, 4]) == [first] and index.match([1, 3]) == []
    assert index.insert(first, [3, 4], 2) is None  # the key is taken
    index = PrefixIndex(2, hash=lambda key: key[1])
    first = index.insert(None, [1, 2], 1)
    second = index.insert(first, [3, 4], 2)
    # same tokens, after another text
    assert index.match([1, 2, 3, 4]) == [first, second] and index.match([3, 4]) == []
    engine = make()
    engine.scheduler.index.hash = lambda key: len(key) % 2
    rnd = random.Random(0)
    chosen = rnd.sample(engines.prompts(), 12)
    ids = {engine.add(p, 9, stop=()): alone[:9] for p, alone in chosen}
    finish(engine)
    assert engine.run() == ids


def test_what_two_requests_begin_with_is_computed_once_even_if_they_come_together():
    engine, text = make(token_budget=64), TEXT[:13]
    ids = [engine.add([*text, i], 3, stop=()) for i in (1, 2, 3)]
    other = engine.add(TEXT[16:24], 3, stop=())
    finish(engine)
    first, second = (step.rows for step in engine.trace().steps[:2])
    # in order of arrival: `other` waits too
    assert [(id, n) for _, id, _, n, *_ in first] == [(ids[0], 14)]
    assert sorted((id, n) for _, id, kind, n, *_ in second if kind == "prefill") == [
        (ids[1], 2),
        (ids[2], 2),
        (other, 8),
    ]
    assert (
        engine.stats.prefix_hit_tokens == 2 * 12
        and [len(r) for r in engine.run().values()] == [3] * 4
    )


def test_the_least_recently_used_block_is_evicted_and_the_end_of_a_text_first():
    engine = make(n_blocks=12, max_batch=1)
    for prompt in (TEXT[:16], TEXT[16:]):
        engine.add(prompt, 1)
        finish(engine)
    engine.add([0] * 16, 4, stop=())  # needs 5 blocks; 4 are free
    finish(engine)
    index = engine.scheduler.index
    assert len(index.match(TEXT[:16])) == 3 and len(index.match(TEXT[16:])) == 4


def test_when_blocks_run_out_the_newest_waits_and_is_computed_again():
    engine = make(n_blocks=14, prefix_cache=False)
    chosen = [p for p in engines.prompts() if len(p[0]) in (8, 13)][:3]
    ids = {engine.add(p, 24, stop=()): alone for p, alone in chosen}
    events = finish(engine)
    assert engine.stats.preemptions > 0 and engine.run() == ids
    assert next(e.id for e in events if e.finished) == 0  # the oldest is never set back
    assert {id for s in engine.trace().steps for id in s.preempted} <= set(list(ids)[1:])


def test_a_trace_says_how_many_steps_it_dropped():
    engine = make()
    engine.log = deque(engine.log, maxlen=5)
    engine.add(TEXT, 8, stop=())
    finish(engine)
    for kind in ("schedule", "blocks", "speculation"):
        trace = engine.trace(kind)
        assert len(trace.steps) == 5 and trace.meta["dropped"] == 3
    assert make().trace().meta["dropped"] == 0
    with pytest.raises(ValueError, match="an engine keeps no trace of kind 'decode': choose sched"):
        engine.trace("decode")


def test_blocks_in_use_are_full():
    engine = make(n_blocks=200, max_batch=8, prefix_cache=False)
    for p, _ in engines.prompts():
        if len(p) >= 16:
            engine.add(p, 24, stop=())
    engine.step()
    written = sum(r.done for r in engine.scheduler.running)
    assert written / (engine.stats.blocks_used * 4) > 0.8


@pytest.mark.parametrize("dtype,held", [("bf16", torch.bfloat16), ("int8", torch.int8)])
def test_a_cache_in_another_dtype_is_read_and_written(dtype, held):
    engine, plain = make(cache_dtype=dtype), make()
    ids = {engine.add(p, 6, stop=()): alone[:6] for p, alone in engines.prompts()[:6]}
    finish(engine)
    assert engine.caches[0].buffers[0].dtype == held
    same = sum(x == y for id, alone in ids.items() for x, y in zip(engine.run()[id], alone))
    assert same >= 24  # of 36: rounded keys are close, not equal
    G, E = engine.model.config.n_kv_heads, engine.model.config.head_dim
    bytes_ = {"bf16": 2 * E, "int8": E + 4}[dtype]  # a head's vector; with its scale
    assert (
        engine.caches[0].allocated_bytes * 4 * E
        == plain.caches[0].allocated_bytes * bytes_
        == 41 * 4 * 2 * G * 4 * E * bytes_
    )


# -- sampling ----------------------------------------------------------------------------


def test_a_seed_gives_the_same_tokens_whatever_else_runs():
    hot = Sampling(temperature=1.0, top_p=0.9, seed=3)
    alone = labkit.generate(engines.model(), [TEXT], 12, sampling=hot, stop=())[0]
    right = SimpleNamespace(
        propose=lambda asked, caches: [
            alone[len(r.new) : len(r.new) + k] if r.id == 1 else [] for r, k in asked
        ]
    )
    for speculation in ({}, dict(speculative=right, drafts=3)):
        engine = make(n_blocks=20, token_budget=9, **speculation)
        engine.add(TEXT[:9], 12, Sampling(temperature=2.0))
        mine = engine.add(TEXT, 12, hot, stop=())
        engine.add(TEXT[2:], 12)
        assert engine.run()[mine] == alone
    assert sum(a for s in engine.trace("speculation").steps for _, _, a in s.checks) > 3


def test_requests_without_a_seed_follow_the_engine_s():
    def tokens(seed):
        engine = make(seed=seed)
        for _ in range(2):
            engine.add(TEXT, 10, Sampling(temperature=1.0), stop=())
        return engine.run()

    assert tokens(1) == tokens(1) != tokens(2)
    assert tokens(1)[0] != tokens(1)[1]


# -- the foils ---------------------------------------------------------------------------


def test_static_batching_is_right_and_padding_without_a_mask_is_wrong():
    work = [
        serving.Job(p, n) for (p, _), n in zip(engines.prompts()[:8], (3, 24, 5, 8, 3, 20, 4, 9))
    ]
    alone = [engines.alone("full", tuple(job.prompt))[: job.new] for job in work]
    assert (
        serving.static(engines.model(), work, 4)
        == serving.continuous(engines.model(), work, 4)
        == alone
    )
    wrong = serving.static(engines.model(), work, 4, padded=True)
    longest = max(range(4), key=lambda i: len(work[i].prompt))
    assert wrong[longest] == alone[longest]  # nothing was padded there
    assert sum(w != a for w, a in zip(wrong, alone)) >= 4


def test_the_workload_is_the_stored_one():
    work = serving.jobs()
    assert len(work) == 48 and all(job.prompt[:256] == work[0].prompt[:256] for job in work)
    assert all(20 <= len(job.prompt) - 256 <= 120 and 8 <= job.new <= 256 for job in work)
    assert 50 < sum(job.new for job in work) / 48 < 80


@pytest.mark.smollm2
def test_the_stored_workload_can_be_made_again(smollm2):
    assert serving.make_workload(smollm2[1]) == json.loads(serving.WORKLOAD.read_text())

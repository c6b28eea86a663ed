"""Whatever the schedule, a request gets its own tokens; and no block is lost or wrongly shared,
after every single step.
"""

import random

import pytest

from labkit import Engine
from labkit.speculative import DraftModel, NGram
from tests import engines

TRIALS = 70  # random schedules for each model


def random_engine(rnd, name, seed):
    size = rnd.choice([1, 2, 4, 8, 16])
    setup = dict(
        max_batch=rnd.choice([1, 2, 3, 6, 12]),
        n_blocks=-(-60 // size) + rnd.choice([0, 1, 5, 40, 120]) * 4 // size,
        block_size=size,
        token_budget=rnd.choice([1, 2, 5, 16, 64, 300]),
        prefix_cache=rnd.random() < 0.7,
    )
    proposer = rnd.choice(
        [None, None, NGram(), engines.Guess(name, seed), DraftModel(engines.model(name), 1)]
    )
    drafts = 3 if proposer else None
    return Engine(engines.model(name), **setup, speculative=proposer, drafts=drafts)


@pytest.mark.parametrize("name", engines.MODELS)
def test_any_schedule_gives_each_request_its_own_tokens(name):
    seen = dict.fromkeys(
        (
            "preempted",
            "hits",
            "copies",
            "drafts accepted",
            "drafts refused",
            "cancelled",
            "mixed steps",
            "chunks",
        ),
        0,
    )
    for seed in range(TRIALS):
        rnd = random.Random(seed)
        engine, wanted, got = random_engine(rnd, name, seed), {}, {}
        todo = rnd.choices(engines.prompts(name), k=rnd.randrange(1, 16))
        cancelled = set()
        while todo or engine.scheduler.running or engine.scheduler.waiting:
            while todo and (
                rnd.random() < 0.5 or not (engine.scheduler.running or engine.scheduler.waiting)
            ):
                prompt, alone = todo.pop()
                n = rnd.randrange(1, engines.NEW + 1)
                stop = tuple(rnd.sample(alone, 1)) if rnd.random() < 0.2 else ()
                cut = next((i + 1 for i, t in enumerate(alone[:n]) if t in stop), n)
                wanted[engine.add(prompt, n, stop=stop)] = (
                    alone[:cut],
                    "stop" if cut < n or alone[n - 1] in stop else "length",
                )
            if rnd.random() < 0.05:
                victim = rnd.choice(list(wanted))
                if not engine.requests[victim].finished:
                    cancelled.add(victim)
                engine.cancel(victim)
            engines.check(engine)
            for event in engine.step():
                tokens, _ = got.get(event.id, ([], None))
                assert got.get(event.id, (0, None))[1] is None, "an event after the end"
                got[event.id] = tokens + event.tokens, event.finished
            engines.check(engine)
        for id, (tokens, reason) in wanted.items():
            if id in cancelled:
                assert got[id][1] == "cancelled" and tokens[: len(got[id][0])] == got[id][0], (
                    seed,
                    id,
                )
            else:
                assert got[id] == (tokens, reason), (seed, id)
        assert engine.run() == {id: tokens for id, (tokens, _) in got.items()}
        assert engine.stats.blocks_used == 0 and engine.stats.running == engine.stats.waiting == 0
        seen["preempted"] += engine.stats.preemptions
        seen["hits"] += engine.stats.prefix_hit_tokens
        seen["cancelled"] += len(cancelled)
        seen["copies"] += sum(len(step.copied) for step in engine.trace("blocks").steps)
        for step in engine.trace("schedule").steps:
            kinds = [row[2] for row in step.rows]
            seen["mixed steps"] += len(set(kinds)) > 1
            seen["chunks"] += any(
                kind == "prefill" and out == 0 for _, _, kind, _, _, out in step.rows
            )
        for step in engine.trace("speculation").steps:
            seen["drafts accepted"] += sum(a for _, _, a in step.checks)
            seen["drafts refused"] += sum(len(d) - a for _, d, a in step.checks)
    # a state can't be cut or rewound
    never = {"hits", "copies", "drafts accepted", "drafts refused"} if name == "delta" else set()
    assert all(n > 20 if what not in never else n == 0 for what, n in seen.items()), (
        f"the schedules left something out: {seen}"
    )

"""The simulator takes the engine's own steps, fast, and tells what queueing does."""

import itertools
import random
import sys

import pytest

from labkit import Engine
from labkit.trace import ScheduleStep, Trace
from labkit_labs.common import simulator
from labkit_labs.common.simulator import (
    Arrival,
    CostModel,
    bursts,
    live,
    poisson,
    recorded,
    simulate,
)
from tests import engines

COST = CostModel(0.02, 0.001, 1e-6)  # about SmolLM2 on two cores
SETUP = dict(max_batch=16, n_blocks=700)


def test_the_simulator_takes_the_steps_of_the_engine():
    rnd = random.Random(0)
    arrivals = [
        Arrival(0.0, rnd.randint(1, 30), rnd.randint(1, 24), rnd.randrange(2), shared=12)
        for _ in range(30)
    ]
    setup = dict(max_batch=5, n_blocks=30, block_size=4, token_budget=24)
    engine, fed = Engine(engines.model(), **setup), []
    for i, a in enumerate(arrivals):
        engine.add(a.prompt(i, 64), a.new, stop=())
    engine.run()
    report = simulate(
        arrivals, lambda tokens, context: fed.append((tokens, context)) or 1.0, **setup
    )
    assert fed == [
        (sum(r[3] for r in s.rows), sum(r[4] for r in s.rows)) for s in engine.trace().steps
    ]
    assert (
        report.preemptions == engine.stats.preemptions > 0
        and report.hit_tokens == engine.stats.prefix_hit_tokens > 100
    )
    assert report.tokens == sum(a.new for a in arrivals) and report.steps == report.seconds == len(
        fed
    )


def test_the_work_of_a_request_does_not_grow_with_their_number():
    """Counted in calls, not in seconds; CH09-TRAFFIC stores what a hundred thousand take."""

    def calls(n: int) -> int:
        made = itertools.count()
        sys.setprofile(lambda *_: next(made))
        try:
            report = simulate(poisson(8, n), COST, max_batch=48, n_blocks=2000)
        finally:
            sys.setprofile(None)
        assert len(report.ttft) == n
        return next(made)

    assert calls(800) < 1.2 * 4 * calls(200)


def test_what_batching_traffic_and_prefixes_do():
    run = lambda arrivals, **more: simulate(arrivals, COST, **SETUP | more)
    calm, busy = run(poisson(1, 400)), run(poisson(9, 400))
    assert (
        busy.row()["ttft_p99"] > 3 * calm.row()["ttft_p99"]
        and busy.tokens / busy.seconds > 3 * calm.tokens / calm.seconds
    )
    assert run(bursts(3, 400, 40)).row()["ttft_p50"] > 2 * run(poisson(3, 400)).row()["ttft_p50"]
    at_once = poisson(1e6, 200)
    continuous, static = run(at_once), run(at_once, static=True)
    assert static.tokens == continuous.tokens and static.seconds > 1.3 * continuous.seconds
    assert (
        run(at_once, prefix_cache=False).seconds > 1.3 * continuous.seconds
        and continuous.hit_tokens == 256 * 199
    )
    assert calm.goodput(2.0, 0.2) > 0.9 * 400 / calm.seconds > 10 * busy.goodput(0.05, 0.2)
    assert run(recorded([(0, 10, 5), (3, 20, 5)])).ttft == pytest.approx(
        [COST(10, 10), COST(20, 20)]
    )


def test_costs_are_fitted_to_measured_steps():
    rnd, steps = random.Random(0), []
    for _ in range(200):
        rows = [
            [i, i, "decode", rnd.choice([1, 1, 1, 60]), rnd.randint(100, 500), 1]
            for i in range(rnd.randint(1, 48))
        ]
        steps.append(
            ScheduleStep(
                COST(sum(r[3] for r in rows), sum(r[4] for r in rows)) * rnd.uniform(0.97, 1.03),
                rows,
                [],
                [],
                {},
            )
        )
    fitted = CostModel.fit(Trace("schedule", "", {}, steps))
    assert fitted.base == pytest.approx(COST.base, rel=0.05) and fitted.per_token == pytest.approx(
        COST.per_token, rel=0.05
    )
    falling = [ScheduleStep(1 / sum(r[4] for r in s.rows), s.rows, [], [], {}) for s in steps]
    # no step may earn time
    assert min(vars(CostModel.fit(Trace("schedule", "", {}, falling))).values()) >= 0


def test_a_hundred_users_on_a_real_engine():
    engine = Engine(engines.model(), max_batch=16, n_blocks=400, block_size=4)
    arrivals = poisson(300, 100, draw=lambda rnd: (rnd.randint(1, 20), rnd.randint(1, 12)))
    arrivals = [Arrival(a.at, a.own, a.new, a.group, shared=16) for a in arrivals]
    report = live(engine, arrivals)
    assert len(report.ttft) == 100 and min(report.ttft) > 0 and report.seconds > arrivals[-1].at
    assert report.tokens == sum(len(t) for t in engine.run().values()) and report.hit_tokens > 0


def test_a_request_that_fits_nowhere_is_refused():
    with pytest.raises(
        ValueError, match="the longest request has 300 tokens; 10 blocks of 16 hold 160"
    ):
        simulate([Arrival(0, 20, 24)], COST, max_batch=2, n_blocks=10)
    assert simulator.system(0, 4, 64) == simulator.system(0, 4, 64) != simulator.system(1, 4, 64)

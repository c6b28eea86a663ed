"""The labs of chapter 09: what they build on is right, and each checkpoint stops at a result that
should stop it.
"""

import functools

import pytest
import torch

import labkit
from labkit import results
from labkit.tables import only
from labkit.trace import Trace
from labkit_labs.ch09_batching import invariance as lab_09_invariance
from labkit_labs.ch09_batching import static as lab_09_static
from labkit_labs.ch09_batching import traffic as lab_09_traffic
from labkit_labs.common import simulator
from labkit_labs.common import workload as serving
from tests import engines

COST = simulator.CostModel(0.02, 0.001, 1e-6)  # about SmolLM2 on two cores


@functools.cache
def compared() -> list[dict]:
    return lab_09_traffic.comparisons(COST, 200)


def of(what: str, **where) -> list[dict]:
    return [r for r in compared() if r["what"] == what and all(r[k] == v for k, v in where.items())]


# -- static and continuous ---------------------------------------------------------------


def test_requests_are_the_workloads_own_without_what_they_share():
    work, whole = lab_09_static.requests(24, 3), serving.jobs()[::2]
    assert [job.prompt for job in work] == [job.prompt[256:] for job in whole]
    assert len({tuple(job.prompt[:256]) for job in whole}) == 1 and [job.new for job in work] == [
        max(2, job.new // 3) for job in whole
    ]


def test_the_numbers_of_forwards_follow_from_the_replies_and_so_does_the_notice():
    rows = results.load("ch09/static")["rows"]
    static, continuous = (only(rows, variant=v, dtype="fp32") for v in ("static", "continuous"))
    slots = static["slots"]
    work = lab_09_static.requests(static["requests"], 3)
    tokens = sum(job.new for job in work)
    batches = [work[i : i + slots] for i in range(0, len(work), slots)]
    steps = simulator.simulate(
        [simulator.Arrival(0.0, len(job.prompt), job.new, shared=0) for job in work],
        COST,
        max_batch=slots,
        n_blocks=800,
        token_budget=512,
        prefix_cache=False,
    ).steps
    counted = {"static": sum(max(job.new for job in b) for b in batches), "continuous": steps}
    said = lab_09_static.LAB.noticed(rows)
    for row in (static, continuous):
        forwards = counted[row["variant"]]
        useful = tokens / slots / forwards
        assert row["forwards"] == forwards and row["useful"] == pytest.approx(useful)
        assert f"{useful:.0%}" in said and f"in {forwards}" in said
    assert steps / counted["static"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.smollm2
def test_the_short_schedule_shows_chunks_and_slots_that_are_filled_again(tmp_path):
    trace = lab_09_static.short_schedule(labkit.weights.smollm2()[0])
    path = trace.save(tmp_path / "a.trace.json")
    steps = Trace.load(path).steps
    rows = [row for step in steps for row in step.rows]
    assert (
        path.stat().st_size < 80_000
        and sum(len(step.finished) for step in steps) == 7 > len({row for row, *_ in rows}) == 4
    )
    # one enters while others run
    assert any(
        {kind for _, _, kind, *_ in step.rows} == {"prefill", "decode"} for step in steps[4:]
    )
    assert any(kind == "prefill" and made == 0 for _, _, kind, _, _, made in rows)


# -- traffic -----------------------------------------------------------------------------


def test_more_slots_carry_more_and_cost_time_per_token():
    full = {seats: of("frontier", max_batch=seats)[-1] for seats in lab_09_traffic.SEATS}
    assert (
        full[1]["tokens_per_second"] < full[8]["tokens_per_second"] < full[48]["tokens_per_second"]
    )
    assert full[1]["tpot_p50"] < full[8]["tpot_p50"] < full[48]["tpot_p50"]


@pytest.mark.parametrize("seats", lab_09_traffic.SEATS)
def test_waits_grow_with_the_load(seats):
    waits = [r["ttft_p99"] for r in of("frontier", max_batch=seats)]
    assert waits[0] < waits[-1] and len(waits) == len(lab_09_traffic.LOADS)


def test_arrivals_differ_in_their_times_and_in_nothing_else():
    even, poisson, bursts = of("arrivals")
    assert (
        even["requests"] == poisson["requests"] == bursts["requests"]
        and even["rate"] == bursts["rate"]
    )
    assert even["ttft_p99"] < poisson["ttft_p99"] < bursts["ttft_p99"]
    assert lab_09_traffic.replay([(1, 2)])(None) == (1, 2)


def test_small_chunks_shorten_the_longest_step_and_large_ones_the_wait():
    small, middle, large = of("chunks")
    assert small["longest_step"] < middle["longest_step"] < large["longest_step"]
    assert small["tpot_p99"] < large["tpot_p99"]


def test_static_batches_make_users_wait():
    continuous, static = of("batches")
    assert static["ttft_p50"] > 2 * continuous["ttft_p50"]


def test_a_hundred_thousand_requests_were_simulated_in_less_than_a_minute():
    row = results.row("ch09/traffic", what="long")
    assert row["requests"] == 100_000 and row["simulated_in"] < 60


# -- batch invariance --------------------------------------------------------------------


def test_a_reply_counts_up_to_its_first_other_token():
    logits = torch.zeros(4, 2, 3)
    before, after = logits[:, 0].clone(), logits.clone()
    # the last one comes after another past: it says nothing
    after[1, 0, 2], after[3, 0, 2] = 0.5, 9.0
    found = lab_09_invariance.compare(
        [([1, 1, 1, 1], before), ([2, 2, 2, 2], before)], [[1, 1, 0, 1], [2, 2, 2, 2]], after
    )
    assert found == {"gap": 0.5, "same_tokens": 0.75, "same_replies": 0.5}


def test_logits_are_those_behind_the_tokens():
    model, prompts = engines.model(), [p for p, _ in engines.prompts()[:3]]
    replies, logits = lab_09_invariance.decode(model, prompts, 5)
    assert (
        logits.shape == (5, 3, 64)
        and [[int(step[r].argmax()) for step in logits] for r in range(3)] == replies
    )


def test_a_small_model_keeps_its_tokens_in_every_way_of_serving():
    model = engines.model()
    work = [serving.Job(p, 2 + i) for i, (p, _) in enumerate(engines.prompts()[:7])]
    alone = serving.one_by_one(model, work)
    assert (
        serving.static(model, work, 3)
        == serving.continuous(model, work, 3)
        == alone
        != serving.static(model, work, 3, padded=True)
    )

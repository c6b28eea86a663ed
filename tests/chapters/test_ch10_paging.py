"""Paging, prefixes, preemption and drills: what the labs of chapter 10 count is right, and their
checkpoints can stop.
"""

import functools

import pytest

import labkit
from labkit import Engine, formulas, presets
from labkit.trace import Trace
from labkit_labs.ch10_paging import bills as prices
from labkit_labs.ch10_paging import incidents as drills
from labkit_labs.ch10_paging import pages as lab_10_pages
from labkit_labs.ch10_paging import paging as pages
from labkit_labs.ch10_paging import preempt as lab_10_preempt
from labkit_labs.ch10_paging import prefix as lab_10_prefix
from labkit_labs.common import workload as serving
from labkit_labs.common.workload import Job
from tests import engines
from tests.cases import quick_rows

# -- pages -------------------------------------------------------------------------------


def test_blocks_hold_each_token_once_and_waste_less_than_one_block_a_request():
    work = [Job(list(range(n)), new) for n, new in ((5, 3), (9, 6), (16, 1), (2, 12))]
    most = 0
    for room, held, running in pages.occupancy(work, 3, 4):
        assert running <= 3 and room % 4 == 0 and 0 <= room - held < 4 * running
        most = max(most, held)
    assert most > 9 + 16 and all(room == held for room, held, _ in pages.occupancy(work, 3, 1))


def test_a_shared_beginning_is_counted_once():
    last = lambda first, prefix: list(
        pages.occupancy(
            [Job([*range(32), i], new) for i, new in ((50, first), (51, 4), (52, 4))], 3, 4, prefix
        )
    )[-1]
    assert last(4, False) == (3 * 36, 3 * 36, 3)
    # the others wait a step for the first one's beginning
    assert last(5, True) == (40 + 4 + 4, 37 + 4 + 4, 3)


def test_the_engine_holds_what_occupancy_counts():
    work = [Job(prompt, 6) for prompt, _ in engines.prompts()[:6]]
    longest = max(len(job.prompt) + job.new for job in work)
    engine = Engine(
        engines.model(),
        max_batch=4,
        n_blocks=4 * -(-longest // 4),
        block_size=4,
        token_budget=512,
        prefix_cache=False,
    )
    for job in work:
        engine.add(job.prompt, job.new, stop=())
    engine.run()
    running = [len(s.rows) for s in engine.trace().steps]
    assert running == [rows for *_, rows in pages.occupancy(work, 4, 4)]


def test_the_stored_workload_fills_blocks_of_16_to_98_per_cent():
    rows = {r["way"]: r for r in lab_10_pages.memory(serving.jobs(), presets["smollm2-135m"])}
    assert (
        0.97
        < rows["blocks of 16"]["in_use"]
        < rows["blocks of 4"]["in_use"]
        < rows["blocks of 1"]["in_use"]
        == 1
    )
    assert rows["a row each, 8,192 tokens"]["reserved_bytes"] == 16 * formulas.kv_cache_bytes(
        presets["smollm2-135m"], 8192, 1, "fp32"
    )
    assert rows["a row each, 8,192 tokens"]["in_use"] < 0.05 < 0.5 * rows["blocks of 256"]["in_use"]


def test_engine_and_static_cache_time_the_same_tokens():
    model, prompts = engines.model(), [prompt for prompt, _ in engines.prompts()[:4]]
    times = pages.time_engine(model, prompts, 6)
    assert times.tokens == labkit.generate(model, prompts, 6, stop=()) and len(times.each) == 5


@pytest.mark.smollm2
def test_the_recorded_blocks_show_sharing_a_copy_an_eviction_and_a_preemption(tmp_path):
    trace = lab_10_pages.shared_blocks(*labkit.weights.smollm2())
    path = trace.save(tmp_path / "a.trace.json")
    steps = Trace.load(path).steps
    assert path.stat().st_size < 20_000
    assert (
        sum(len(s.copied) for s in steps) == 1
        and sum(len(s.evicted) for s in steps) == 1
        and [s.preempted for s in steps if s.preempted] == [[3]]
        # of its own prompt, after a step of the wait, the preempted request finds all that is full
        and steps[-1].hit_tokens == 7 + 8 + 12
        and steps[-1].kept
    )
    ((copied, own),) = next(s.copied for s in steps if s.copied)
    tables = next(s.tables for s in steps if s.copied)
    # full and equal again, the copy was given up for the original
    assert tables["0"][:2] == tables["1"] and tables["1"][1] == copied != own


# -- prefixes ----------------------------------------------------------------------------


def test_what_was_read_before_is_not_computed_again():
    engine = pages.one_row(engines.model(), 40)
    first, second = list(range(32)), [*range(16), *range(40, 56)]
    assert pages.read(engine, [first])[:2] == (32, 0)
    computed, found, seconds = pages.read(engine, [first, second])
    assert (computed, found) == (1 + 16, 31 + 16) and len(seconds) == 2
    assert pages.read(pages.one_row(engines.model(), 40, prefix=False), [first, first])[:2] == (
        64,
        0,
    )


def test_the_orders_of_a_prompt_hold_the_same_tokens():
    words = list(range(100, 300))
    tokenizer = type(
        "Digits", (), {"encode": staticmethod(lambda text: [ord(c) % 50 for c in text])}
    )
    asked = lab_10_prefix.orders(tokenizer, words, 64, 3)
    assert all(
        sorted(asked["head"][i]) == sorted(asked["middle"][i]) == sorted(asked["end"][i])
        for i in range(3)
    )
    assert [p[:64] == words[:64] for p in asked["end"]] == [True] * 3 and len(
        {tuple(p[:18]) for p in asked["head"]}
    ) == 3


def test_an_input_bill_is_that_of_its_parts():
    price = {"input": 2.0, "cached_read": 0.2, "cache_write": 2.5}
    assert prices.input_share(100, 0, price) == 1.25 and prices.input_share(
        0, 100, price
    ) == pytest.approx(0.1)
    assert prices.input_share(50, 50, price) == pytest.approx((50 * 2.5 + 50 * 0.2) / 200)


@pytest.mark.parametrize("name", prices.published())
def test_a_price_list_is_dated_and_reading_is_cheaper_than_computing(name):
    price = prices.published()[name]
    assert (
        price["date"]
        and price["cached_read"] < price["input"] <= price["cache_write"] < price["output"]
    )


# -- preemption --------------------------------------------------------------------------


def test_swapping_gives_back_what_it_took():
    model = engines.model()
    swap, moved = pages.swapper(model, 20)
    swap()
    # 20 tokens lie in two blocks of 16
    assert moved == 2 * formulas.kv_cache_bytes(model.config, 32, 1, "fp32")


def test_a_pool_of_what_is_asked_for_is_enough_and_a_third_of_it_is_not():
    enough, *_, least = lab_10_preempt.pools(serving.jobs(), lambda tokens, context: 1.0 + tokens)
    assert (
        enough["preemptions"] == enough["recomputed"] == 0 < least["preemptions"]
        and least["recomputed"] > 1000
    )
    assert (
        enough["multiple"] == 1 > least["multiple"]
        and least["tokens_per_second"] < enough["tokens_per_second"]
    )


def test_recomputing_and_swapping_meet_at_the_link_that_moves_the_bytes_in_that_time():
    row = lab_10_preempt.by_formula("llama3-8b", "H100", 2048)
    assert row["moved_bytes"] == 2 * 2048 * 131072 and row["even_at"] * row[
        "recompute"
    ] == pytest.approx(row["moved_bytes"])


# -- drills ------------------------------------------------------------------------------

SETUP = {"max_batch": 4, "n_blocks": 100, "block_size": 4, "token_budget": 16}


@functools.cache
def played() -> dict[str, dict]:
    """Every drill on a small model."""
    work = [Job([*range(24), i, i + 1, i + 2], 10) for i in range(30, 36)]
    these = drills.drills(
        work, Job(list(range(63, 3, -1)), 10), lambda i: [60 - i, i], SETUP, 26, 64
    )
    return {drill.name: drills.play(engines.model(), drill) for drill in these}


@pytest.mark.parametrize(
    "cause",
    ["healthy", "prefix not found", "pool too small", "prefill not chunked", "drafts refused"],
)
def test_each_fault_is_found_from_counts_alone(cause):
    row = next(r for r in played().values() if r["cause"] == cause)
    counts = {
        key: value for key, value in row.items() if key not in (*drills.TIMES, "run", "cause")
    }
    assert drills.symptoms(counts, played()["healthy"]) == cause


def test_a_fault_changes_no_token_and_leaves_its_count():
    rows = played()
    assert len({r["tokens"] for r in rows.values()}) == 1 and rows["healthy"]["tokens"] == 7 * 10
    assert (
        rows["healthy"]["drafts"] == rows["healthy"]["preemptions"] == 0
        and rows["healthy"]["longest_step"] == 16
    )
    assert rows["26 blocks"]["blocks_used"] <= rows["26 blocks"]["blocks_total"] == 26
    assert rows["60 tokens in one step"]["longest_step"] > 60
    stubborn = rows["wrong drafts, never switched off"]
    guarded = rows["wrong drafts, switched off by the engine"]
    assert (
        guarded["drafts"] <= stubborn["drafts"] and stubborn["accepted"] < 0.1 * stubborn["drafts"]
    )


@pytest.mark.smollm2
def test_the_labs_drills_are_found_on_the_real_model():
    rows = quick_rows("CH10-DRILLS")
    assert {r["cause"]: r["found"] for r in rows if r["cause"]} == {
        r["cause"]: r["cause"] for r in rows if r["cause"]
    }
    assert len({r["cause"] for r in rows if r["cause"]}) == 5

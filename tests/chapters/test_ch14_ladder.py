"""The ladder's driver: every rung serves the same work, and a row says what it is worth."""

from itertools import pairwise

import pytest

from labkit_labs.ch14_ladder import ladder, rungs
from labkit_labs.common.workload import Job
from tests import engines

DTYPES = ("fp32", "fp16", "int8", "w8a8")


@pytest.fixture(scope="module")
def climbed() -> dict[str, list[dict]]:
    """Both ladders on a small model, which stands for all of its precisions."""
    model = engines.model()
    work = [Job(prompt[:8], 4) for prompt, _ in engines.prompts()[:5]]
    models = dict.fromkeys(DTYPES, model)
    qualities = {dtype: {"perplexity_course": 2.0} for dtype in DTYPES}
    ladders = {
        "throughput": ladder.rungs_of(model, models, slots=3, sample=2),
        "one user": ladder.rungs_of_one(model, models, timings=1),
    }
    return {
        name: rungs.climb(model, name, work, these, qualities=qualities, points=2, repeats=1)
        for name, these in ladders.items()
    }


@pytest.mark.parametrize("name,n", [("throughput", 12), ("one user", 8)])
def test_every_rung_has_a_row_and_writes_the_naive_loops_tokens(climbed, name, n):
    rows = climbed[name]
    assert [r["rung"] for r in rows][:3] == ["naive", "KV cache", "packed weights"]
    assert len(rows) == n and all(r["agreement"] == 1.0 for r in rows)
    assert rows[0]["multiple"] == rows[0]["step"] == 1.0
    for below, above in pairwise(rows):
        assert above["step"] == pytest.approx(above["multiple"] / below["multiple"])
    assert ladder.go(rows) is None


def test_who_share_a_step_share_the_reading_of_the_weights(climbed):
    by_batch = {r["batch"]: r["bytes_per_token"] for r in climbed["throughput"][2:7]}
    assert set(by_batch) == {1, 3}
    # each still reads a cache and an embedding of its own
    assert by_batch[1] / 3 < by_batch[3] < by_batch[1] / 2


def test_the_notice_reads_both_ladders(climbed):
    copying = [r | {"ladder": "one user, copy-editing"} for r in climbed["one user"]]
    text = ladder.notice([*climbed["throughput"], *climbed["one user"], *copying])
    top = max(r["multiple"] for r in climbed["throughput"])
    assert f"up to {top:.0f} times the naive loop" in text


def test_agreement_counts_tokens_of_the_jobs_that_both_served():
    assert rungs.agreement({0: [1, 2], 2: [3, 4], 4: [9]}, {0: [1, 5], 2: [3, 4]}) == 0.75

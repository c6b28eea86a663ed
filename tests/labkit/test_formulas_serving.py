"""What serving costs, each formula against counting it out."""

from math import comb

import numpy as np
import pytest

from labkit import formulas, presets


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("k", [0, 1, 5])
def test_tokens_per_check_is_the_mean_over_where_the_first_draft_fails(alpha, k):
    first_refused = sum(alpha**i * (1 - alpha) * (i + 1) for i in range(k))
    assert formulas.tokens_per_check(alpha, k) == pytest.approx(first_refused + alpha**k * (k + 1))


def test_a_speedup_divides_by_what_drafts_take():
    assert formulas.tokens_per_check(0.7, 5) == pytest.approx(2.94, abs=0.005)
    assert formulas.speculation_speedup(0.7, 5, 0.05) == pytest.approx(2.35, abs=0.005)
    assert formulas.speculation_speedup(0.7, 0, 0.05) == 1  # no draft
    assert formulas.speculation_speedup(0.3, 5, 0.5) < 1  # drafts can lose


def test_errors_compound():
    one_or_more = sum(comb(8, i) * 0.05**i * 0.95 ** (8 - i) for i in range(1, 9))
    assert formulas.all_right(0.05, 8) == pytest.approx(1 - one_or_more)


@pytest.mark.parametrize("L, W", [(1, 4), (3, 4), (6, 2), (5, 1)])
def test_a_receptive_field_is_what_layers_hand_on(L, W):
    n = 40
    query, key = np.indices((n, n))
    sees = (key <= query) & (query - key < W)
    reached = np.linalg.matrix_power(sees.astype(int), L)[-1] > 0
    assert reached.sum() == formulas.receptive_field(L, W)


@pytest.mark.parametrize("n, T, a", [(1, 100, 7), (5, 100, 7), (40, 3000, 500)])
def test_a_transcript_sent_again_and_again(n, T, a):
    sent = [T + i * a for i in range(n)]
    assert formulas.agent_tokens(n, T, a) == sum(sent)
    assert formulas.agent_tokens_reused(n, T, a) == sent[-1]  # each of its tokens once
    bill = sum(
        formulas.prompt_bill(T if i == 0 else a, sent[i] - (T if i == 0 else a), 0, 3, 9, 0.1)
        for i in range(n)
    )
    assert formulas.agent_bill(n, T, a, 3, 0.1) == pytest.approx(bill)
    assert formulas.agent_bill(n, T, a, 3, 1) == pytest.approx(sum(sent) * 3e-6)


def test_one_prompt_two_bills():
    assert formulas.prompt_bill(10_000, 0, 500, 3, 15, 0.1) == pytest.approx(0.03 + 0.0075)
    assert formulas.prompt_bill(100, 9_900, 500, 3, 15, 0.1) == pytest.approx(0.00327 + 0.0075)


def test_bits_of_a_format_and_the_least_error_they_allow():
    assert formulas.format_bits(4, 32, 16) == 4.5 == formulas.BITS["int4"]
    numbers = np.random.default_rng(0).standard_normal(100_000)
    for b in (1, 2, 4, 8):
        edge = 4.0 if b > 1 else 1.6  # a plain uniform quantiser
        step = 2 * edge / 2**b
        level = np.clip(np.floor(numbers / step), -(2 ** (b - 1)), 2 ** (b - 1) - 1)
        error = ((numbers - (level + 0.5) * step) ** 2).mean()
        assert formulas.rate_distortion(b) < error < 8 * formulas.rate_distortion(b)


@pytest.mark.parametrize("P", [1, 2, 4, 8])
def test_tensor_parallel_traffic_is_a_ring_counted_out(P):
    T, D, L = 16, 64, 3
    sent = 0
    for _all_reduce in range(2 * L):
        for _step in range(2 * (P - 1)):  # scatter the sums, gather them
            sent += T * D // P
    assert formulas.tensor_parallel_bytes(T, D, L, 16, P) == sent * 2


def test_pipeline_traffic_and_its_bubble_are_a_schedule_counted_out():
    P, m = 4, 6
    busy = {(stage, stage + batch) for stage in range(P) for batch in range(m)}
    ticks = 1 + max(tick for _, tick in busy)
    assert formulas.pipeline_bubble(P, m) == pytest.approx(1 - len(busy) / (P * ticks))
    assert formulas.pipeline_parallel_bytes(16, 64, 16, P) == 3 * 16 * 64 * 2


def test_expert_traffic_leaves_out_what_is_at_home():
    T, D, A, L, P, X = 64, 32, 4, 2, 8, 16
    chosen = (np.arange(T)[:, None] * A + np.arange(A)) % X  # even
    away = (chosen % P != (np.arange(T) // (T // P))[:, None]).sum()
    assert formulas.expert_parallel_bytes(T, D, A, L, 16, P) == 2 * L * away * D * 2


def test_a_fleet():
    assert formulas.gpus_needed(10**6, 50, 2000) == 25_000
    assert formulas.gpus_needed(10**6, 50, 2001) == 24_988  # no part of one
    month = 25_000 * 2 * 730
    tokens = 10**6 * 50 * 730 * 3600
    assert formulas.dollars_per_million(2, 2000) == pytest.approx(month / tokens * 1e6)
    assert formulas.transfer_seconds(10e9, 50e9, 1e-5) == pytest.approx(0.20001)


def test_what_a_window_holds_and_what_pages_reserve_are_two_numbers():
    c = presets["gpt-oss-20b"]
    assert formulas.kv_cache_bytes(c, 8192, 32) == 6_543_114_240
    assert formulas.kv_cache_reserved_bytes(c, 8192, 32) == 12_884_901_888
    tiny = presets["tiny"]
    assert formulas.kv_cache_reserved_bytes(tiny, 33) == formulas.kv_cache_bytes(tiny, 48)
    with pytest.raises(ValueError, match="a block holds at least 1 token, not 0"):
        formulas.kv_cache_reserved_bytes(tiny, 33, block_size=0)

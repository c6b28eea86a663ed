"""Speculation is lossless, and switches itself off where it loses."""

import random
from types import SimpleNamespace

import pytest
import torch

from labkit import Engine
from labkit.speculative import DraftModel, NGram, Speculation, accept
from tests import engines

P = torch.tensor(
    [[0.5, 0.2, 0.15, 0.1, 0.05], [0.05, 0.6, 0.05, 0.2, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]]
)
Q = torch.tensor([[0.2, 0.2, 0.2, 0.2, 0.2], [0.7, 0.1, 0.1, 0.1, 0.0]])
N = 20_000
# degrees of freedom -> what chance exceeds once in 10^9 runs: another build of torch draws other
# numbers from the same seed. Rules that are wrong for these drafts come to 800 and more.
CHI_SQUARE = {4: 47.9, 24: 91.0}


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("certain", [False, True], ids=["drawn from q", "certain"])
def test_accepted_tokens_are_distributed_as_the_target_s(certain):
    g = torch.Generator().manual_seed(0)
    first, second, lengths = torch.zeros(5), torch.zeros(5, 5), torch.zeros(4)
    for _ in range(N):
        drafts = [1, 0] if certain else torch.multinomial(Q, 1, generator=g).flatten().tolist()
        tokens = accept(drafts, P, None if certain else Q, g)
        lengths[len(tokens)] += 1
        first[tokens[0]] += 1
        if len(tokens) > 1:
            second[tokens[0], tokens[1]] += 1
    assert chi_square(first, N * P[0]) < CHI_SQUARE[4]
    # whatever came first, the second token follows the target
    for row in second[second.sum(1) > 500]:
        assert chi_square(row, row.sum() * P[1]) < CHI_SQUARE[4]
    # accepted with probability sum(min(p, q)): equation 5 of Leviathan et al.
    rate = float(P[0, 1]) if certain else float(torch.minimum(P[0], Q[0]).sum())
    assert float(lengths[2:].sum()) / N == pytest.approx(rate, abs=0.02)


def test_a_sampled_reply_has_the_same_distribution_with_and_without_drafts():
    """Through the engine: pairs of tokens, drafts right or wrong, against the model's own
    probabilities.
    """
    from labkit import GPT, ModelConfig, Sampling, logits

    torch.manual_seed(0)
    model = GPT(ModelConfig(5, 16, 1, 2, 1, 8, 16, 16))
    hot, runs = Sampling(temperature=1.3), 4000
    engine = Engine(model, max_batch=64, n_blocks=256, block_size=4, seed=1)
    engine.speculation = engines.always(
        SimpleNamespace(propose=lambda asked, caches: [[2, 1][:k] for _, k in asked])
    )
    for _ in range(runs):
        engine.add([3], 3, hot, stop=())
    counts = torch.zeros(25)
    for tokens in engine.run().values():
        counts[tokens[1] * 5 + tokens[2]] += 1
    p1 = (logits(model, [3])[-1] / 1.3).softmax(-1)
    expected = torch.zeros(25)
    for a in range(5):
        p2 = (logits(model, [3, a])[-1] / 1.3).softmax(-1)
        for b in range(5):
            expected[b * 5 : b * 5 + 5] += (
                runs * p1[a] * p2[b] * (logits(model, [3, a, b])[-1] / 1.3).softmax(-1)
            )
    assert chi_square(counts, expected) < CHI_SQUARE[24]
    checks = [c for s in engine.trace("speculation").steps for c in s.checks]
    assert 100 < sum(a for _, _, a in checks) < sum(len(d) for _, d, _ in checks)


# -- proposers ---------------------------------------------------------------------------


def test_prompt_lookup_finds_what_followed_last_time():
    rnd, lookup = random.Random(0), NGram().lookup
    for _ in range(300):
        # bytes that look alike
        tokens = [
            rnd.choice([0, 1, 255, 256, 65536, 16777216]) for _ in range(rnd.randrange(1, 60))
        ]
        expected = []
        for n in (3, 2):
            starts = [
                i for i in range(len(tokens) - n) if tokens[i : i + n] == tokens[len(tokens) - n :]
            ]
            if len(tokens) > n and starts:
                expected = tokens[starts[-1] + n :][:4]
                break
        assert lookup(tokens, 4) == expected


def test_an_early_exit_drafts_what_its_layers_would_write():
    model = engines.model()
    engine = Engine(model, max_batch=2, n_blocks=60, block_size=4)
    # all layers: always right
    engine.speculation = engines.always(DraftModel(model, len(model.blocks)))
    ids = {engine.add(p, 20, stop=()): alone[:20] for p, alone in engines.prompts()[:4]}
    assert engine.run() == ids
    checks = [c for s in engine.trace("speculation").steps for c in s.checks]
    assert len(checks) > 8 and all(accepted == len(drafts) for _, drafts, accepted in checks)


# -- the switch --------------------------------------------------------------------------


def serve(cost, proposer, requests=8, together=8):
    """Seconds by `cost(tokens in the step)`, of requests served `together` at a time, without and
    with speculation.
    """
    totals = {}
    for name, speculation in (("plain", Speculation(None)), ("speculating", Speculation(proposer))):
        engine = Engine(
            engines.model(), max_batch=together, n_blocks=200, block_size=4, token_budget=300
        )
        engine.speculation, spent = speculation, 0.0
        observe = speculation.observe
        speculation.observe = lambda n, seconds, checks, observe=observe: observe(
            n, cost(n), checks
        )
        ids = {engine.add(p, 24, stop=()): alone for p, alone in (engines.prompts() * 4)[:requests]}
        while engine.scheduler.running or engine.scheduler.waiting:
            engine.step()
            spent += cost(sum(row[3] for row in engine.trace().steps[-1].rows))
        assert engine.run() == ids
        totals[name] = spent
    return totals["plain"] / totals["speculating"]


# bound by reading weights; bound by arithmetic
FLAT, FULL = (lambda n: 1 + 0.01 * n), (lambda n: 0.1 + 1.0 * n)


def test_what_a_step_takes_is_smoothed_and_never_falls():
    speculation, rnd = Speculation("ngram"), random.Random(0)
    for n in [1, 2, *range(40, 49)] * 5:
        speculation.observe(n, (10 + 2 * n) * rnd.uniform(0.8, 1.25), [])
    took = speculation.seconds(200)
    assert (
        (took[1:] >= took[:-1]).all()
        and abs(took[44] / 98 - 1) < 0.1
        and abs(took[1] / 12 - 1) < 0.25
    )
    # beyond what was measured: in proportion
    assert took[200] == pytest.approx(took[48] * 200 / 44, rel=0.1)
    falls = Speculation("ngram")
    falls.observe(8, 20, [])
    falls.observe(16, 10, [])
    assert falls.seconds(16)[16] == 20


def test_it_wins_where_checks_are_cheap_and_drafts_good():
    assert serve(FLAT, engines.Guess("full", 0), together=1) > 1.5


@pytest.mark.parametrize(
    "cost, together",
    [(FULL, 1), (FULL, 8), (FLAT, 1), (FLAT, 8)],
    ids=["full, alone", "full", "flat, alone", "flat"],
)
def test_it_is_off_where_it_loses(cost, together):
    wrong = SimpleNamespace(propose=lambda asked, caches: [[63] * k for _, k in asked])
    for proposer in (wrong, engines.Guess("full", 0), NGram()):
        assert serve(cost, proposer, requests=32, together=together) > 0.97

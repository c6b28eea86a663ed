"""Speculation is lossless, and switches itself off where it loses."""

import random
from types import SimpleNamespace

import pytest
import torch

from labkit import Engine
from labkit.engine.drafts import Fixed, Measured, Record, StepTimes
from labkit.engine.request import Request
from labkit.engine.scheduler import Scheduler
from labkit.speculative import DraftModel, NGram, accept
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
    guess = SimpleNamespace(propose=lambda asked, caches: [[2, 1][:k] for _, k in asked])
    engine = Engine(
        model, max_batch=64, n_blocks=256, block_size=4, seed=1, speculative=guess, drafts=3
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


# -- proposers -----------------------------------------------------------------------------------


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
    all_layers = DraftModel(model, len(model.blocks))  # always right
    engine = Engine(model, max_batch=2, n_blocks=60, block_size=4, speculative=all_layers, drafts=3)
    ids = {engine.add(p, 20, stop=()): alone[:20] for p, alone in engines.prompts()[:4]}
    assert engine.run() == ids
    checks = [c for s in engine.trace("speculation").steps for c in s.checks]
    assert len(checks) > 8 and all(accepted == len(drafts) for _, drafts, accepted in checks)


# -- how many ------------------------------------------------------------------------------------


def make(proposer, drafts=None, **changes):
    setup = dict(max_batch=8, n_blocks=200, block_size=4, token_budget=300) | changes
    return Engine(engines.model(), **setup, speculative=proposer, drafts=drafts)


def counts(engine) -> list[list[int]]:
    """Drafts of each check, by step."""
    return [[len(drafts) for _, drafts, _ in s.checks] for s in engine.trace("speculation").steps]


def test_an_engine_measures_unless_it_is_told_a_number():
    assert type(make("ngram").policy) is type(make(NGram()).policy) is Measured
    assert type(make("ngram", 4).policy) is Fixed and make(None).policy is None
    # two engines never share what they learned
    assert make("ngram").policy is not make("ngram").policy


def test_a_fixed_number_is_asked_for_in_every_step_that_only_decodes():
    engine = make(engines.Guess("full", 0), 4, token_budget=16)
    chosen = engines.prompts()[11:14]  # of 4, 8 and 16 tokens: two steps read them
    ids = {engine.add(p, 24, stop=()): alone for p, alone in chosen}
    assert engine.run() == ids
    first, second, third, *others = counts(engine)
    assert first == second == [] and third == [4, 4, 4]
    assert max(n for made in others for n in made) == 4
    # each check until the reply has no room for a draft
    assert all(made for made in others[:-1])


@pytest.mark.parametrize(
    "budget, n_blocks, new, rooms",
    [
        (99, 99, 9, [3, 3, 3]),
        (4, 99, 9, [1, 0, 0]),  # the budget: everybody has a token before anybody has a draft
        (2, 99, 9, [0, 0]),
        (99, 4, 9, [3, 0, 0]),  # blocks: nobody is preempted for a draft
        (99, 99, 3, [1, 1, 1]),  # the reply: one token of two comes by itself
    ],
    ids=["room", "budget", "small budget", "blocks", "reply"],
)
def test_drafts_are_a_luxury(budget, n_blocks, new, rooms):
    scheduler = Scheduler(
        max_batch=3, n_blocks=n_blocks, block_size=4, token_budget=9, longest=16, prefix_cache=False
    )
    scheduler.waiting.extend(Request(i, [1, 2, 3], new) for i in range(3))
    for w in scheduler.schedule().work:
        scheduler.advance(w.request, w.fed, [7])
    scheduler.token_budget = budget
    plan = scheduler.schedule(dict.fromkeys(range(3), 3))
    assert [w.room for w in plan.work] == rooms and all(w.fed == 1 and w.ends for w in plan.work)
    assert plan.preempted == plan.copies == []


def test_a_proposer_that_gives_too_many_is_cut():
    prompt, alone = engines.prompts()[0]
    generous = SimpleNamespace(propose=lambda asked, caches: [[5] * 90 for _ in asked])
    engine = make(generous, 2, max_batch=1)
    id = engine.add(prompt, 24, stop=())
    assert engine.run() == {id: alone}
    assert {n for made in counts(engine) for n in made} == {1, 2}


def test_a_policy_of_one_s_own_decides():
    class OddOnes:
        """Two drafts for every other request."""

        heard = 0

        def allow(self, running, token_budget):
            assert running and all(r.decoding for r in running) and token_budget == 300
            return {r.id: 2 for r in running if r.id % 2}

        def observe(self, tokens, seconds, drafting, checks):
            assert 0 <= drafting <= seconds and all(len(d) <= 2 for _, d, _ in checks)
            self.heard += 1

    engine = make(engines.Guess("full", 0), OddOnes())
    ids = {engine.add(p, 24, stop=()): alone for p, alone in engines.prompts()[:4]}
    assert engine.run() == ids
    checked = {id for s in engine.trace("speculation").steps for id, _, _ in s.checks}
    assert checked == {1, 3}
    decoded = [s for s in engine.trace().steps if all(row[2] != "prefill" for row in s.rows)]
    assert engine.policy.heard == len(decoded)


# -- as many as pay ------------------------------------------------------------------------------


class Told(Measured):
    """Hears that a step of n tokens took `cost(n)` seconds, and that drafts took none."""

    def __init__(self, cost):
        super().__init__()
        self.cost = cost

    def observe(self, tokens, seconds, drafting, checks):
        super().observe(tokens, self.cost(tokens), 0.0, checks)


def serve(cost, proposer, requests=8, together=8):
    """How many times as fast speculation makes requests that are served `together` at a time, if
    a step of n tokens takes `cost(n)` seconds.
    """
    totals = []
    for speculation in ({}, {"proposer": proposer, "drafts": Told(cost)}):
        engine = make(**{"proposer": None} | speculation, max_batch=together)
        ids = {engine.add(p, 24, stop=()): alone for p, alone in (engines.prompts() * 4)[:requests]}
        assert engine.run() == ids
        fed = [sum(row[3] for row in step.rows) for step in engine.trace().steps]
        totals.append(sum(map(cost, fed)))
    plain, speculating = totals
    return plain / speculating


# bound by reading weights; bound by arithmetic
FLAT, FULL = (lambda n: 1 + 0.01 * n), (lambda n: 0.1 + 1.0 * n)


def test_what_a_step_takes_is_smoothed_and_never_falls():
    times, rnd = StepTimes(), random.Random(0)
    for n in [1, 2, *range(40, 49)] * 5:
        times.add(n, (10 + 2 * n) * rnd.uniform(0.8, 1.25))
    took = times.seconds(200)
    assert (
        (took[1:] >= took[:-1]).all()
        and abs(took[44] / 98 - 1) < 0.1
        and abs(took[1] / 12 - 1) < 0.25
    )
    # beyond what was measured: in proportion
    assert took[200] == pytest.approx(took[48] * 200 / 44, rel=0.1)
    falls = StepTimes()
    falls.add(8, 20)
    falls.add(16, 10)
    assert falls.seconds(16)[16] == 20


def test_a_record_forgets_what_lost():
    record = Record(checks=10, steps=50)
    for _ in range(20):
        record.fade()
        record.add(4, 0)  # one draft looked at, and refused
    assert record.kept == 0 and 5 < record.tried < 10
    for _ in range(200):
        record.fade()
    assert record.tried < 0.2
    # of two drafts one was right: where everybody's begins, there it returns
    everybody = Record(kept=1.0, tried=2.0, checks=100, steps=200)
    for _ in range(50):
        everybody.add(4, 4)
    assert everybody.kept / everybody.tried > 0.95
    for _ in range(2000):
        everybody.fade()
    assert everybody.kept / everybody.tried == pytest.approx(0.5, abs=0.01)


def test_what_is_known_of_a_request_goes_with_it():
    engine = make(engines.Guess("full", 0), max_batch=2)
    for p, _ in engines.prompts()[:6]:
        engine.add(p, 24, stop=())
    while engine.stats.running or engine.stats.waiting:
        engine.step()
        assert len(engine.policy.records) <= 2
    assert 0 < len(engine.policy.records) <= 2


def test_drafts_that_take_long_to_make_do_not_pay():
    dear = Told(FLAT)
    dear.times.add(1, 1.0)
    asked = [SimpleNamespace(id=0, draftable=20)]
    assert dear.allow(asked, 256)[0] > 0
    dear.draft_seconds = 1.0
    assert dear.allow(asked, 256) == {}


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

"""Chapter 12's labs: what they count is counted right, and each checkpoint stops at a result that
should stop it.
"""

import pytest
import torch

import labkit
from labkit.speculative import accept
from labkit.trace import Trace
from labkit_labs.ch12_speculation import accept as lab_12_accept
from labkit_labs.ch12_speculation import lookup as lab_12_lookup
from labkit_labs.ch12_speculation import watch
from tests import engines

P = torch.tensor(lab_12_accept.SMALL)
RULES = (accept, lab_12_accept.keeps_the_likely, lab_12_accept.corrects_from_p)


# -- the rule ----------------------------------------------------------------------------


def p_values(rule):
    """Of a rule's tokens, for each kind of draft."""
    return [
        lab_12_accept.p_value(lab_12_accept.replies(rule, P, q, 1, 2000), P)
        for q in lab_12_accept.drafts_for(P).values()
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_only_the_right_rule_passes_with_every_draft(rule):
    """Chance takes a right rule below 1e-9 once in 10^9 runs; the wrong ones come to 1e-90."""
    assert (min(p_values(rule)) > 1e-9) == (rule is accept)


def test_a_wrong_rule_passes_with_a_draft_that_suits_it():
    assert max(p_values(lab_12_accept.corrects_from_p)) > 1e-9  # so one draft does not test a rule


@pytest.mark.parametrize(
    "counts, expected",
    [((60, 40), 0.0455), ((50, 50), 1.0), ((25, 25, 50), 0.00193)],
    ids=["4.0", "0", "12.5"],
)
def test_the_p_value_is_that_of_a_chi_square_table(counts, expected):
    """For the statistics named, with 1, 1 and 2 degrees of freedom; for 2 it is exp(-statistic /
    2).
    """
    made = [[token] for token, n in enumerate(counts) for _ in range(n)]
    assert lab_12_accept.p_value(
        made, torch.full((len(counts),), 1 / len(counts))
    ) == pytest.approx(expected, rel=0.01)


def test_a_draft_is_kept_as_often_as_it_overlaps_with_its_target():
    """Within six standard deviations of a share of 10,000: chance is that far once in 10^8 runs."""
    for q in lab_12_accept.drafts_for(P).values():
        made = lab_12_accept.replies(accept, P, q, 1, 10_000)
        kept = sum(len(tokens) == 2 for tokens in made) / len(made)
        overlap = float(P[0] if q is None else torch.minimum(P, q).sum())
        assert kept == pytest.approx(overlap, abs=6 * (overlap * (1 - overlap) / len(made)) ** 0.5)


# -- serving and counting ----------------------------------------------------------------


def served(n: int, *speculation):
    engine = watch.engine(engines.model(), n, *speculation)
    return watch.serve(engine, [p for p, _ in engines.prompts()[:n]], 20, stop=())


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("drafts", [None, 1, 3])
def test_guesses_change_no_token(n, drafts):
    expected = [alone[:20] for _, alone in engines.prompts()[:n]]
    assert served(n).tokens == served(n, engines.Guess("full", 0), drafts).tokens == expected


def test_what_is_forced_happens_in_every_step():
    got = served(4, engines.Guess("full", 0), 3)
    firsts = {id: drafts for id, drafts, _ in reversed(got.checks)}
    assert sorted(firsts) == [0, 1, 2, 3] and all(len(drafts) == 3 for drafts in firsts.values())
    for id in firsts:  # until the reply has no room for three
        mine = [(len(drafts), n) for who, drafts, n in got.checks if who == id]
        left = 19
        for drafts, n in mine:
            assert drafts == min(3, left - 1)
            left -= n + 1
        assert left in (0, 1)


def test_a_forward_without_guesses_gives_one_token():
    got = served(3)
    assert len(got.decodes) == 19 and got.checks == [] and 0 < sum(got.decodes) <= got.seconds


def test_what_an_engine_served_before_is_not_counted_again():
    engine = watch.engine(engines.model(), 2, engines.Guess("full", 0), 3)
    prompts = [p for p, _ in engines.prompts()[:2]]
    first = watch.serve(engine, prompts, 20, stop=())
    second = watch.serve(engine, prompts, 20, stop=())
    assert first.tokens == second.tokens and 0 < len(second.decodes) < engine.steps / 2 + 5
    ids = [{id for id, _, _ in served.checks} for served in (first, second)]
    assert ids == [{0, 1}, {2, 3}]


def test_notes_price_a_draft_and_a_check_apart():
    notes = watch.Noted(3)
    assert notes.draft == 0.0
    check = [(None, [1, 2, 3], 1)]
    for drafting in (0.3, 0.6, 30.0):  # the last one was held up
        notes.observe(4, 2.0 + drafting, drafting, check)
        notes.observe(1, 1.0, 0.0, [])
    assert notes.draft == pytest.approx(0.2) and notes.check == pytest.approx(2.0)


def test_what_comes_after_a_refusal_was_not_looked_at():
    assert watch.acceptance([[0, [7, 8, 9], 1], [0, [7], 1], [0, [7, 8], 0]]) == 2 / 4
    assert watch.acceptance([[0, [7, 8], 2]]) == 1.0 and watch.acceptance([]) is None


def test_copied_is_the_share_of_runs_of_four_that_stand_in_the_prompt():
    assert lab_12_lookup.copied([1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 9]) == 0.5
    assert lab_12_lookup.copied([1, 2, 3], [1, 2, 3]) == 0.0  # too short to say


def test_a_price_is_asked_for_each_size():
    assert sorted(watch.prices(engines.model(), 1)) == list(watch.SIZES)


# -- the trace ---------------------------------------------------------------------------


@pytest.mark.smollm2
def test_the_recorded_checks_add_up_to_the_reply(tmp_path):
    recorded = lab_12_lookup.written_code(*labkit.weights.smollm2())
    path = recorded.save(tmp_path / "a.trace.json")
    trace = Trace.load(path)
    reply, at = trace.meta["reply"], 1  # the prompt's step gives the first token
    for step in trace.steps[1:]:
        drafts, n = step.checks[0][1:] if step.checks else ([], 0)
        assert drafts[:n] == reply[at : at + n] and all(
            str(i) in trace.meta["words"] for i in drafts
        )
        assert n == len(drafts) or reply[at + n] != drafts[n]
        at += n + 1
    assert at == len(reply) == 30 and len(trace.steps) < 20 and path.stat().st_size < 30_000

"""The filters are transformers' own, mask by mask; a seed is a request's, not a batch's."""

import pytest
import torch
from transformers.generation import logits_process as theirs

from labkit import Sampling
from labkit.sampling import pick, probabilities

LOGITS = torch.randn(64, 50, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize(
    "ours,warpers",
    [
        (Sampling(temperature=0.7), [theirs.TemperatureLogitsWarper(0.7)]),
        (Sampling(temperature=1.0, top_k=5), [theirs.TopKLogitsWarper(5)]),
        (
            Sampling(temperature=1.3, top_p=0.8),
            [theirs.TemperatureLogitsWarper(1.3), theirs.TopPLogitsWarper(0.8)],
        ),
        (Sampling(temperature=1.0, min_p=0.1), [theirs.MinPLogitsWarper(0.1)]),
        (
            Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05),
            [
                theirs.TemperatureLogitsWarper(0.8),
                theirs.TopKLogitsWarper(20),
                theirs.TopPLogitsWarper(0.9),
                theirs.MinPLogitsWarper(0.05),
            ],
        ),
    ],
)
def test_filters_equal_transformers(ours, warpers):
    scores = LOGITS.clone()
    for w in warpers:
        scores = w(None, scores)
    assert torch.allclose(probabilities(LOGITS, ours), scores.softmax(-1), atol=1e-6)


def test_greedy_is_all_on_the_top_token():
    p = probabilities(LOGITS, Sampling())
    assert p.argmax(-1).equal(LOGITS.argmax(-1)) and p.sum() == 64 and p.max() == 1


def test_draws_follow_the_probabilities():
    """Chi-square of 20,000 draws against the filtered distribution: below what chance exceeds once
    in 10^9 runs, since another build of torch draws other numbers from the same seed.
    """
    s, n = Sampling(temperature=1.0, top_k=6, seed=1), 20_000
    p = probabilities(LOGITS[0], s)
    drawn = torch.tensor(pick(LOGITS[:1].expand(n, -1), [s] * n, [s.generator()] * n)).bincount(
        minlength=50
    )
    kept = p > 0
    assert kept.sum() == 6 and drawn[~kept].sum() == 0
    assert ((drawn[kept] - n * p[kept]) ** 2 / (n * p[kept])).sum() < 50.7  # 5 degrees of freedom


@pytest.mark.parametrize(
    "bad,message",
    [
        (dict(temperature=-1), "temperature must be >= 0"),
        (dict(top_k=-2), "top_k must be >= 0"),
        (dict(top_p=0), r"top_p must be in \(0, 1\]"),
        (dict(min_p=1.5), r"min_p must be in \[0, 1\]"),
    ],
)
def test_bad_settings_get_one_sentence(bad, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**bad)

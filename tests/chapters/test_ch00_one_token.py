"""Chapter 00: what its page says of attention, losses and draws holds; its controls can fail."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit import presets, reference, results
from labkit.sampling import Sampling
from labkit.sampling import probabilities as theirs
from labkit_labs.ch00_one_token import attention, neighbours, sampled, sampling
from labkit_labs.ch00_one_token.watched import Watched, watch

PAGE = Path(__file__).parents[2] / "book" / "chapters" / "00_one_token.md"
TEXT = list(b"the cat sat")


# -- attention ---------------------------------------------------------------------------------


def test_the_watched_model_is_the_reference_in_32_bits():
    ours, oracle = Watched(presets["tiny"]), reference.TinyGPT(presets["tiny"])
    assert np.allclose(ours.forward(TEXT), oracle.forward(TEXT), atol=1e-3)
    assert ours.forward(TEXT).dtype == np.float32 and oracle.forward(TEXT).dtype == np.float64


def test_the_watched_model_equals_itself_with_a_cache():
    model, cache = Watched(presets["tiny"]), reference.Cache(4)
    parts = [model.forward(part, cache) for part in (TEXT[:5], TEXT[5:])]
    assert np.allclose(np.concatenate(parts), model.forward(TEXT), atol=1e-4)


def test_weights_sum_to_one_and_none_goes_to_the_future():
    seen = watch(Watched(presets["tiny"]), TEXT)
    config = presets["tiny"]
    assert seen.shape == (config.n_layers, config.n_heads, len(TEXT), len(TEXT))
    assert np.allclose(seen.sum(-1), 1, atol=1e-5)
    assert not np.triu(seen, 1).any()
    assert (np.diagonal(seen, axis1=-2, axis2=-1) > 0).all()


class Words:
    """A tokenizer of whole words."""

    def __init__(self, text):
        self.words = text.split()

    def encode(self, text):
        return [self.words.index(w) for w in text.split()]


def test_another_order_keeps_the_words_and_all_from_because_on():
    text, _ = attention.SENTENCES[0]
    words = Words(text)
    ids, end = words.encode(text), words.words.index("because")
    draw = np.random.default_rng(0)
    others = [attention.reordered(ids, words, draw) for _ in range(5)]
    for other in others:
        assert sorted(other) == sorted(ids) and other[end:] == ids[end:]
    assert any(other != ids for other in others)


def test_a_share_is_of_late_words_and_a_find_leaves_the_first_word_out():
    weights = np.zeros((1, 1, 6, 6))
    weights[..., 0] = 0.9
    weights[..., 2] = 0.1
    weights[0, 0, 1] = [0, 1, 0, 0, 0, 0]  # not late: not counted
    found = attention.shares(weights, [7, 8, 9, 10, 11, 12], 9)
    assert found["first"] == pytest.approx(0.9) and found["second"] == 0
    assert found["it"] and found["was"]
    assert not attention.shares(weights, [7, 8, 9, 10, 11, 12], 8)["it"]


def test_half_of_the_sentences_have_another_thing_in_between():
    """Else a head that looks two words back would seem to know what "it" is."""
    back = [text.split()[::-1].index(thing) for text, thing in attention.SENTENCES]
    assert back.count(3) == len(back) / 2 and max(back) == 7
    assert {text.split()[-2] for text, _ in attention.SENTENCES} == {"it"}


@pytest.mark.smollm2
def test_the_stored_weights_are_what_the_model_gives_today():
    from labkit.weights import smollm2

    smol, tokenizer = smollm2("fp32", packed=False)
    model = Watched(smol.config, reference.TinyGPT.of(smol).weights)
    seen = watch(model, tokenizer.encode(attention.TEXT))
    for row in attention.of(results.load("ch00/attention")["rows"], attention.TEXT):
        for head, queries in enumerate(row["weights"]):
            for t, weights in enumerate(queries):
                assert seen[row["layer"], head, t, : t + 1] == pytest.approx(weights, abs=2e-3)


# -- the embedding's control ------------------------------------------------------------------


def test_a_shuffled_table_keeps_each_rows_numbers_and_loses_its_direction():
    table = np.random.default_rng(1).standard_normal((20, 64)) + 1  # all point one way
    other = neighbours.shuffled(table)
    assert np.array_equal(np.sort(table, axis=1), np.sort(other, axis=1))
    two = np.tile(table[:1], (2, 1))  # twice the same row
    assert neighbours.cosines(two[:1], two[1:]) == pytest.approx(1)
    apart = neighbours.shuffled(two - 1)
    assert abs(neighbours.cosines(apart[:1], apart[1:])[0, 0]) < 0.5


# -- losses -------------------------------------------------------------------------------------


def at_once(model, text):
    p = reference.softmax(model.forward(text)[:-1])
    return -np.log(p[np.arange(len(text) - 1), text[1:]])


def one_by_one(model, text):
    last = (reference.softmax(model.forward(text[:n])[-1]) for n in range(1, len(text)))
    return np.array([-np.log(p[t]) for p, t in zip(last, text[1:])])


class Unmasked(reference.TinyGPT):
    def look(self, q, k, v, pos):
        return super().look(q, k, v, np.full_like(pos, pos[-1]))


def test_losses_in_parallel_are_those_in_sequence_because_of_the_mask():
    model = reference.TinyGPT(presets["tiny"])
    assert np.allclose(at_once(model, TEXT), one_by_one(model, TEXT), atol=1e-6)
    leaky = Unmasked(presets["tiny"])
    assert not np.allclose(at_once(leaky, TEXT), one_by_one(leaky, TEXT), atol=1e-2)


def test_the_page_says_what_the_rows_say_of_a_leak():
    masked, leaky = (
        results.row("ch00/parallel", way=way)["nll"]
        for way in ("in parallel", "in parallel, no mask")
    )
    assert leaky < masked / 2  # “a loss that falls too far”


# -- sampling -----------------------------------------------------------------------------------

LOGITS = np.random.default_rng(3).standard_normal(200).astype(np.float32) * 3
SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 7},
    {"top_p": 0.9},
    {"top_p": 0.01},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_numpy_draws_from_what_labkit_draws_from(setting):
    want = theirs(torch.tensor(LOGITS), Sampling(**{"temperature": 1.0} | setting)).numpy()
    assert np.allclose(sampling.probabilities(LOGITS, **setting), want, atol=1e-6)


def test_probabilities_leave_the_logits_as_they_were():
    before = LOGITS.astype(np.float64)
    sampling.probabilities(before, top_p=0.5, top_k=3)
    assert np.array_equal(before, LOGITS.astype(np.float64))


def test_the_pages_worked_example():
    p = sampling.probabilities(np.log([0.5, 0.3, 0.15, 0.05]), top_p=0.9)
    assert p.round(2).tolist() == [0.53, 0.32, 0.16, 0]


def test_what_cannot_be_drawn_never_is():
    p = np.array([0, 0.25, 0, 0.75, 0])
    counts = sampled.drawn(p, 2000)
    assert counts[[0, 2, 4]].sum() == 0 and counts[1] == pytest.approx(500, abs=80)


def test_the_chi_square_test_fails_for_a_draw_that_is_wrong():
    p = sampling.probabilities(LOGITS)
    counts = sampled.drawn(p, 4000)
    assert sampled.p_value(counts, p) > 1e-3
    assert sampled.p_value(np.roll(counts, 1), p) < 1e-6
    assert sampled.p_value(counts, sampling.probabilities(LOGITS, 1.2)) < 1e-6
    only = np.zeros_like(p)
    only[counts.argmax()] = 1
    assert sampled.p_value(counts, only) == 0  # drew what has no probability


def test_repeats_are_counted_in_groups():
    assert sampled.repeats([1, 2, 3, 4, 5, 6, 7]) == 0
    assert sampled.repeats([1, 2, 3, 4] * 3) == pytest.approx(5 / 9)


def test_the_pages_bug_fails_its_test_and_the_repair_passes():
    bodies = re.findall(
        r"def nucleus\(p, limit\):\n(?:    \"{3}.*?\"{3}\n)?    (return .*)", PAGE.read_text()
    )
    assert len(bodies) == 2
    p = np.array([0.5, 0.3, 0.15, 0.05])
    kept = [
        [eval(body.removeprefix("return "), {"np": np, "p": p, "limit": x}) for x in (0.9, 0.4)]
        for body in bodies
    ]
    wrong, right = ([part.sum() for part in each] for each in kept)
    assert wrong == pytest.approx([0.8, 0.0]) and right == pytest.approx([0.95, 0.5])

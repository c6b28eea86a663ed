"""The character model: its text, its rival, its training."""

import collections
import itertools

import numpy as np
import pytest
import torch

from labkit_labs.common import character, ngrams, novels


def test_the_novels_are_six_and_of_the_alphabet():
    texts = novels.novels()
    assert len(texts) == 6 and 3_900_000 < sum(map(len, texts)) < 4_100_000
    assert set("".join(texts)) <= set(novels.ALPHABET)
    assert texts[4].startswith("It is a truth universally acknowledged")


def test_what_is_held_out_is_the_end_of_every_novel():
    train, held_out = novels.split()
    for text in novels.novels():
        assert text[-1000:] in held_out and text[-1000:] not in train
        assert text[:1000] in train and text[:1000] not in held_out


def by_hand(train: str, held_out: str, order: int, vocabulary: int) -> float:
    """Kneser-Ney with dictionaries, a character at a time."""
    levels = [collections.defaultdict(collections.Counter) for _ in range(order)]
    for i in range(order - 1, len(train)):
        levels[-1][train[i - order + 1 : i]][train[i]] += 1
    for k in range(order - 2, -1, -1):
        for context, row in levels[k + 1].items():
            for c in row:
                levels[k][context[1:]][c] += 1

    def p(c: str, context: str) -> float:
        level = levels[len(context)]
        seen = collections.Counter(n for row in level.values() for n in row.values())
        discount = seen[1] / (seen[1] + 2 * seen[2]) if seen[1] else 0.5
        shorter = p(c, context[1:]) if context else 1 / vocabulary
        if context not in level:
            return shorter
        row = level[context]
        left = max(row[c] - discount, 0) + discount * len(row) * shorter
        return left / sum(row.values())

    at = range(order - 1, len(held_out))
    return float(np.mean([-np.log2(p(held_out[i], held_out[i - order + 1 : i])) for i in at]))


@pytest.mark.parametrize("order", [1, 2, 5])
def test_counted_bits_are_those_of_dictionaries(order):
    train, held_out = novels.split()
    train, held_out = train[:3000], held_out[:150]
    V = len(novels.ALPHABET)
    ids = [np.array(character.encode(text)) for text in (train, held_out)]
    assert ngrams.bits(*ids, order, V) == pytest.approx(by_hand(train, held_out, order, V))


def test_what_is_outside_the_alphabet_is_named():
    with pytest.raises(ValueError, match="the model knows no 'ö', '€'"):
        character.encode("10 € or löss€")


def test_muon_steps_are_orthogonal():
    draw = torch.Generator().manual_seed(0)
    for shape in ((2, 16, 48), (2, 48, 16)):
        out = character.orthogonal(torch.randn(shape, generator=draw))
        sizes = torch.linalg.svdvals(out)
        assert out.shape == shape and sizes.min() > 0.6 and sizes.max() < 1.3


def test_a_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """In two goes it is the same training as in one: the same weights, bit by bit."""
    monkeypatch.setattr(character, "SAVED_EVERY", 2)
    monkeypatch.setattr(character, "CHARACTERS", 512)
    text = novels.split()[0][:20_000]

    class Stopped(Exception):
        pass

    def stop(step, *_):
        if step == 4:
            raise Stopped

    whole, made = character.train(text, 6, tmp_path / "whole.pt")
    with pytest.raises(Stopped):
        character.train(text, 6, tmp_path / "parts.pt", stop)
    parts, _ = character.train(text, 6, tmp_path / "parts.pt")
    assert made["steps"] == 6
    for a, b in zip(whole.parameters(), parts.parameters()):
        assert torch.equal(a, b)


def test_what_is_kept_is_the_model_in_half_precision(tmp_path):
    torch.manual_seed(0)
    model = character.GPT(character.CONFIG).eval()
    character.keep(model, {"steps": 3, "seconds": 1.5}, tmp_path / "kept.safetensors")
    config, weights, made = character.kept(tmp_path / "kept.safetensors")
    assert made == {"steps": 3, "seconds": 1.5}
    assert (tmp_path / "kept.safetensors").stat().st_size < 1_000_000
    again = character.in_torch(config, weights)
    ids = list(itertools.islice(itertools.cycle(range(76)), 300))
    bits = [character.held_out_bits(m, ids) for m in (model, again)]
    assert bits[0] == pytest.approx(bits[1], abs=0.01)


def test_the_kept_model_is_better_than_counting():
    """On two pages of each; the whole held-out text is measured by CH02-CHARACTER."""
    train, held_out = novels.split()
    config, weights, _ = character.kept()
    ids = character.encode(held_out[:8_000])
    grams = ngrams.bits(np.array(character.encode(train)), np.array(ids), 5, config.vocab_size)
    assert character.held_out_bits(character.in_torch(config, weights), ids) < grams

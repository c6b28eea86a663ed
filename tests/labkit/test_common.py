"""What labs of several chapters build on: GPUs, texts, one layer alone."""

import pytest
import torch

import labkit
from labkit import presets
from labkit_labs.common import corpus, gpus, layer

TINY = presets["tiny"]


def test_a_gpu_holds_what_is_left_beside_the_weights():
    card, c = gpus.named("H100"), presets["llama3-8b"]
    assert (
        card.room(c) == 0.9 * 80e9 - 2 * 8_030_261_248
        and card.largest_batch(c, 8192) == int(card.room(c) // 2**30) == 52
    )
    assert gpus.named("L4").largest_batch(presets["llama3-70b"], 10) == 0
    with pytest.raises(ValueError, match="no GPU is called 'H10'; did you mean 'H100'"):
        gpus.named("H10")


def test_losses_are_those_of_the_logits():
    torch.manual_seed(0)
    model, tokens = labkit.GPT(TINY).eval(), list(range(3, 40))
    expected = labkit.logits(model, tokens).log_softmax(-1)[range(36), tokens[1:]]
    assert torch.allclose(corpus.losses(model, tokens), -expected, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "tiny-swa", "tiny-mla", "tiny-delta"])
def test_a_timed_step_is_the_same_every_time_and_reads_its_cache(name):
    mixer = layer.make(presets[name])
    cache = layer.full_cache(mixer, 50, "ring", batch=2)
    fn = layer.decoder(mixer, 50, cache, batch=2)
    if mixer.recurrent:
        before = cache.snapshot([0, 1])
        first = fn()
        cache.restore(before)
    else:
        first = fn()
    assert first.shape == (2, 64) and torch.equal(fn(), first)
    for buffer in cache.buffers:
        buffer.mul_(1.5)
    assert not torch.allclose(fn(), first, atol=1e-3)

"""Chapter 05: what its labs hide is hidden."""

import torch

import labkit
from labkit import presets
from labkit_labs.ch05_swa import sinks
from labkit_labs.common import corpus

TINY = presets["tiny"]


def test_a_mask_around_the_mixers_is_a_window_inside_them():
    torch.manual_seed(0)
    full = labkit.GPT(TINY).eval()
    sliding = labkit.GPT(TINY.replace(layer_types=("sliding",) * 4, window=8)).eval()
    sliding.load_state_dict(full.state_dict())
    tokens = list(range(40))
    with sinks.seen_through(full, sinks.visible(40, 8, 0)):
        assert torch.allclose(
            corpus.losses(full, tokens), corpus.losses(sliding, tokens), atol=1e-5
        )
    with sinks.seen_through(full, sinks.visible(40, 8, 4)):
        kept = corpus.losses(full, tokens)
    assert not torch.allclose(kept[8:], corpus.losses(sliding, tokens)[8:], atol=1e-3)
    # and afterwards the model is itself again
    assert torch.allclose(kept[:7], corpus.losses(full, tokens)[:7], atol=1e-5)
    assert sinks.visible(6, 2, 1).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]

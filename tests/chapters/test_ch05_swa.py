"""Chapter 05: what its labs hide is hidden."""

import torch

import labkit
from labkit import presets
from labkit_labs.ch05_swa import learning, ratios, sinks
from labkit_labs.common import corpus, recall

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


def shell_of(kind: str, layers: int, window: int | None = None):
    return recall.SHELL.replace(n_layers=layers, layer_types=(kind,) * layers, window=window)


def test_a_window_that_hides_nothing_trains_to_the_same_model():
    seen = learning.trained(shell_of("full", 2), 0, 3, 6e-3)
    wide = learning.trained(shell_of("sliding", 2, 500), 0, 3, 6e-3)
    small = learning.trained(shell_of("sliding", 2, 4), 0, 3, 6e-3)
    ours, same, other = (m.state_dict()["embed.weight"] for m in (seen, wide, small))
    assert (ours - other).abs().mean() > 30 * (ours - same).abs().mean()


def test_the_patterns_have_the_ratios_they_are_called_after():
    full = {name: types.count("full") for name, types in ratios.PATTERNS.items()}
    assert list(full.values()) == [6, 3, 1, 1, 0]
    assert {len(types) for types in ratios.PATTERNS.values()} == {6}
    # no full layer may stand below three sliding ones, or it is no longer 3 to 1
    assert ratios.PATTERNS["3 sliding : 1 full"][:4] == ("sliding",) * 3 + ("full",)

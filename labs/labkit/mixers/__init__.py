"""Sequence mixers: how tokens see each other.

`mixer(x, step, cache)` maps [N,D] to [N,D]; nothing else may differ.

A mixer also says what a cache keeps for it: `items`, the `window` it looks
back on, and whether it is `recurrent`.
"""

from labkit.config import ModelConfig
from labkit.mixers.attention import Attention
from labkit.mixers.delta import GatedDeltaNet
from labkit.mixers.latent import MLA

__all__ = ["MLA", "Attention", "GatedDeltaNet", "make_mixer"]

_MIXERS = {
    "full": Attention,
    "sliding": Attention,
    "mla": MLA,
    "delta": GatedDeltaNet,
}


def make_mixer(config: ModelConfig, layer: int):
    """The mixer of `layer`, by its type."""
    return _MIXERS[config.types[layer]](config, layer)

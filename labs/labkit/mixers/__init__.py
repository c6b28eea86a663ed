"""Sequence mixers: how tokens see each other. `mixer(x, step, cache)` maps [N,D] to [N,D]; nothing else may differ."""
from labkit.mixers.attention import Attention

__all__ = ["Attention"]

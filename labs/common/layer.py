"""One layer alone, its cache full of noise: a decode step at any context is timed without reading a
prompt first.
"""

from __future__ import annotations

import torch

from labkit.caches import make_cache
from labkit.mixers import make_mixer
from labkit.step import Step


def make(config, layer: int = 0, device: str = "cpu", dtype=torch.float32):
    """The mixer of one layer, with random weights that are the same in every run."""
    torch.manual_seed(0)
    return make_mixer(config, layer).to(device, dtype).eval()


def full_cache(mixer, context: int, kind: str = "static", batch: int = 1):
    """A cache for `batch` requests of `context` tokens, the last of which is still to come.

    What it holds is noise: reading it costs the same.
    """
    weight = mixer.out.weight
    cache = make_cache(kind, mixer, batch, context, dtype=weight.dtype, device=weight.device)
    generator = torch.Generator(weight.device).manual_seed(0)
    for buffer in cache.buffers:
        buffer.normal_(generator=generator)
    return cache


def decoder(mixer, context: int, cache=None, batch: int = 1):
    """A function that takes token number `context` of each request through the layer, and returns
    what comes out: [batch,D].
    """
    weight = mixer.out.weight
    cache = cache or full_cache(mixer, context, batch=batch)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, mixer.out.out_features, generator=generator).to(weight)

    @torch.inference_mode()
    def fn():
        if mixer.recurrent:
            # the same token again: a state would otherwise have moved on
            cache.length = [context - 1] * batch
        step = Step.of([(row, context - 1, [0]) for row in range(batch)], weight.device)
        return mixer(x, step, cache)

    return fn

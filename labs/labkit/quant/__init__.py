"""Fewer bits: weights in 16, 8 and 4, activations and caches in 8, and what each costs in quality.

`linear` holds the layers and, beside each fast kernel, the plain torch that says what it computes;
`convert` swaps them into a model, finds the layers that resist, and smooths them; `cache` keeps
keys and values in 8 bits; `quality` is perplexity on two texts.
"""

from labkit.quant.cache import Int8Cache
from labkit.quant.convert import KINDS, calibrate, outliers, quantize, smooth
from labkit.quant.linear import kernel_names
from labkit.quant.quality import perplexity, read_text

__all__ = [
    "KINDS",
    "Int8Cache",
    "calibrate",
    "kernel_names",
    "outliers",
    "perplexity",
    "quantize",
    "read_text",
    "smooth",
]

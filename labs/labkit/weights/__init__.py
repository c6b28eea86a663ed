"""Published weights, in and out: `from_hf` and `to_hf` speak transformers' format, `smollm2` is the
course's real model.
"""

from labkit.weights.hf import from_hf
from labkit.weights.smol import Tokenizer, smollm2
from labkit.weights.to_hf import to_hf

__all__ = ["Tokenizer", "from_hf", "smollm2", "to_hf"]

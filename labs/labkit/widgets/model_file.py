"""A small model as a page loads it: matrices in 8 bits with a scale for each row, in one classic
script, so that it also loads from `file://`.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json

import numpy as np

from labkit.config import ModelConfig
from labkit.reference.quantisers import quantise
from labkit.reference.tinygpt import TinyGPT

SIZES = (
    *("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff"),
    *("max_context", "norm_eps", "rope_theta"),
)


def pack(config: ModelConfig, weights: dict[str, np.ndarray], alphabet: str) -> dict:
    """What the script holds: sizes, alphabet, the shape of each weight in order, and their bytes.

    First come the codes of all matrices, one byte each, row by row; then, in the same order and in
    fp32, a scale for each row of a matrix, and vectors as they are. ValueError for a model that the
    page cannot run: anything but a Llama's layout, or an alphabet of another size.
    """
    plain = ModelConfig(**{name: getattr(config, name) for name in SIZES})
    if plain != dataclasses.replace(config, tie_embeddings=False):
        raise ValueError("a page runs models of the Llama layout only: RMSNorm, SwiGLU, RoPE")
    if len(alphabet) != config.vocab_size:
        raise ValueError(f"{config.vocab_size} tokens need as many characters, not {len(alphabet)}")
    codes, floats = [], []
    for w in weights.values():
        if w.ndim == 1:
            floats.append(w)
            continue
        rounded = quantise(w, bits=8, group="row")
        codes.append(rounded.codes.astype(np.int8).tobytes())
        floats.append(rounded.scale)
    # fp32 numbers begin at a multiple of four bytes
    whole = b"".join(codes)
    whole += bytes(-len(whole) % 4) + b"".join(f.astype("<f4").tobytes() for f in floats)
    return {
        "config": {name: getattr(config, name) for name in SIZES},
        "alphabet": alphabet,
        "shapes": {name: list(w.shape) for name, w in weights.items()},
        "bytes": base64.b64encode(whole).decode(),
    }


def unpack(model: dict) -> TinyGPT:
    """The NumPy twin of what a page runs, from the same bytes."""
    whole = base64.b64decode(model["bytes"])
    shapes = model["shapes"]
    n_codes = sum(s[0] * s[1] for s in shapes.values() if len(s) == 2)
    codes = np.frombuffer(whole, np.int8, n_codes)
    floats = np.frombuffer(whole, "<f4", offset=n_codes + -n_codes % 4)
    weights = {}
    for name, shape in shapes.items():
        own, floats = np.split(floats, [shape[0]])
        if len(shape) == 2:
            numbers, codes = np.split(codes, [shape[0] * shape[1]])
            own = numbers.reshape(shape).astype(np.float32) * own[:, None]
        weights[name] = own
    return TinyGPT(ModelConfig(**model["config"]), weights)


def script(model: dict) -> tuple[str, str]:
    """(file name, text) of the script that a page loads; the name changes with the text."""
    text = f"labkitModel = {json.dumps(model, separators=(',', ':'))};\n"
    return f"lk-model.{hashlib.sha256(text.encode()).hexdigest()[:10]}.js", text

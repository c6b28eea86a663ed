"""Our weights as a GGUF file, the format of llama.cpp: kept in the cache folder by what is in it.

Files in 32 and 16 bits are written here; those in fewer are made of the one in 32 by llama.cpp's
own quantiser. Like it we keep vectors in fp32. No vocabulary is written: tokens go in and out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from labkit.config import UnknownName
from labkit.model import GPT
from labkit.paths import cache_folder
from labkit.weights.to_hf import family_of, hf_config, hf_tensors

# transformers' names -> theirs
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WRITTEN = ("F32", "F16", "BF16")
QUANTISED = ("Q8_0", "Q4_0", "Q4_1")
OF_DTYPE = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}


def formats_of(dtype: str) -> tuple[str, ...]:
    """llama.cpp's formats with as many bits as one of our dtypes, or kinds of quantisation: the
    first is the one to compare with, a second stands beside it.

    Those in 4 bits differ in what a group of 32 keeps: a scale (Q4_0), or a smallest value too
    (Q4_1, ours with names in "min"). Raises ValueError for a dtype that nothing fits.
    """
    if dtype in OF_DTYPE:
        return (OF_DTYPE[dtype],)
    bits = re.match(r"(?:int|w)(\d+)", dtype)
    if dtype.endswith("min"):
        return ("Q4_1",)
    if bits and bits[1] in ("4", "8"):
        return {"8": ("Q8_0",), "4": ("Q4_0", "Q4_1")}[bits[1]]
    raise UnknownName("dtype that llama.cpp has too", dtype, [*OF_DTYPE, "int8", "int4"])


def pairs_side_by_side(weight: Tensor, heads: int) -> Tensor:
    """Theirs rotate neighbours, ours the first half of a head with the second."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def tensors(model: GPT) -> dict[str, Tensor]:
    """The model's weights under llama.cpp's names.

    Raises ValueError for a model of another family than Llama.
    """
    c = model.config
    if family_of(c) != "llama" or c.rope_scaling:
        raise ValueError(
            "only models of the Llama family, without scaled RoPE, are written as GGUF"
        )
    found = {}
    for name, t in hf_tensors(model).items():
        name = name.removesuffix(".weight")
        if name == "lm_head" and c.tie_embeddings:
            continue
        if name.endswith("q_proj"):
            t = pairs_side_by_side(t, c.n_heads)
        if name.endswith("k_proj"):
            t = pairs_side_by_side(t, c.n_kv_heads)
        if name in NAMES:
            found[f"{NAMES[name]}.weight"] = t
        else:
            layer, rest = name.removeprefix("model.layers.").split(".", 1)
            found[f"blk.{layer}.{NAMES[rest]}.weight"] = t
    return found


def write(model: GPT, path: Path, kind: str = "F32") -> Path:
    """Write the model as F32, F16 or BF16."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    c = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(c.max_context)
    writer.add_embedding_length(c.d_model)
    writer.add_block_count(c.n_layers)
    writer.add_feed_forward_length(c.d_ff)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.n_kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, t in tensors(model).items():
        stored = GGMLQuantizationType[kind if t.ndim > 1 else "F32"]
        numbers = np.ascontiguousarray(t.detach().float().cpu().numpy())
        writer.add_tensor(name, quantize(numbers, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def fingerprint(model: GPT) -> str:
    """A hash of all that a file is made of."""
    sha = hashlib.sha256(json.dumps(hf_config(model.config), sort_keys=True).encode())
    sha.update(Path(__file__).read_bytes())
    for name, t in tensors(model).items():
        sha.update(name.encode())
        sha.update(t.detach().float().cpu().contiguous().numpy())
    return sha.hexdigest()[:16]


def kept(model: GPT, kind: str, quantise: Callable[[Path, Path, str], None], maker: str) -> Path:
    """The model in a format of `WRITTEN` or `QUANTISED`, from the cache folder if it was made
    before.

    quantise: makes of a file another one, in a format. maker: which quantiser that is.
    """
    name = fingerprint(model)
    if kind in QUANTISED:
        name += f"-{maker}"
    made = cache_folder() / "gguf" / f"{name}-{kind}.gguf"
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    part = made.with_suffix(f".{os.getpid()}.part")
    try:
        if kind in QUANTISED:
            quantise(kept(model, "F32", quantise, maker), part, kind)
        else:
            write(model, part, kind)
        # whole or not at all
        return part.replace(made)
    finally:
        part.unlink(missing_ok=True)

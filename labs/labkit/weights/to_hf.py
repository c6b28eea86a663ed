"""Write a checkpoint that transformers, and what reads its format (vLLM, SGLang), can load: the
tables of `hf` read backwards.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from labkit.config import ModelConfig
from labkit.model import GPT
from labkit.weights.families import FAMILIES

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
WRITTEN = (
    "vocab_size",
    "d_model",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "head_dim",
    "d_ff",
    "max_context",
    "layer_types",
    "window",
    "tie_embeddings",
    "rope_theta",
    "rope_scaling",
    "norm_eps",
    "eos",
    "qk_norm",
)


def family_of(config: ModelConfig) -> str:
    """The transformers family that has this architecture.

    Raises ValueError where none of ours does.
    """
    other = [
        f"{f.name} = {getattr(config, f.name)!r}"
        for f in fields(config)
        if f.name not in WRITTEN and getattr(config, f.name) != f.default
    ]
    if other:
        raise ValueError(
            "only models of the Llama, Mistral and Qwen3 families can be written for transformers;"
            f" this one has {', '.join(other)}"
        )
    types = set(config.types)
    if types not in ({"full"}, {"sliding"}) or (types == {"sliding"} and config.qk_norm):
        raise ValueError(
            "transformers' Llama, Mistral and Qwen3 have layers of one type; this model has"
            f" {', '.join(sorted(types))}"
        )
    return "qwen3" if config.qk_norm else "mistral" if types == {"sliding"} else "llama"


def hf_config(config: ModelConfig) -> dict:
    """The `config.json` of these sizes."""
    c, family = config, family_of(config)
    rope = dict(c.rope_scaling or {"rope_type": "default"}) | {"rope_theta": c.rope_theta}
    d = dict(
        model_type=family,
        architectures=[ARCHITECTURES[family]],
        vocab_size=c.vocab_size,
        hidden_size=c.d_model,
        num_hidden_layers=c.n_layers,
        num_attention_heads=c.n_heads,
        num_key_value_heads=c.n_kv_heads,
        head_dim=c.head_dim,
        intermediate_size=c.d_ff,
        max_position_embeddings=c.max_context,
        tie_word_embeddings=c.tie_embeddings,
        rope_parameters=rope,
        rope_theta=c.rope_theta,
        rms_norm_eps=c.norm_eps,
        hidden_act="silu",
        eos_token_id=c.stop[0] if len(c.stop) == 1 else list(c.stop) or None,
    )
    return d | ({"sliding_window": c.window} if family == "mistral" else {})


def hf_tensors(model: GPT) -> dict[str, Tensor]:
    """The model's weights under transformers' names, unstacked and unpacked."""
    c = model.config
    sizes = {
        "mixer.qkv.weight": [n * c.head_dim for n in (c.n_heads, c.n_kv_heads, c.n_kv_heads)],
        "ffn.gate_up.weight": [c.d_ff, c.d_ff],
    }
    ours, out = model.state_dict(), {}
    for name, targets in FAMILIES[family_of(c)](c).items():
        parts = ours[name].split(sizes[name.split(".", 2)[2]]) if len(targets) > 1 else [ours[name]]
        out |= {target: part.contiguous() for target, part in zip(targets, parts)}
    return out


def to_hf(model: GPT, folder) -> Path:
    """Write `config.json` and `model.safetensors` into a folder, whole or not at all."""
    from safetensors.torch import save_file

    folder, config, tensors = Path(folder), hf_config(model.config), hf_tensors(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.part", metadata={"format": "pt"})
    (folder / "model.part").replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return folder

"""Read a transformers checkpoint. Each family is a table: our parameter <- the tensors that are stacked to make it."""
from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from labkit.config import ModelConfig, UnknownName
from labkit.model import GPT


def from_hf(source) -> GPT:
    """A GPT with the weights of a transformers model, or of a folder with `config.json` and safetensors files.

    Families: gpt2, llama, mistral, qwen3. Raises ValueError naming every tensor that is missing, unexpected or mis-shaped.
    """
    if isinstance(source, (str, Path)):
        from safetensors.torch import load_file

        folder = Path(source)
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} has no config.json: give the folder of a transformers checkpoint")
        config = json.loads((folder / "config.json").read_text())
        files = sorted(folder.glob("*.safetensors"))
        tensors = {name: t for f in files for name, t in load_file(f).items()}
    else:
        config, tensors = source.config.to_dict(), source.state_dict()
    return load(config_from_hf(config), config["model_type"], tensors)


def config_from_hf(c: dict) -> ModelConfig:
    """Our sizes from a transformers `config.json`; refuses what it cannot apply."""
    family = c.get("model_type")
    if family not in FAMILIES:
        raise UnknownName("model family", family, FAMILIES)
    if family == "gpt2":
        D, H = c["n_embd"], c["n_head"]
        return ModelConfig(c["vocab_size"], D, c["n_layer"], H, H, D // H, c.get("n_inner") or 4 * D, c["n_positions"],
                           tie_embeddings=c.get("tie_word_embeddings", True), norm_eps=c["layer_norm_epsilon"], eos=_eos(c),
                           position="learned", norm="layer", ffn="gelu", bias=True)
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"this checkpoint stretches RoPE by {kind!r}, which labkit does not apply; only 'llama3' is")
    sliding = family == "mistral" and c.get("sliding_window")
    H, L = c["num_attention_heads"], c["num_hidden_layers"]
    return ModelConfig(c["vocab_size"], c["hidden_size"], L, H, c.get("num_key_value_heads") or H,
                       c.get("head_dim") or c["hidden_size"] // H, c["intermediate_size"], c["max_position_embeddings"],
                       layer_types=("sliding",) * L if sliding else None, window=sliding or None,
                       tie_embeddings=c.get("tie_word_embeddings", False),
                       rope_theta=float(rope.get("rope_theta") or c.get("rope_theta") or 10000.0),
                       rope_scaling=dict(rope) if kind == "llama3" else None,
                       norm_eps=c["rms_norm_eps"], eos=_eos(c), qk_norm=family == "qwen3")


def load(config: ModelConfig, family: str, tensors: dict[str, Tensor]) -> GPT:
    """Fill a GPT from the family's tensors, by its table."""
    with torch.device("meta"):
        model = GPT(config)
    ours, used, wrong = {}, set(), []
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    transpose = family == "gpt2"  # GPT-2 stores its projections [in, out]
    for name, sources in FAMILIES[family](config).items():
        missing = [s for s in sources if s not in tensors]
        used.update(sources)
        if missing:
            wrong += [f"{s} is missing" for s in missing]
            continue
        parts = [tensors[s].T if transpose and s.endswith((*CONV1D,)) else tensors[s] for s in sources]
        ours[name] = parts[0].detach().clone() if len(parts) == 1 else torch.cat(parts)
        if tuple(ours[name].shape) != shapes[name]:
            wrong.append(f"{' + '.join(sources)} has shape {list(ours[name].shape)}, expected {list(shapes[name])}")
    wrong += [f"{name} is unexpected" for name in tensors if name not in used and not name.endswith(DERIVED)]
    if wrong:
        raise ValueError(f"these tensors do not fit a {family} of these sizes: {'; '.join(wrong[:8])}"
                         + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""))
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    model.load_state_dict(ours | ({"head.weight": ours["embed.weight"]} if config.tie_embeddings else {}), assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    return model.eval()


CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
DERIVED = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "lm_head.weight")  # recomputed, or the tied head again


def _gpt2(config: ModelConfig) -> dict[str, list[str]]:
    table = {"embed.weight": ["transformer.wte.weight"], "positions.weight": ["transformer.wpe.weight"]}
    pairs = {"norm1": "ln_1", "norm2": "ln_2", "mixer.qkv": "attn.c_attn", "mixer.out": "attn.c_proj",
             "ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj"}
    for end in ("weight", "bias"):
        table[f"norm.{end}"] = [f"transformer.ln_f.{end}"]
        for i in range(config.n_layers):
            table |= {f"blocks.{i}.{a}.{end}": [f"transformer.h.{i}.{b}.{end}"] for a, b in pairs.items()}
    return table


def _llama(config: ModelConfig) -> dict[str, list[str]]:
    table = {"embed.weight": ["model.embed_tokens.weight"], "norm.weight": ["model.norm.weight"]}
    if not config.tie_embeddings:
        table["head.weight"] = ["lm_head.weight"]
    for i in range(config.n_layers):
        a, m, ours = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp", f"blocks.{i}"
        table |= {f"{ours}.norm1.weight": [f"model.layers.{i}.input_layernorm.weight"],
                  f"{ours}.norm2.weight": [f"model.layers.{i}.post_attention_layernorm.weight"],
                  f"{ours}.mixer.qkv.weight": [f"{a}.{n}_proj.weight" for n in "qkv"],
                  f"{ours}.mixer.out.weight": [f"{a}.o_proj.weight"],
                  f"{ours}.ffn.gate_up.weight": [f"{m}.gate_proj.weight", f"{m}.up_proj.weight"],
                  f"{ours}.ffn.down.weight": [f"{m}.down_proj.weight"]}
        if config.qk_norm:
            table |= {f"{ours}.mixer.{n}_norm.weight": [f"{a}.{n}_norm.weight"] for n in "qk"}
    return table


FAMILIES = {"gpt2": _gpt2, "llama": _llama, "mistral": _llama, "qwen3": _llama}


def _eos(c: dict):
    eos = c.get("eos_token_id")
    return tuple(eos) if isinstance(eos, list) else eos

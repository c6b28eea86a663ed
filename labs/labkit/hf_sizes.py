"""The sizes of a model from a transformers `config.json`: what parameters, FLOPs and bytes need.

A size that is not written is read as transformers reads it where it has one rule for all, and else
missed in a sentence, never guessed. What changes a model's arithmetic and none of its sizes (RoPE,
scales, activations) is looked at by `weights.hf_config`. The browser runs this file too
(`formulas.javascript`).
"""

from __future__ import annotations

from labkit.config import ModelConfig, UnknownName, is_whole

FAMILIES = (
    "gpt2",
    "llama",
    "mistral",
    "mixtral",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "gemma3_text",
    "gpt_oss",
    "deepseek_v3",
)
LAYERS = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "delta",
}
# settings that add weights or change who sees whom, and the one value of each that is counted
COUNTED = {"mlp_bias": False, "use_bidirectional_attention": False, "moe_layer_freq": 1}
MOST_LAYERS = 1000  # a slip of the keyboard must not keep a browser busy


def config_from_sizes(c: dict) -> ModelConfig:
    """A ModelConfig that has a checkpoint's sizes, and labkit's defaults for all else.

    Raises UnknownName for a family that labkit lacks, ValueError for a size that is missing or
    can't be.
    """
    return ModelConfig(**sizes_from_hf(c))


def sizes_from_hf(c: dict) -> dict:
    """The sizes by ModelConfig's names."""
    if not isinstance(c, dict):
        raise ValueError("a config.json is an object: it begins with { and ends with }")
    if isinstance(c.get("text_config"), dict):
        raise ValueError(
            "this model reads more than text: give what stands under text_config, as a config of"
            " its own"
        )
    family = c.get("model_type")
    if family is None:
        raise ValueError("this checkpoint's config lacks model_type")
    if not isinstance(family, str):
        raise ValueError(f"model_type is a name, not {family!r}")
    if family not in FAMILIES:
        raise UnknownName("model family", family, FAMILIES)
    for name, value in COUNTED.items():
        if c.get(name) is not None and c.get(name) != value:
            raise ValueError(
                f"this checkpoint has {name} = {c.get(name)!r}, which labkit does not count; only"
                f" {value!r} is"
            )
    if family == "gpt2":
        return _gpt2(c)
    sizes = _shell(c, family)
    sizes.update(_layers(c, family, sizes["n_layers"]))
    sizes.update(_experts(c, family, sizes["n_layers"]))
    if family == "deepseek_v3":
        sizes.update(_latent(c))
    if family == "qwen3_next":
        sizes.update(_delta(c))
    return sizes


def size(c: dict, name: str) -> int:
    """A whole number >= 1 that must be there."""
    if c.get(name) is None:
        raise ValueError(f"this checkpoint's config lacks {name}")
    if not is_whole(c.get(name)):
        raise ValueError(f"{name} must be a whole number >= 1, not {c.get(name)!r}")
    return c[name]


def number(c: dict, name: str, missing: int) -> int:
    """A whole number >= 0, or `missing` where nothing is said."""
    if c.get(name) is None:
        return missing
    if not is_whole(c.get(name), 0):
        raise ValueError(f"{name} must be a whole number >= 0, not {c.get(name)!r}")
    return c[name]


def flag(c: dict, name: str, missing: bool) -> bool:
    """True or false, or `missing` where nothing is said."""
    if c.get(name) is None:
        return missing
    if not isinstance(c.get(name), bool):
        raise ValueError(f"{name} must be true or false, not {c.get(name)!r}")
    return c[name]


def listed(c: dict, name: str) -> list:
    """A list, or an empty one where nothing is said."""
    if c.get(name) is None:
        return []
    if not isinstance(c.get(name), list | tuple):
        raise ValueError(f"{name} must be a list, not {c.get(name)!r}")
    return c[name]


def _gpt2(c: dict) -> dict:
    D, H = size(c, "n_embd"), size(c, "n_head")
    _divides(D, "n_embd", H)
    return {
        "vocab_size": size(c, "vocab_size"),
        "d_model": D,
        "n_layers": _few_layers(size(c, "n_layer")),
        "n_heads": H,
        "n_kv_heads": H,
        "head_dim": D // H,
        "d_ff": 4 * D if number(c, "n_inner", 0) == 0 else size(c, "n_inner"),
        "max_context": size(c, "n_positions"),
        "tie_embeddings": flag(c, "tie_word_embeddings", True),
        "position": "learned",
        "norm": "layer",
        "ffn": "gelu",
        "bias": True,
    }


def _shell(c: dict, family: str) -> dict:
    """What all other families have in common."""
    D, H = size(c, "hidden_size"), size(c, "num_attention_heads")
    if c.get("num_key_value_heads") is None and (family == "llama" or "num_key_value_heads" in c):
        G = H  # transformers' own rule; where the entry is missing, others have sizes of their own
    else:
        G = size(c, "num_key_value_heads")
    if family == "deepseek_v3":
        E = number(c, "head_dim", 0)  # MLA has no use for it
    elif c.get("head_dim") is None and family in ("llama", "mistral", "mixtral", "qwen3_moe"):
        _divides(D, "hidden_size", H)
        E = D // H
    else:
        E = size(c, "head_dim")
    if family == "deepseek_v3" and flag(c, "attention_bias", False):
        raise ValueError(
            "this checkpoint has biases in its latent projections, which labkit does not count"
        )
    if family == "gpt_oss" and c.get("attention_bias") is None:
        raise ValueError("this checkpoint's config lacks attention_bias")
    return {
        "vocab_size": size(c, "vocab_size"),
        "d_model": D,
        "n_layers": _few_layers(size(c, "num_hidden_layers")),
        "n_heads": H,
        "n_kv_heads": G,
        "head_dim": E,
        "d_ff": size(c, "intermediate_size"),
        "max_context": size(c, "max_position_embeddings"),
        "tie_embeddings": flag(c, "tie_word_embeddings", family == "gemma3_text"),
        "attention_bias": flag(c, "attention_bias", False),
        "qk_norm": family in ("qwen3", "qwen3_moe", "qwen3_next", "gemma3_text"),
        "post_norms": family == "gemma3_text",
        "sinks": family == "gpt_oss",
        "expert_bias": family == "gpt_oss",
        "output_gate": family == "qwen3_next",
    }


def _layers(c: dict, family: str, L: int) -> dict:
    """The type of each layer, and the window of those that slide."""
    if family == "deepseek_v3":
        return {"layer_types": ["mla"] * L}
    types = _layer_types(c, family, L)
    full = sum([1 if kind == "full" else 0 for kind in types])
    return {
        "layer_types": None if full == L and len(types) == L else types,
        "window": size(c, "sliding_window") if "sliding" in types else None,
    }


def _layer_types(c: dict, family: str, L: int) -> list[str]:
    written = listed(c, "layer_types")
    if len(written) > 0:
        return [_layer(kind) for kind in written]
    if family == "mistral" and "sliding_window" not in c:
        raise ValueError("this checkpoint's config lacks sliding_window")
    window = number(c, "sliding_window", 0)
    if family in ("mistral", "mixtral"):
        return ["sliding" if window > 0 else "full"] * L
    if family in ("qwen3", "qwen3_moe"):
        if window == 0 or not flag(c, "use_sliding_window", False):
            return ["full"] * L
        first = size(c, "max_window_layers") if family == "qwen3" else 0
        return ["sliding" if i >= first else "full" for i in range(L)]
    # every so-manieth layer is full: Gemma 3, as older versions wrote it, and Qwen3-Next
    if family == "gemma3_text" and c.get("sliding_window_pattern") is not None:
        every = size(c, "sliding_window_pattern")
        return ["sliding" if (i + 1) % every != 0 else "full" for i in range(L)]
    if family == "qwen3_next" and c.get("full_attention_interval") is not None:
        every = size(c, "full_attention_interval")
        return ["delta" if (i + 1) % every != 0 else "full" for i in range(L)]
    if family != "llama":
        raise ValueError("this checkpoint's config lacks layer_types")
    return ["full"] * L


def _layer(kind) -> str:
    if not isinstance(kind, str):
        raise ValueError(f"a layer type is a name, not {kind!r}")
    return LAYERS.get(kind, kind)


def _experts(c: dict, family: str, L: int) -> dict:
    if family not in ("mixtral", "gpt_oss", "qwen3_moe", "qwen3_next", "deepseek_v3"):
        return {}
    X = _many_experts(c)
    dense = _dense_layers(c, family, L)
    if X == 0 or dense == L:
        return {}
    own = family in ("mixtral", "gpt_oss")  # whose experts have the size of a dense layer
    F = size(c, "intermediate_size" if own else "moe_intermediate_size")
    shared = number(c, "n_shared_experts", 0)
    if family == "deepseek_v3" and "n_shared_experts" not in c:
        raise ValueError("this checkpoint's config lacks n_shared_experts")
    if family == "qwen3_next":
        wide = size(c, "shared_expert_intermediate_size")
        if wide % F != 0:
            raise ValueError(
                f"the shared expert's size {wide} is not a multiple of an expert's, {F}"
            )
        shared = wide // F
    return {
        "n_experts": X,
        "n_active_experts": size(c, "num_experts_per_tok"),
        "d_expert": F,
        "n_dense_layers": dense,
        "n_shared_experts": shared,
        "shared_gate": family == "qwen3_next",
    }


def _many_experts(c: dict) -> int:
    for name in ("num_local_experts", "n_routed_experts", "num_experts"):
        if c.get(name) is not None:
            return number(c, name, 0)
    raise ValueError("this checkpoint's config lacks num_experts")


def _dense_layers(c: dict, family: str, L: int) -> int:
    """How many layers, from the first on, have no experts."""
    if family == "deepseek_v3" and c.get("first_k_dense_replace") is None:
        raise ValueError("this checkpoint's config lacks first_k_dense_replace")
    first = number(c, "first_k_dense_replace", 0)
    every = 1 if c.get("decoder_sparse_step") is None else size(c, "decoder_sparse_step")
    never = listed(c, "mlp_only_layers")
    dense = [i < first or i in never or (i + 1) % every != 0 for i in range(L)]
    many = sum([1 if one else 0 for one in dense])
    for i in range(L):
        if dense[i] != (i < many):
            raise ValueError(
                "this checkpoint has dense layers between those with experts; labkit has them first"
                " only"
            )
    return many


def _latent(c: dict) -> dict:
    if "q_lora_rank" not in c:
        raise ValueError("this checkpoint's config lacks q_lora_rank")
    return {
        "q_lora_rank": None if c["q_lora_rank"] is None else size(c, "q_lora_rank"),
        "kv_lora_rank": size(c, "kv_lora_rank"),
        "qk_nope_head_dim": size(c, "qk_nope_head_dim"),
        "qk_rope_head_dim": size(c, "qk_rope_head_dim"),
        "v_head_dim": size(c, "v_head_dim"),
    }


def _delta(c: dict) -> dict:
    return {
        "delta_n_key_heads": size(c, "linear_num_key_heads"),
        "delta_n_value_heads": size(c, "linear_num_value_heads"),
        "delta_key_dim": size(c, "linear_key_head_dim"),
        "delta_value_dim": size(c, "linear_value_head_dim"),
        "delta_conv": size(c, "linear_conv_kernel_dim"),
    }


def _few_layers(L: int) -> int:
    if L > MOST_LAYERS:
        raise ValueError(f"a model of {L} layers can't be: at most {MOST_LAYERS} are read")
    return L


def _divides(D: int, name: str, H: int) -> None:
    if D % H != 0:
        raise ValueError(f"{name} {D} can't be shared by {H} heads: {D} % {H} = {D % H}")

"""Our sizes from a transformers `config.json`.

What labkit does not apply is refused in a sentence, never dropped in silence.
"""

from __future__ import annotations

import math
from typing import Any

from labkit.config import ModelConfig, UnknownName
from labkit.weights.families import FAMILIES

APPLIED = {  # settings that change the arithmetic, and the one value of each that labkit computes
    "hidden_act": "silu",
    "hidden_activation": "gelu_pytorch_tanh",
    "activation_function": "gelu_new",
    "mlp_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "swiglu_alpha": 1.702,
    "swiglu_limit": 7.0,
    "rope_interleave": True,
}
TYPES = {"full_attention": "full", "sliding_attention": "sliding", "linear_attention": "delta"}


class _Config(dict):
    def __missing__(self, name):
        raise ValueError(f"this checkpoint's config lacks {name}")


def config_from_hf(c: dict) -> ModelConfig:
    """ModelConfig of a checkpoint.

    Raises UnknownName for a family that labkit lacks, ValueError for what it lacks or we cannot
    apply.
    """
    c = _Config(c)
    family = c.get("model_type")
    if family not in FAMILIES:
        raise UnknownName("model family", str(family), FAMILIES)
    for name, value in APPLIED.items():
        if name in c and c[name] != value:
            raise ValueError(
                f"this checkpoint has {name} = {c[name]!r}, which labkit does not apply; only"
                f" {value!r} is"
            )
    eos = c.get("eos_token_id")
    same: dict[str, Any] = dict(eos=tuple(eos) if isinstance(eos, list) else eos)
    if family == "gpt2":
        D, H = c["n_embd"], c["n_head"]
        return ModelConfig(
            c["vocab_size"],
            D,
            c["n_layer"],
            H,
            H,
            D // H,
            c.get("n_inner") or 4 * D,
            c["n_positions"],
            **same,
            tie_embeddings=c.get("tie_word_embeddings", True),
            norm_eps=c["layer_norm_epsilon"],
            position="learned",
            norm="layer",
            ffn="gelu",
            bias=True,
        )
    same |= _rope(c) | _experts(c, family) | EXTRA.get(family, lambda c: {})(c)
    same.setdefault("layer_types", _layer_types(c))
    H = c["num_attention_heads"]
    return ModelConfig(
        c["vocab_size"],
        c["hidden_size"],
        c["num_hidden_layers"],
        H,
        c.get("num_key_value_heads") or H,
        c.get("head_dim") or c["hidden_size"] // H,
        c["intermediate_size"],
        c["max_position_embeddings"],
        **same,
        window=c.get("sliding_window") if "sliding" in (same["layer_types"] or ()) else None,
        tie_embeddings=c.get("tie_word_embeddings", False),
        norm_eps=c["rms_norm_eps"],
        attention_bias=c.get("attention_bias", False),
        qk_norm=family.startswith(("qwen3", "gemma3")),
    )


def _layer_types(c: dict) -> tuple[str, ...] | None:
    L = c["num_hidden_layers"]
    if c.get("layer_types"):
        return tuple(TYPES.get(t, str(t)) for t in c["layer_types"])
    # Gemma 3, as older versions wrote it: every so-manieth layer is full
    if c.get("sliding_window_pattern"):
        return tuple(
            "sliding" if (i + 1) % c["sliding_window_pattern"] else "full" for i in range(L)
        )
    return (
        ("sliding",) * L if c.get("sliding_window") and c.get("use_sliding_window", True) else None
    )


def _rope(c: dict) -> dict:
    rope = _Config(c.get("rope_parameters") or c.get("rope_scaling") or {})
    local = c.get("rope_local_base_freq")
    if "full_attention" in rope:  # one rule for each type of layer
        sliding, rope = (_Config(rope[f"{kind}_attention"]) for kind in ("sliding", "full"))
        if sliding.get("rope_type", "default") != "default":
            raise ValueError(
                f"this checkpoint stretches RoPE of its sliding layers by {sliding['rope_type']!r};"
                " labkit does so for full layers only"
            )
        local = sliding["rope_theta"]
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaling = {
        k: v for k, v in rope.items() if k not in ("rope_theta", "partial_rotary_factor", "type")
    } | {"rope_type": kind}
    return dict(
        rope_theta=float(rope.get("rope_theta") or c.get("rope_theta") or 10000.0),
        rope_scaling=None if kind == "default" else scaling,
        rope_local_theta=None if local is None else float(local),
        partial_rotary=rope.get("partial_rotary_factor") or c.get("partial_rotary_factor") or 1.0,
    )


def _experts(c: dict, family: str) -> dict:
    X = c.get("num_local_experts") or c.get("n_routed_experts") or c.get("num_experts") or 0
    if not X or family not in ("mixtral", "gpt_oss", "qwen3_moe", "qwen3_next", "deepseek_v3"):
        return {}
    every = c.get("decoder_sparse_step", 1)
    never = c.get("mlp_only_layers") or []
    L = c["num_hidden_layers"]
    dense = [
        i < c.get("first_k_dense_replace", 0) or i in never or (i + 1) % every != 0
        for i in range(L)
    ]
    if all(dense):
        return {}
    if any(dense[sum(dense) :]):
        raise ValueError(
            "this checkpoint has dense layers between those with experts; labkit has them first"
            " only"
        )
    size = c.get("moe_intermediate_size") or c["intermediate_size"]
    shared = c.get("n_shared_experts") or 0
    if c.get("shared_expert_intermediate_size"):
        shared, rest = divmod(c["shared_expert_intermediate_size"], size)
        if rest:
            raise ValueError(
                f"the shared expert's size {c['shared_expert_intermediate_size']} is not a multiple"
                f" of an expert's, {size}"
            )
    return dict(
        n_experts=X,
        n_active_experts=c["num_experts_per_tok"],
        d_expert=size,
        n_dense_layers=sum(dense),
        n_shared_experts=shared,
        shared_gate=family == "qwen3_next" and shared > 0,
        renormalise=family in ("mixtral", "gpt_oss") or c.get("norm_topk_prob", False),
    )


def _gemma3(c: dict) -> dict:
    return dict(
        ffn="geglu",
        post_norms=True,
        embed_scale=math.sqrt(c["hidden_size"]),
        query_scale=c["query_pre_attn_scalar"] ** -0.5,
    )


def _gpt_oss(c: dict) -> dict:
    return dict(ffn="swiglu_clamped", sinks=True, expert_bias=True)


def _deepseek(c: dict) -> dict:
    if c.get("attention_bias"):
        raise ValueError(
            "this checkpoint has biases in its latent projections, which labkit does not apply"
        )
    rope = _Config(c.get("rope_parameters") or c.get("rope_scaling") or {})
    scale = (c["qk_nope_head_dim"] + c["qk_rope_head_dim"]) ** -0.5
    if (
        rope.get("mscale_all_dim")
        and rope.get("rope_type", rope.get("type", "default")) != "default"
    ):
        scale *= (
            (0.1 * rope["mscale_all_dim"] * math.log(rope["factor"]) + 1) ** 2
            if rope["factor"] > 1
            else 1
        )
    return dict(
        layer_types=("mla",) * c["num_hidden_layers"],
        query_scale=scale,
        router="sigmoid",
        router_bias=True,
        **{
            name: c[name]
            for name in (
                "q_lora_rank",
                "kv_lora_rank",
                "qk_nope_head_dim",
                "qk_rope_head_dim",
                "v_head_dim",
            )
        },
        routed_scale=c["routed_scaling_factor"],
        n_expert_groups=c["n_group"],
        n_active_groups=c["topk_group"],
    )


def _qwen3_next(c: dict) -> dict:
    return dict(
        output_gate=True,
        delta_n_key_heads=c["linear_num_key_heads"],
        delta_n_value_heads=c["linear_num_value_heads"],
        delta_key_dim=c["linear_key_head_dim"],
        delta_value_dim=c["linear_value_head_dim"],
        delta_conv=c["linear_conv_kernel_dim"],
    )


EXTRA = {
    "gemma3_text": _gemma3,
    "gpt_oss": _gpt_oss,
    "deepseek_v3": _deepseek,
    "qwen3_next": _qwen3_next,
}

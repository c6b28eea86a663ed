"""A ModelConfig from a transformers `config.json`. Its sizes are read by `hf_sizes`; here what they
do not depend on: RoPE, scales, activations.

What labkit does not apply is refused in a sentence, never dropped in silence.
"""

from __future__ import annotations

import math

from labkit.config import ModelConfig
from labkit.hf_sizes import sizes_from_hf

APPLIED = {  # settings that change the arithmetic, and the one value of each that labkit computes
    "hidden_act": "silu",
    "hidden_activation": "gelu_pytorch_tanh",
    "activation_function": "gelu_new",
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "swiglu_alpha": 1.702,
    "swiglu_limit": 7.0,
    "rope_interleave": True,
}


class _Config(dict):
    def __missing__(self, name):
        raise ValueError(f"this checkpoint's config lacks {name}")


def config_from_hf(c: dict) -> ModelConfig:
    """ModelConfig of a checkpoint.

    Raises UnknownName for a family that labkit lacks, ValueError for what it lacks or we cannot
    apply.
    """
    sizes, c = sizes_from_hf(c), _Config(c)
    for name, value in APPLIED.items():
        if name in c and c[name] != value:
            raise ValueError(
                f"this checkpoint has {name} = {c[name]!r}, which labkit does not apply; only"
                f" {value!r} is"
            )
    family, eos = c["model_type"], c.get("eos_token_id")
    sizes["eos"] = tuple(eos) if isinstance(eos, list) else eos
    if family == "gpt2":
        return ModelConfig(**sizes, norm_eps=c["layer_norm_epsilon"])
    sizes |= _rope(c) | EXTRA.get(family, lambda c: {})(c)
    if sizes.get("n_experts"):
        sizes["renormalise"] = family in ("mixtral", "gpt_oss") or c.get("norm_topk_prob", False)
    return ModelConfig(**sizes, norm_eps=c["rms_norm_eps"])


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


def _gemma3(c: dict) -> dict:
    return dict(
        ffn="geglu",
        embed_scale=math.sqrt(c["hidden_size"]),
        query_scale=c["query_pre_attn_scalar"] ** -0.5,
    )


def _gpt_oss(c: dict) -> dict:
    return dict(ffn="swiglu_clamped")


def _deepseek(c: dict) -> dict:
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
        query_scale=scale,
        router="sigmoid",
        router_bias=True,
        routed_scale=c["routed_scaling_factor"],
        n_expert_groups=c["n_group"],
        n_active_groups=c["topk_group"],
    )


EXTRA = {
    "gemma3_text": _gemma3,
    "gpt_oss": _gpt_oss,
    "deepseek_v3": _deepseek,
}

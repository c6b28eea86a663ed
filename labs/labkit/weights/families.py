"""Where each family of transformers keeps its tensors: our parameter <- the tensors that are
stacked to make it.

A source is a name, or a name and what must be done to the tensor first. Only layouts differ: heads
that carry two things side by side, RoPE pairs kept next to each other, norms stored as weight - 1.
We turn all of them into one layout when loading.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from labkit.config import ModelConfig

Source = str | tuple[str, object]
Table = dict[str, Sequence[Source]]


def plus_one(w: Tensor) -> Tensor:
    """Gemma and Qwen3-Next store a norm's distance from 1."""
    return w + 1


def deinterleave(w: Tensor, dim: int = 0) -> Tensor:
    """Even rows, then odd ones: pairs (0,1), (2,3) … become (0,n/2), (1,n/2+1) …"""
    first, second = w.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return torch.cat([first, second], dim)


def rotate_tail(w: Tensor, tail: int, heads: int = 1) -> Tensor:
    """DeepSeek's heads end in `tail` rotated rows, pairs side by side; ours rotate the first half
    with the second.
    """
    w = w.unflatten(0, (heads, -1))
    return torch.cat([w[:, :-tail], deinterleave(w[:, -tail:], 1)], 1).flatten(0, 1)


def part_of_head(w: Tensor, heads: int, part: int) -> Tensor:
    """Qwen3-Next: each head's rows are a query, then a gate."""
    return w.unflatten(0, (heads, 2, -1))[:, part].flatten(0, 1)


def ungroup(w: Tensor, key_heads: int, sizes: list[int]) -> Tensor:
    """Qwen3-Next: each key head's rows hold its share of every projection; ours hold projection
    after projection.
    """
    return torch.cat(
        [part.flatten(0, 1) for part in w.unflatten(0, (key_heads, -1)).split(sizes, 1)]
    )


def transpose(w: Tensor) -> Tensor:
    """[..., in, out] -> [..., out, in]."""
    return w.transpose(-1, -2)


def gpt2(c: ModelConfig) -> Table:
    table: Table = {
        "embed.weight": ["transformer.wte.weight"],
        "positions.weight": ["transformer.wpe.weight"],
        "norm.weight": ["transformer.ln_f.weight"],
        "norm.bias": ["transformer.ln_f.bias"],
    }
    matrices = {
        "mixer.qkv": "attn.c_attn",
        "mixer.out": "attn.c_proj",
        "ffn.up": "mlp.c_fc",
        "ffn.down": "mlp.c_proj",
    }
    for i in range(c.n_layers):
        ours, theirs = f"blocks.{i}", f"transformer.h.{i}"
        for a, b in matrices.items():
            table |= {
                f"{ours}.{a}.weight": [(f"{theirs}.{b}.weight", transpose)],
                f"{ours}.{a}.bias": [f"{theirs}.{b}.bias"],
            }
        for n in "12":
            table |= {
                f"{ours}.norm{n}.{end}": [f"{theirs}.ln_{n}.{end}"] for end in ("weight", "bias")
            }
    return table


def decoder(c: ModelConfig, zero_centred: bool = False, oss: bool = False) -> Table:
    """All families after Llama name their tensors alike; what a config lacks is left out."""
    norm = lambda name: [(f"{name}.weight", plus_one)] if zero_centred else [f"{name}.weight"]
    table: Table = {
        "embed.weight": ["model.embed_tokens.weight"],
        "norm.weight": norm("model.norm"),
    }
    if not c.tie_embeddings:
        table["head.weight"] = ["lm_head.weight"]
    for i, kind in enumerate(c.types):
        theirs, layer = f"model.layers.{i}", {}
        layer["norm1.weight"] = norm(f"{theirs}.input_layernorm")
        if c.post_norms:
            layer |= {
                "after1.weight": norm(f"{theirs}.post_attention_layernorm"),
                "norm2.weight": norm(f"{theirs}.pre_feedforward_layernorm"),
                "after2.weight": norm(f"{theirs}.post_feedforward_layernorm"),
            }
        else:
            layer["norm2.weight"] = norm(f"{theirs}.post_attention_layernorm")
        if kind == "delta":
            layer |= _delta(c, f"{theirs}.linear_attn")
        elif kind == "mla":
            layer |= _latent(c, f"{theirs}.self_attn")
        else:
            layer |= _attention(c, f"{theirs}.self_attn", norm)
        layer |= (
            _experts(c, f"{theirs}.mlp", oss)
            if c.has_experts(i)
            else _dense("ffn", f"{theirs}.mlp")
        )
        table |= {f"blocks.{i}.{name}": sources for name, sources in layer.items()}
    return table


def _attention(c: ModelConfig, p: str, norm) -> Table:
    table: Table = {}
    for end in ("weight", "bias") if c.attention_bias else ("weight",):
        q, k, v = (f"{p}.{n}_proj.{end}" for n in "qkv")
        qkv: list[Source] = [q, k, v]
        if c.output_gate:
            qkv = [
                (q, partial(part_of_head, heads=c.n_heads, part=0)),
                k,
                v,
                (q, partial(part_of_head, heads=c.n_heads, part=1)),
            ]
        table |= {f"mixer.qkv.{end}": qkv, f"mixer.out.{end}": [f"{p}.o_proj.{end}"]}
    if c.qk_norm:
        table |= {f"mixer.{n}_norm.weight": norm(f"{p}.{n}_norm") for n in "qk"}
    return table | ({"mixer.sinks": [f"{p}.sinks"]} if c.sinks else {})


def _latent(c: ModelConfig, p: str) -> Table:
    up = (
        f"{p}.{'q_b_proj' if c.q_lora_rank else 'q_proj'}.weight",
        partial(rotate_tail, tail=c.qk_rope_head_dim, heads=c.n_heads),
    )
    down: list[Source] = [
        f"{p}.q_a_proj.weight" if c.q_lora_rank else up,
        (f"{p}.kv_a_proj_with_mqa.weight", partial(rotate_tail, tail=c.qk_rope_head_dim)),
    ]
    table: Table = {
        "mixer.down.weight": down,
        "mixer.kv_norm.weight": [f"{p}.kv_a_layernorm.weight"],
        "mixer.kv_up": [(f"{p}.kv_b_proj.weight", lambda w: w.unflatten(0, (c.n_heads, -1)))],
        "mixer.out.weight": [f"{p}.o_proj.weight"],
    }
    return table | (
        {"mixer.q_norm.weight": [f"{p}.q_a_layernorm.weight"], "mixer.q_up.weight": [up]}
        if c.q_lora_rank
        else {}
    )


def _delta(c: ModelConfig, p: str) -> Table:
    keys = c.delta_n_key_heads
    dk = c.delta_key_dim
    dv = c.delta_value_dim
    share = c.delta_n_value_heads // c.delta_n_key_heads
    return {
        "mixer.qkvzba.weight": [
            (
                f"{p}.in_proj_qkvz.weight",
                partial(ungroup, key_heads=keys, sizes=[dk, dk, share * dv, share * dv]),
            ),
            (f"{p}.in_proj_ba.weight", partial(ungroup, key_heads=keys, sizes=[share, share])),
        ],
        "mixer.conv": [(f"{p}.conv1d.weight", lambda w: w.squeeze(1))],
        "mixer.A_log": [f"{p}.A_log"],
        "mixer.dt_bias": [f"{p}.dt_bias"],
        "mixer.norm.weight": [f"{p}.norm.weight"],
        "mixer.out.weight": [f"{p}.out_proj.weight"],
    }


def _dense(ours: str, p: str) -> Table:
    return {
        f"{ours}.gate_up.weight": [f"{p}.gate_proj.weight", f"{p}.up_proj.weight"],
        f"{ours}.down.weight": [f"{p}.down_proj.weight"],
    }


def _experts(c: ModelConfig, p: str, oss: bool) -> Table:
    if oss:
        halves = partial(deinterleave, dim=1)
        return {
            "ffn.router.score.weight": [f"{p}.router.weight"],
            "ffn.router.score.bias": [f"{p}.router.bias"],
            "ffn.gate_up": [(f"{p}.experts.gate_up_proj", lambda w: halves(transpose(w)))],
            "ffn.gate_up_bias": [(f"{p}.experts.gate_up_proj_bias", halves)],
            "ffn.down": [(f"{p}.experts.down_proj", transpose)],
            "ffn.down_bias": [f"{p}.experts.down_proj_bias"],
        }
    table: Table = {
        "ffn.router.score.weight": [f"{p}.gate.weight"],
        "ffn.gate_up": [f"{p}.experts.gate_up_proj"],
        "ffn.down": [f"{p}.experts.down_proj"],
    }
    if c.router_bias:
        table["ffn.router.correction"] = [f"{p}.gate.e_score_correction_bias"]
    if c.n_shared_experts:
        table |= _dense(
            "ffn.shared", f"{p}.shared_expert" if c.shared_gate else f"{p}.shared_experts"
        )
    return table | (
        {"ffn.shared_gate.weight": [f"{p}.shared_expert_gate.weight"]} if c.shared_gate else {}
    )


FAMILIES = {
    "gpt2": gpt2,
    "llama": decoder,
    "mistral": decoder,
    "qwen3": decoder,
    "gemma3_text": partial(decoder, zero_centred=True),
    "gpt_oss": partial(decoder, oss=True),
    "mixtral": decoder,
    "qwen3_moe": decoder,
    "deepseek_v3": decoder,
    "qwen3_next": partial(decoder, zero_centred=True),
}

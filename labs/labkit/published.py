"""The published models by name: sizes from each one's `config.json`, and tiny ones of ours for
tests and the first chapters.
"""

from __future__ import annotations

import math
from typing import Any

from labkit.config import ModelConfig, UnknownName


class Presets(dict):
    """Published models by name; an unknown name is answered with the nearest known one."""

    def __missing__(self, name):
        raise UnknownName("preset", name, self)


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
GPT_OSS_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
DEEPSEEK_ROPE = {
    "rope_type": "yarn",
    "factor": 40.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}
QWEN: dict[str, Any] = dict(norm_eps=1e-6, qk_norm=True, eos=(151645, 151643))


def sizes(*, V: int, D: int, L: int, H: int, G: int, E: int, F: int, context: int) -> dict:
    """ModelConfig's eight sizes by the letters of the alphabet (L layers)."""
    return {
        "vocab_size": V,
        "d_model": D,
        "n_layers": L,
        "n_heads": H,
        "n_kv_heads": G,
        "head_dim": E,
        "d_ff": F,
        "max_context": context,
    }


presets = Presets(
    {
        "gpt2-124m": ModelConfig(
            **sizes(V=50257, D=768, L=12, H=12, G=12, E=64, F=3072, context=1024),
            tie_embeddings=True,
            eos=50256,
            position="learned",
            norm="layer",
            ffn="gelu",
            bias=True,
        ),
        "smollm2-135m": ModelConfig(
            **sizes(V=49152, D=576, L=30, H=9, G=3, E=64, F=1536, context=8192),
            tie_embeddings=True,
            rope_theta=1e5,
            eos=2,
        ),
        "llama3.2-1b": ModelConfig(
            **sizes(V=128256, D=2048, L=16, H=32, G=8, E=64, F=8192, context=131072),
            tie_embeddings=True,
            rope_theta=5e5,
            rope_scaling=LLAMA3_ROPE,
            eos=(128001, 128008, 128009),
        ),
        "llama3-8b": ModelConfig(
            **sizes(V=128256, D=4096, L=32, H=32, G=8, E=128, F=14336, context=8192),
            rope_theta=5e5,
            eos=(128001, 128009),
        ),
        "llama3-70b": ModelConfig(
            **sizes(V=128256, D=8192, L=80, H=64, G=8, E=128, F=28672, context=8192),
            rope_theta=5e5,
            eos=(128001, 128009),
        ),
        "mistral-7b-v0.1": ModelConfig(
            **sizes(V=32000, D=4096, L=32, H=32, G=8, E=128, F=14336, context=32768),
            layer_types=("sliding",) * 32,
            window=4096,
            eos=2,
        ),
        "qwen3-0.6b": ModelConfig(
            **sizes(V=151936, D=1024, L=28, H=16, G=8, E=128, F=3072, context=40960),
            tie_embeddings=True,
            rope_theta=1e6,
            **QWEN,
        ),
        "qwen3-30b-a3b": ModelConfig(
            **sizes(V=151936, D=2048, L=48, H=32, G=4, E=128, F=0, context=40960),
            rope_theta=1e6,
            **QWEN,
            n_experts=128,
            n_active_experts=8,
            d_expert=768,
        ),
        "qwen3-next-80b-a3b": ModelConfig(
            **sizes(V=151936, D=2048, L=48, H=16, G=2, E=256, F=0, context=262144),
            rope_theta=1e7,
            **QWEN,
            layer_types=("delta", "delta", "delta", "full") * 12,
            partial_rotary=0.25,
            output_gate=True,
            delta_n_key_heads=16,
            delta_n_value_heads=32,
            delta_key_dim=128,
            delta_value_dim=128,
            n_experts=512,
            n_active_experts=10,
            n_shared_experts=1,
            d_expert=512,
            shared_gate=True,
        ),
        "gemma3-27b": ModelConfig(
            **sizes(V=262208, D=5376, L=62, H=32, G=16, E=128, F=21504, context=131072),
            tie_embeddings=True,
            norm_eps=1e-6,
            qk_norm=True,
            layer_types=(("sliding",) * 5 + ("full",)) * 10 + ("sliding",) * 2,
            window=1024,
            eos=(1, 106),
            rope_theta=1e6,
            rope_local_theta=1e4,
            rope_scaling={"rope_type": "linear", "factor": 8.0},
            ffn="geglu",
            post_norms=True,
            embed_scale=math.sqrt(5376),
            query_scale=168**-0.5,
        ),
        "gpt-oss-20b": ModelConfig(
            **sizes(V=201088, D=2880, L=24, H=64, G=8, E=64, F=0, context=131072),
            layer_types=("sliding", "full") * 12,
            window=128,
            rope_theta=150000.0,
            rope_scaling=GPT_OSS_ROPE,
            attention_bias=True,
            sinks=True,
            expert_bias=True,
            ffn="swiglu_clamped",
            n_experts=32,
            n_active_experts=4,
            d_expert=2880,
            eos=(200002, 199999),
        ),
        "mixtral-8x7b": ModelConfig(
            **sizes(V=32000, D=4096, L=32, H=32, G=8, E=128, F=0, context=32768),
            rope_theta=1e6,
            eos=2,
            n_experts=8,
            n_active_experts=2,
            d_expert=14336,
        ),
        "deepseek-v3": ModelConfig(
            **sizes(V=129280, D=7168, L=61, H=128, G=128, E=0, F=18432, context=163840),
            layer_types=("mla",) * 61,
            norm_eps=1e-6,
            eos=1,
            q_lora_rank=1536,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            rope_scaling=DEEPSEEK_ROPE,
            query_scale=(0.1 * math.log(40) + 1) ** 2 / math.sqrt(192),
            n_experts=256,
            n_active_experts=8,
            n_shared_experts=1,
            d_expert=2048,
            n_dense_layers=3,
            router="sigmoid",
            router_bias=True,
            routed_scale=2.5,
            n_expert_groups=8,
            n_active_groups=4,
        ),
        # ours: small enough to run in NumPy and in tests, with random weights from a fixed seed
        "tiny": ModelConfig(**sizes(V=256, D=64, L=4, H=4, G=2, E=16, F=160, context=512)),
        "tiny-gpt2": ModelConfig(
            **sizes(V=256, D=64, L=4, H=4, G=4, E=16, F=256, context=512),
            tie_embeddings=True,
            position="learned",
            norm="layer",
            ffn="gelu",
            bias=True,
        ),
        "tiny-swa": ModelConfig(
            **sizes(V=256, D=64, L=4, H=4, G=2, E=16, F=160, context=512),
            layer_types=("sliding", "sliding", "sliding", "full"),
            window=32,
        ),
        "tiny-mla": ModelConfig(
            **sizes(V=256, D=64, L=4, H=4, G=4, E=0, F=160, context=512),
            layer_types=("mla",) * 4,
            kv_lora_rank=32,
            qk_nope_head_dim=16,
            qk_rope_head_dim=8,
            v_head_dim=16,
        ),
        "tiny-moe": ModelConfig(
            **sizes(V=256, D=64, L=4, H=4, G=2, E=16, F=160, context=512),
            n_experts=8,
            n_active_experts=2,
            n_shared_experts=1,
            d_expert=48,
            n_dense_layers=1,
        ),
        "tiny-delta": ModelConfig(
            **sizes(V=256, D=64, L=4, H=4, G=2, E=16, F=160, context=512),
            layer_types=("delta", "delta", "delta", "full"),
            delta_n_key_heads=2,
            delta_n_value_heads=4,
            delta_key_dim=16,
            delta_value_dim=16,
        ),
    }
)

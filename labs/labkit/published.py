"""The published models by name: sizes from each one's `config.json`, and tiny ones of ours for tests and the first chapters."""
from __future__ import annotations

import math
from typing import Any

from labkit.config import ModelConfig, UnknownName


class Presets(dict):
    """Published models by name; an unknown name is answered with the nearest known one."""

    def __missing__(self, name):
        raise UnknownName("preset", name, self)


LLAMA3_ROPE = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}
GPT_OSS_ROPE = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                "original_max_position_embeddings": 4096}
DEEPSEEK_ROPE = {"rope_type": "yarn", "factor": 40.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
                 "original_max_position_embeddings": 4096}
QWEN: dict[str, Any] = dict(norm_eps=1e-6, qk_norm=True, eos=(151645, 151643))

presets = Presets({
    #                                                              V       D   L   H   G    E      F  context
    "gpt2-124m": ModelConfig(50257, 768, 12, 12, 12, 64, 3072, 1024, tie_embeddings=True, eos=50256,
                             position="learned", norm="layer", ffn="gelu", bias=True),
    "smollm2-135m": ModelConfig(49152, 576, 30, 9, 3, 64, 1536, 8192, tie_embeddings=True, rope_theta=1e5, eos=2),
    "llama3.2-1b": ModelConfig(128256, 2048, 16, 32, 8, 64, 8192, 131072, tie_embeddings=True, rope_theta=5e5,
                               rope_scaling=LLAMA3_ROPE, eos=(128001, 128008, 128009)),
    "llama3-8b": ModelConfig(128256, 4096, 32, 32, 8, 128, 14336, 8192, rope_theta=5e5, eos=(128001, 128009)),
    "llama3-70b": ModelConfig(128256, 8192, 80, 64, 8, 128, 28672, 8192, rope_theta=5e5, eos=(128001, 128009)),
    "mistral-7b-v0.1": ModelConfig(32000, 4096, 32, 32, 8, 128, 14336, 32768, layer_types=("sliding",) * 32, window=4096, eos=2),
    "qwen3-0.6b": ModelConfig(151936, 1024, 28, 16, 8, 128, 3072, 40960, tie_embeddings=True, rope_theta=1e6, **QWEN),
    "qwen3-30b-a3b": ModelConfig(151936, 2048, 48, 32, 4, 128, 0, 40960, rope_theta=1e6, **QWEN,
                                 n_experts=128, n_active_experts=8, d_expert=768),
    "qwen3-next-80b-a3b": ModelConfig(151936, 2048, 48, 16, 2, 256, 0, 262144, rope_theta=1e7, **QWEN,
                                      layer_types=("delta", "delta", "delta", "full") * 12, partial_rotary=0.25, output_gate=True,
                                      delta_n_key_heads=16, delta_n_value_heads=32, delta_key_dim=128, delta_value_dim=128,
                                      n_experts=512, n_active_experts=10, n_shared_experts=1, d_expert=512, shared_gate=True),
    "gemma3-27b": ModelConfig(262208, 5376, 62, 32, 16, 128, 21504, 131072, tie_embeddings=True, norm_eps=1e-6, qk_norm=True,
                              layer_types=(("sliding",) * 5 + ("full",)) * 10 + ("sliding",) * 2, window=1024, eos=(1, 106),
                              rope_theta=1e6, rope_local_theta=1e4, rope_scaling={"rope_type": "linear", "factor": 8.0},
                              ffn="geglu", post_norms=True, embed_scale=math.sqrt(5376), query_scale=168**-0.5),
    "gpt-oss-20b": ModelConfig(201088, 2880, 24, 64, 8, 64, 0, 131072, layer_types=("sliding", "full") * 12, window=128,
                               rope_theta=150000.0, rope_scaling=GPT_OSS_ROPE, attention_bias=True, sinks=True, expert_bias=True,
                               ffn="swiglu_clamped", n_experts=32, n_active_experts=4, d_expert=2880, eos=(200002, 199999)),
    "mixtral-8x7b": ModelConfig(32000, 4096, 32, 32, 8, 128, 0, 32768, rope_theta=1e6, eos=2,
                                n_experts=8, n_active_experts=2, d_expert=14336),
    "deepseek-v3": ModelConfig(129280, 7168, 61, 128, 128, 0, 18432, 163840, layer_types=("mla",) * 61, norm_eps=1e-6, eos=1,
                               q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
                               rope_scaling=DEEPSEEK_ROPE, query_scale=(0.1 * math.log(40) + 1) ** 2 / math.sqrt(192),
                               n_experts=256, n_active_experts=8, n_shared_experts=1, d_expert=2048, n_dense_layers=3,
                               router="sigmoid", router_bias=True, routed_scale=2.5, n_expert_groups=8, n_active_groups=4),
    # ours: small enough to run in NumPy and in tests, with random weights from a fixed seed
    "tiny": ModelConfig(256, 64, 4, 4, 2, 16, 160, 512),
    "tiny-gpt2": ModelConfig(256, 64, 4, 4, 4, 16, 256, 512, tie_embeddings=True, position="learned", norm="layer", ffn="gelu", bias=True),
    "tiny-swa": ModelConfig(256, 64, 4, 4, 2, 16, 160, 512, layer_types=("sliding", "sliding", "sliding", "full"), window=32),
    "tiny-mla": ModelConfig(256, 64, 4, 4, 4, 0, 160, 512, layer_types=("mla",) * 4, kv_lora_rank=32, qk_nope_head_dim=16,
                            qk_rope_head_dim=8, v_head_dim=16),
    "tiny-moe": ModelConfig(256, 64, 4, 4, 2, 16, 160, 512, n_experts=8, n_active_experts=2, n_shared_experts=1, d_expert=48, n_dense_layers=1),
    "tiny-delta": ModelConfig(256, 64, 4, 4, 2, 16, 160, 512, layer_types=("delta", "delta", "delta", "full"),
                              delta_n_key_heads=2, delta_n_value_heads=4, delta_key_dim=16, delta_value_dim=16),
})

"""Sizes that cannot be built are refused in a sentence; the published ones say what their makers
published.
"""

import pytest
import torch

import labkit
from labkit import presets
from labkit.config import LAYER_TYPES

PUBLISHED = (
    "gpt2-124m",
    "smollm2-135m",
    "llama3.2-1b",
    "llama3-8b",
    "llama3-70b",
    "mistral-7b-v0.1",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "qwen3-next-80b-a3b",
    "gemma3-27b",
    "gpt-oss-20b",
    "mixtral-8x7b",
    "deepseek-v3",
)
MOE = dict(n_experts=8, n_active_experts=2, d_expert=48)


@pytest.mark.parametrize(
    "name,changes,message",
    [
        (
            "tiny",
            dict(n_heads=9, n_kv_heads=4),
            r"9 query heads can't share 4 key/value heads: 9 % 4 = 1",
        ),
        ("tiny", dict(vocab_size=0), "vocab_size must be a whole number >= 1, not 0"),
        ("tiny", dict(d_ff=0), "d_ff must be a whole number >= 1, not 0"),
        ("tiny", dict(head_dim=2.5), "head_dim must be a whole number >= 1, not 2.5"),
        ("tiny", dict(head_dim=15), "RoPE rotates pairs, so head_dim must be even, not 15"),
        ("tiny", dict(partial_rotary=0.2), "partial_rotary = 0.2 makes 3"),
        ("tiny", dict(partial_rotary=2.0), "within a head of 16: partial_rotary = 2.0 makes 32"),
        ("tiny", dict(layer_types=("full",)), "layer_types names 1 layers, but n_layers is 4"),
        (
            "tiny",
            dict(layer_types=("full", "full", "slidng", "full")),
            "no layer type is called 'slidng'; did you mean 'sliding'",
        ),
        ("tiny", dict(norm="rsm"), "no norm is called 'rsm'; did you mean 'rms'"),
        ("tiny", dict(ffn="swigul"), "no ffn is called 'swigul'; did you mean 'swiglu'"),
        (
            "tiny",
            dict(rope_scaling={"rope_type": "dynamic"}),
            "rope_type is one of llama3, linear, yarn, not {'rope_type': 'dynamic'}",
        ),
        (
            "tiny",
            dict(rope_scaling="llama3"),
            "RoPE scaling is a dict whose rope_type is one of llama3, linear, yarn, not 'llama3'",
        ),
        (
            "tiny",
            dict(rope_scaling={"rope_type": "llama3"}),
            "RoPE scaling 'llama3' lacks factor, low_freq_factor, high_freq_factor, original_max",
        ),
        (
            "tiny",
            dict(rope_scaling={"rope_type": "yarn", "factor": 2.0}),
            "RoPE scaling 'yarn' lacks original_max_position_embeddings",
        ),
        ("tiny", dict(n_dense_layers=5), "n_dense_layers must be 0 to 4, not 5"),
        ("tiny", dict(n_layers="4"), "n_layers must be a whole number >= 1, not '4'"),
        ("tiny", dict(window="a"), "at least 1 token, not 'a'"),
        ("tiny-swa", dict(window=0), "a sliding layer needs a window of at least 1 token, not 0"),
        ("tiny", dict(window=-1), "at least 1 token, not -1"),
        ("tiny-swa", dict(window=None), "needs a window of at least 1 token, not None"),
        ("tiny-mla", dict(qk_rope_head_dim=7), "qk_rope_head_dim must be even, not 7"),
        ("tiny-mla", dict(kv_lora_rank=0), "kv_lora_rank must be a whole number >= 1, not 0"),
        ("tiny-mla", dict(q_lora_rank=0), "q_lora_rank must be a whole number >= 1, not 0"),
        ("tiny-mla", dict(position="learned"), "position must be 'rope', not 'learned'"),
        ("tiny-moe", dict(n_active_experts=9), "can't use 9 of 8 experts"),
        (
            "tiny-moe",
            dict(n_active_experts=0),
            "n_active_experts must be a whole number >= 1, not 0",
        ),
        ("tiny-moe", dict(d_expert=0), "d_expert must be a whole number >= 1"),
        ("tiny-moe", dict(n_dense_layers=5), "n_dense_layers must be 0 to 4, not 5"),
        ("tiny-moe", dict(n_expert_groups=3), "8 experts can't form 3 equal groups"),
        ("tiny-moe", dict(n_expert_groups=4, n_active_groups=5), "groups of which 5 are active"),
        ("tiny-moe", dict(n_expert_groups=8), "1 active groups of 1 experts can't offer 2"),
        ("tiny-moe", dict(ffn="gelu"), "experts are gated"),
        ("tiny-moe", dict(router="sigmod"), "no router is called 'sigmod'; did you mean 'sigmoid'"),
        (
            "tiny-delta",
            dict(delta_n_value_heads=3),
            "3 delta value heads can't share 2 key heads: 3 % 2 = 1",
        ),
        ("tiny-delta", dict(delta_key_dim=0), "delta_key_dim must be a whole number >= 1, not 0"),
        ("tiny-delta", dict(delta_conv=0), "delta_conv must be a whole number >= 1, not 0"),
    ],
)
def test_what_can_not_be_built_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message) as e:
        presets[name].replace(**changes)
    assert "\n" not in str(e.value)


def test_layer_types_may_be_a_list():
    config = presets["tiny"].replace(layer_types=["full"] * 4)
    assert config.types == ("full",) * 4 and hash(config) == hash(
        presets["tiny"].replace(layer_types=("full",) * 4)
    )


def test_sizes_nobody_uses_may_be_zero():
    presets["tiny"].replace(d_ff=0, **MOE)
    presets["tiny-mla"].replace(head_dim=0)
    presets["tiny-delta"].replace(layer_types=("delta",) * 4, head_dim=0)


def test_all_published_models_are_there():
    assert set(PUBLISHED) <= set(presets)
    assert {t for name in PUBLISHED for t in presets[name].types} == set(LAYER_TYPES)
    with pytest.raises(ValueError, match="did you mean 'deepseek-v3'"):
        presets["deepsek-v3"]


@pytest.mark.parametrize("name", presets)
def test_every_preset_builds(name):
    with torch.device("meta"):
        model = labkit.GPT(presets[name])
    kinds = {"full": "Attention", "sliding": "Attention", "mla": "MLA", "delta": "GatedDeltaNet"}
    assert [type(b.mixer).__name__ for b in model.blocks] == [kinds[t] for t in presets[name].types]
    assert [type(b.ffn).__name__ == "MoE" for b in model.blocks] == [
        presets[name].has_experts(i) for i in range(len(model.blocks))
    ]


def test_layers_of_the_hybrids():
    gemma, next_, oss, v3 = (
        presets[n] for n in ("gemma3-27b", "qwen3-next-80b-a3b", "gpt-oss-20b", "deepseek-v3")
    )
    assert (
        gemma.types.count("full") == 10
        and gemma.types[5] == "full"
        and gemma.window_of(0) == 1024
        and gemma.window_of(5) is None
    )
    assert gemma.rope_of(0) == (1e4, None) and gemma.rope_of(5) == (
        1e6,
        {"rope_type": "linear", "factor": 8.0},
    )
    assert next_.types.count("full") == 12 and next_.types[3] == "full" and next_.rope_dim == 64
    assert oss.types[:2] == ("sliding", "full") and oss.window == 128
    assert [v3.has_experts(i) for i in (2, 3)] == [False, True]

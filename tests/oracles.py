"""Tiny random transformers models: the outside oracle. Nothing is downloaded.

Norm weights and biases are jittered (transformers starts them at 1 and 0, which hides a dropped
one) and matrices scaled up (its 0.02-std start makes attention nearly uniform, which hides a wrong
mask).
"""

import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers as hf  # noqa: E402

hf.logging.set_verbosity_error()

V, D, L, H, G, E, F = 97, 64, 4, 4, 2, 16, 128
SIZES = dict(
    vocab_size=V,
    hidden_size=D,
    num_hidden_layers=L,
    num_attention_heads=H,
    num_key_value_heads=G,
    intermediate_size=F,
    max_position_embeddings=128,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=None,
    pad_token_id=0,
    attn_implementation="eager",
)


def _make(model, config, **changes):
    return getattr(hf, model)(getattr(hf, config)(**(SIZES | changes)))


def _llama(**changes):
    return _make("LlamaForCausalLM", "LlamaConfig", **changes)


def _deepseek(**changes):
    return _make("DeepseekV3ForCausalLM", "DeepseekV3Config", **(MLA | changes))


def _qwen3_next(**changes):
    return _make("Qwen3NextForCausalLM", "Qwen3NextConfig", **(DELTA | changes))


YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
GEMMA_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
}
MLA = dict(
    num_key_value_heads=H,
    q_lora_rank=24,
    kv_lora_rank=32,
    qk_rope_head_dim=8,
    qk_nope_head_dim=16,
    v_head_dim=16,
    head_dim=8,
    n_routed_experts=8,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    moe_intermediate_size=32,
    n_shared_experts=1,
)
DELTA = dict(
    head_dim=E,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=8,
    linear_conv_kernel_dim=4,
    layer_types=["linear_attention"] * 3 + ["full_attention"],
)

ORACLES = {
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=V,
            n_embd=D,
            n_layer=L,
            n_head=H,
            n_positions=128,
            attn_implementation="eager",
        )
    ),
    "llama-mha": lambda: _llama(num_key_value_heads=H),
    "llama-gqa": lambda: _llama(),
    "llama-mqa": lambda: _llama(num_key_value_heads=1),
    "llama-tied": lambda: _llama(tie_word_embeddings=True),
    "llama-bias": lambda: _llama(attention_bias=True),
    "llama3-rope": lambda: _llama(
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    ),
    "llama-yarn": lambda: _llama(rope_parameters=dict(YARN)),
    "qwen3": lambda: _make("Qwen3ForCausalLM", "Qwen3Config", head_dim=32),
    "mistral": lambda: _make("MistralForCausalLM", "MistralConfig", sliding_window=8),
    "gemma3": lambda: _make(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        head_dim=E,
        sliding_window=8,
        query_pre_attn_scalar=24,
        layer_types=["sliding_attention"] * 3 + ["full_attention"],
        rope_parameters=GEMMA_ROPE,
        tie_word_embeddings=True,
    ),
    "gpt-oss": lambda: _make(
        "GptOssForCausalLM",
        "GptOssConfig",
        head_dim=E,
        sliding_window=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "mixtral": lambda: _make(
        "MixtralForCausalLM",
        "MixtralConfig",
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=None,
    ),
    "qwen3-moe": lambda: _make(
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        head_dim=E,
        num_local_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        mlp_only_layers=[0],
        norm_topk_prob=True,
    ),
    "qwen3-moe-raw": lambda: _make(
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        head_dim=E,
        num_local_experts=8,
        num_experts_per_tok=3,
        moe_intermediate_size=32,
        norm_topk_prob=False,
    ),
    "deepseek-dense": lambda: _deepseek(first_k_dense_replace=L, q_lora_rank=None),
    "deepseek-moe": lambda: _deepseek(
        first_k_dense_replace=1, n_group=4, topk_group=2, n_shared_experts=2
    ),
    "deepseek-yarn": lambda: _deepseek(
        first_k_dense_replace=2, rope_parameters=YARN | {"mscale": 0.7, "mscale_all_dim": 1.0}
    ),
    "qwen3-next-dense": lambda: _qwen3_next(num_experts=0, mlp_only_layers=list(range(L))),
    "qwen3-next": lambda: _qwen3_next(
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    ),
}
EXPERTS = (
    "gpt-oss",
    "mixtral",
    "qwen3-moe",
    "qwen3-moe-raw",
    "deepseek-moe",
    "deepseek-yarn",
    "qwen3-next",
)
WINDOWED = ("mistral", "gemma3", "gpt-oss")
RECURRENT = ("qwen3-next-dense", "qwen3-next")


def gate(name: str) -> float:
    """How far fp32 logits of size 2 to 10 may differ: rounding stays below, the smallest seeded
    fault is 50 times above.
    """
    return 1e-4 if name in RECURRENT else 5e-5


def lead(model, prompt: list[int], reply: list[int]) -> float:
    """By how much the least certain token of a greedy reply beats the second best.

    Above twice the gate no order of sums can change the reply, on any processor.
    """
    import labkit

    logits = labkit.logits(model, prompt + reply[:-1])[len(prompt) - 1 :]
    best, second = logits.topk(2, dim=-1).values.T
    return (best - second).min().item()


def build(name: str, seed: int = 0):
    torch.manual_seed(seed)
    model = ORACLES[name]().float().eval()
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        corrections = [(n, b) for n, b in model.named_buffers() if "correction_bias" in n]
        # a bias stacked over experts has two dimensions
        for name, p in [*model.named_parameters(), *corrections]:
            p.add_(torch.randn(p.shape, generator=g) * 0.1) if p.dim() == 1 or name.endswith(
                "bias"
            ) else p.mul_(4.0)
    return model


def text(n: int, seed: int = 7) -> list[int]:
    return torch.randint(3, V, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def expected(model, tokens: list[int]) -> torch.Tensor:
    """transformers' logits [T,V] of one text, without a cache."""
    return model(torch.tensor([tokens]), use_cache=False).logits[0]

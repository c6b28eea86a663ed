"""Tiny random transformers models: the outside oracle. Nothing is downloaded.

Norm weights and biases are jittered (transformers starts them at 1 and 0, which hides a dropped one) and matrices scaled up
(its 0.02-std start makes attention nearly uniform, which hides a wrong mask).
"""
import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers as hf  # noqa: E402

hf.logging.set_verbosity_error()

V, D, L, H, G, E, F = 97, 64, 4, 4, 2, 16, 128
SIZES = dict(vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=H, num_key_value_heads=G, intermediate_size=F,
             max_position_embeddings=128, tie_word_embeddings=False, bos_token_id=1, eos_token_id=None, pad_token_id=0,
             attn_implementation="eager")


def _make(model, config, **changes):
    return getattr(hf, model)(getattr(hf, config)(**(SIZES | changes)))


ORACLES = {
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=V, n_embd=D, n_layer=L, n_head=H, n_positions=128, attn_implementation="eager")),
    "llama-mha": lambda: _make("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=H),
    "llama-gqa": lambda: _make("LlamaForCausalLM", "LlamaConfig"),
    "llama-mqa": lambda: _make("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=1),
    "llama-tied": lambda: _make("LlamaForCausalLM", "LlamaConfig", tie_word_embeddings=True),
    "llama3-rope": lambda: _make("LlamaForCausalLM", "LlamaConfig", rope_parameters={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}),
    "qwen3": lambda: _make("Qwen3ForCausalLM", "Qwen3Config", head_dim=32),
    "mistral": lambda: _make("MistralForCausalLM", "MistralConfig", sliding_window=8),
}


def build(name: str, seed: int = 0):
    torch.manual_seed(seed)
    model = ORACLES[name]().float().eval()
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.1) if p.dim() == 1 else p.mul_(4.0)
    return model


def text(n: int, seed: int = 7) -> list[int]:
    return torch.randint(3, V, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def expected(model, tokens: list[int]) -> torch.Tensor:
    """transformers' logits [T,V] of one text, without a cache."""
    return model(torch.tensor([tokens]), use_cache=False).logits[0]

"""The symbols summed over a model's layers. Each function takes a ModelConfig and returns one number."""
from __future__ import annotations

import math

from labkit.config import ModelConfig, UnknownName
from labkit.formulas import symbols as f

BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4.5}  # int4: groups of 32 share a 16-bit scale; int8: scales not counted


def bytes_of(elements: float, dtype: str) -> float:
    """Bytes that so many elements take in a dtype."""
    if dtype not in BITS:
        raise UnknownName("dtype", dtype, BITS)
    return elements * BITS[dtype] / 8


# -- parameters --------------------------------------------------------------------------------------------------


def _attention_weights(c: ModelConfig) -> int:
    return f.attention_weights(c.d_model, c.n_heads, c.n_kv_heads, c.head_dim)


def _ffn_weights(c: ModelConfig) -> int:
    return f.swiglu_weights(c.d_model, c.d_ff) if c.ffn == "swiglu" else f.gelu_weights(c.d_model, c.d_ff)


def _vectors(c: ModelConfig) -> int:
    """Norms and biases of one layer."""
    norms = 2 * c.d_model * (2 if c.norm == "layer" else 1)
    ffn_in = c.d_ff * (2 if c.ffn == "swiglu" else 1)
    biases = (c.n_heads + 2 * c.n_kv_heads) * c.head_dim + c.d_model + ffn_in + c.d_model if c.bias else 0
    return norms + biases + (2 * c.head_dim if c.qk_norm else 0)


def _embeddings(c: ModelConfig) -> int:
    return c.vocab_size * c.d_model + (c.max_context * c.d_model if c.position == "learned" else 0)


def parameters(config: ModelConfig) -> int:
    """All elements of the model; a tied matrix counts once."""
    c = config
    final_norm = c.d_model * (2 if c.norm == "layer" else 1)
    head = 0 if c.tie_embeddings else c.vocab_size * c.d_model
    return c.n_layers * (_attention_weights(c) + _ffn_weights(c) + _vectors(c)) + _embeddings(c) + final_norm + head


def active_parameters(config: ModelConfig) -> int:
    """Parameters less the experts a token does not choose: the same number for a dense model."""
    return parameters(config)


def weight_bytes(config: ModelConfig, dtype: str = "bf16") -> float:
    """Bytes to hold the model."""
    return bytes_of(parameters(config), dtype)


# -- compute -----------------------------------------------------------------------------------------------------


def _seen(c: ModelConfig, layer: int, context: int) -> int:
    """Tokens that a decoded token attends to in one layer."""
    window = c.window_of(layer)
    return context if window is None else min(context, window)


def attention_flops(config: ModelConfig, tokens: int, context: int) -> int:
    """Scores and weighted values of all layers, `tokens` queries over `context` keys each."""
    c = config
    return sum(f.attention_flops(tokens, _seen(c, i, context) if tokens == 1 else context, c.n_heads, c.head_dim)
               for i in range(c.n_layers))


def decode_flops(config: ModelConfig, context: int) -> int:
    """Matmul FLOPs of one decoded token; `context` counts it. Softmax, norms and RoPE are not counted."""
    c = config
    weights = c.n_layers * (_attention_weights(c) + _ffn_weights(c)) + c.vocab_size * c.d_model
    return f.projection_flops(1, weights) + attention_flops(c, 1, context)


def prefill_flops(config: ModelConfig, tokens: int) -> int:
    """Matmul FLOPs of a prompt, its head on the last token only. Attention counts the whole square, as torch's counter does."""
    c = config
    weights = c.n_layers * (_attention_weights(c) + _ffn_weights(c))
    return f.projection_flops(tokens, weights) + f.projection_flops(1, c.vocab_size * c.d_model) + attention_flops(c, tokens, tokens)


def loop_flops(config: ModelConfig, prompt: int, new: int, cached: bool) -> int:
    """Matmul FLOPs to decode `new` tokens after a prompt: one prefill and then single tokens, or everything again each step."""
    if not cached:
        return sum(prefill_flops(config, prompt + i) for i in range(new))
    return prefill_flops(config, prompt) + sum(decode_flops(config, prompt + i) for i in range(1, new))


# -- memory ------------------------------------------------------------------------------------------------------


def activation_bytes(config: ModelConfig, tokens: int, dtype: str = "bf16") -> float:
    """Bytes of the tensors alive at once while `tokens` pass through a layer: an estimate from above for prefill."""
    return bytes_of(f.activation_elements(tokens, config.d_model, config.d_ff, config.vocab_size), dtype)


def kv_cache_bytes(config: ModelConfig, context: int, batch: int = 1, dtype: str = "bf16") -> int:
    """Bytes of cache that `batch` requests of `context` tokens need, rounded up. A sliding layer keeps min(T, window)."""
    c = config
    tokens = sum(_seen(c, i, context) for i in range(c.n_layers))  # over all layers
    return math.ceil(batch * tokens * bytes_of(f.kv_bits_per_token(c.n_kv_heads, c.head_dim, 1), dtype))


def decode_bytes(config: ModelConfig, context: int, batch: int = 1, dtype: str = "bf16", cache_dtype: str | None = None) -> float:
    """Bytes read to decode one token for each of `batch` requests: every weight once, and all their caches.

    Of an untied embedding only the batch's rows are read. cache_dtype None: the weights' dtype, or bf16 under int8 and int4.
    """
    c = config
    cache_dtype = cache_dtype or ("bf16" if dtype in ("int8", "int4") else dtype)
    looked_up = c.max_context * c.d_model if c.position == "learned" else 0
    looked_up += 0 if c.tie_embeddings else c.vocab_size * c.d_model
    rows = batch * c.d_model * ((c.position == "learned") + (not c.tie_embeddings))
    return bytes_of(parameters(c) - looked_up + rows, dtype) + kv_cache_bytes(c, context, batch, cache_dtype)

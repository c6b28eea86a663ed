"""The symbols summed over a model's layers.

Each function takes a ModelConfig and returns one number.
"""

from __future__ import annotations

import math

from labkit.config import ModelConfig, UnknownName
from labkit.formulas import symbols as f
from labkit.formulas.parts import Part, parts

# int4: groups of 32 share a 16-bit scale; int8: scales not counted
BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4.5}


def bytes_of(elements: float, dtype: str) -> float:
    """Bytes that so many elements take in a dtype."""
    if dtype not in BITS:
        raise UnknownName("dtype", dtype, BITS)
    return elements * BITS[dtype] / 8


def parameters(config: ModelConfig) -> int:
    """All elements of the model; a tied matrix counts once."""
    return sum(part.elements for part in parts(config).values())


def _unchosen(c: ModelConfig, elements: int) -> int:
    """Of so many elements of routed experts, those that a token does not choose."""
    return elements // c.n_experts * (c.n_experts - c.n_active_experts) if elements else 0


def active_parameters(config: ModelConfig) -> int:
    """Parameters less the experts a token does not choose: the same number for a dense model."""
    return parameters(config) - _unchosen(
        config, parts(config).get("routed experts", Part()).elements
    )


def weight_bytes(config: ModelConfig, dtype: str = "bf16") -> float:
    """Bytes to hold the model."""
    return bytes_of(parameters(config), dtype)


def _check(**counts: float) -> None:
    for name, n in counts.items():
        if n < 0:
            raise ValueError(f"{name} can't be negative, but is {n}")


def _seen(c: ModelConfig, layer: int, context: int) -> int:
    """Tokens that a decoded token attends to in one layer."""
    return min(context, c.window_of(layer) or context)


def _mixing_flops(c: ModelConfig, layer: int, tokens: int, context: int, decode: bool) -> int:
    """What a layer's mixer computes besides its projections."""
    kind = c.types[layer]
    if kind == "delta":
        return f.delta_flops(tokens, c.delta_n_value_heads, c.delta_key_dim, c.delta_value_dim)
    if kind == "mla" and decode:
        return f.latent_decode_flops(tokens, context, c.n_heads, c.kv_lora_rank, c.qk_rope_head_dim)
    if kind == "mla":
        return f.latent_prefill_flops(
            tokens, context, c.n_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
        )
    return f.attention_flops(
        tokens, _seen(c, layer, context) if decode else context, c.n_heads, c.head_dim
    )


def attention_flops(config: ModelConfig, tokens: int, context: int) -> int:
    """Scores and weighted values of all layers, `tokens` queries over `context` keys each; of a
    delta layer its recurrence.

    One token is a decode: a sliding layer sees its window, MLA is absorbed. More are a prefill:
    whole squares, MLA re-projected.
    """
    return sum(
        _mixing_flops(config, i, tokens, context, decode=tokens == 1)
        for i in range(config.n_layers)
    )


def _matrices(c: ModelConfig) -> int:
    """Elements that one token is multiplied with, the head included."""
    held = parts(c)
    return sum(part.matrices for part in held.values()) - _unchosen(
        c, held.get("routed experts", Part()).matrices
    )


def decode_flops(config: ModelConfig, context: int) -> int:
    """Matmul FLOPs of one decoded token; `context` counts it.

    Softmax, norms and RoPE are not counted.

    A sliding layer sees min(T, window) tokens. MLA is absorbed: moving the query into the latent
    and the result out of it costs what one token's keys and values would. The delta rule's rank-one
    update and its convolution count as the multiply-adds they are.
    """
    _check(context=context)
    return f.projection_flops(1, _matrices(config)) + attention_flops(config, 1, context)


def prefill_flops(config: ModelConfig, tokens: int) -> int:
    """Matmul FLOPs of a prompt, its head on the last token only.

    Attention counts the whole square, as torch's counter does.

    That holds for sliding layers too. MLA re-projects its keys and values. The delta rule counts
    its recurrence and, as torch's counter does not, the short convolution; chunks add
    `symbols.delta_chunk_flops` and the solution of their triangular systems.
    """
    _check(tokens=tokens)
    c, head = config, config.vocab_size * config.d_model
    mixing = sum(_mixing_flops(c, i, tokens, tokens, decode=False) for i in range(c.n_layers))
    return f.projection_flops(tokens, _matrices(c) - head) + f.projection_flops(1, head) + mixing


def least_prefill_flops(config: ModelConfig, tokens: int) -> float:
    """Matmul FLOPs that no prefill can do without: as `prefill_flops`, but each token with those
    before it only, in a sliding layer with its window, as a kernel does that skips what is masked.
    """
    _check(tokens=tokens)
    c, head, mixing = config, config.vocab_size * config.d_model, 0
    for i, kind in enumerate(c.types):
        if kind == "delta":
            mixing += _mixing_flops(c, i, tokens, tokens, decode=False)
        else:
            pairs = f.attended_pairs(tokens, _seen(c, i, tokens))
            mixing += _mixing_flops(c, i, 1, pairs, decode=False)
    return f.projection_flops(tokens, _matrices(c) - head) + f.projection_flops(1, head) + mixing


def loop_flops(config: ModelConfig, prompt: int, new: int, cached: bool) -> int:
    """Matmul FLOPs to decode `new` tokens after a prompt: one prefill and then single tokens, or
    everything again each step.
    """
    if not cached:
        return sum(prefill_flops(config, prompt + i) for i in range(new))
    return prefill_flops(config, prompt) + sum(
        decode_flops(config, prompt + i) for i in range(1, new)
    )


def activation_bytes(config: ModelConfig, tokens: int, dtype: str = "bf16") -> float:
    """Bytes of the tensors alive at once while `tokens` pass through a layer: an estimate from
    above for prefill.
    """
    c = config
    width = max(c.d_ff, (c.n_active_experts + c.n_shared_experts) * c.d_expert)
    return bytes_of(f.activation_elements(tokens, c.d_model, width, c.vocab_size), dtype)


def cache_parts(
    config: ModelConfig, context: int, batch: int = 1, dtype: str = "bf16", whole: bool = False
) -> dict[str, float]:
    """Bytes of cache by layer type, for `batch` requests of `context` tokens: what `kv_cache_bytes`
    sums. whole: sliding layers keep all tokens, though they look at a window.
    """
    _check(context=context, batch=batch)
    c, bits = config, {}
    element = bytes_of(8, dtype)  # bits of one
    for i, kind in enumerate(c.types):
        if kind == "delta":
            one = f.delta_state_bits(
                c.delta_n_key_heads,
                c.delta_n_value_heads,
                c.delta_key_dim,
                c.delta_value_dim,
                c.delta_conv,
                element,
            )
        elif kind == "mla":
            one = context * f.latent_bits_per_token(c.kv_lora_rank, c.qk_rope_head_dim, element)
        else:
            kept = context if whole else _seen(c, i, context)
            one = kept * f.kv_bits_per_token(c.n_kv_heads, c.head_dim, element)
        bits[kind] = bits.get(kind, 0) + batch * one
    return {kind: n / 8 for kind, n in bits.items()}


def kv_cache_bytes(config: ModelConfig, context: int, batch: int = 1, dtype: str = "bf16") -> int:
    """Bytes of cache that `batch` requests of `context` tokens need, rounded up.

    A sliding layer keeps min(T, window) tokens, MLA one latent and one RoPE key for all heads, a
    delta layer its state in fp32 and the inputs of its convolution, whatever T. int8 counts 1 byte,
    without scales.
    """
    return math.ceil(sum(cache_parts(config, context, batch, dtype).values()))


def kv_cache_reserved_bytes(
    config: ModelConfig, context: int, batch: int = 1, dtype: str = "bf16", block_size: int = 16
) -> int:
    """Bytes that a paged engine sets aside where `kv_cache_bytes` are needed: whole blocks, and in
    a sliding layer those of the whole context.
    """
    if block_size < 1:
        raise ValueError(f"a block holds at least 1 token, not {block_size}")
    reserved = block_size * math.ceil(context / block_size)
    return math.ceil(sum(cache_parts(config, reserved, batch, dtype, whole=True).values()))


def read_parts(config: ModelConfig, batch: int = 1, dtype: str = "bf16") -> dict[str, float]:
    """Bytes of each part that a decode step of `batch` tokens reads.

    All of it, but for a table one looks up (a row for each token) and the experts (those that at
    least one token chose).
    """
    if batch < 1:
        raise ValueError(f"a decode step needs a batch of at least 1, not {batch}")
    c, out = config, {}
    for name, part in parts(c).items():
        n = part.elements
        if name in ("embedding", "positions"):
            n = batch * c.d_model
        elif name == "routed experts":
            n *= f.experts_read(c.n_experts, c.n_active_experts, batch) / c.n_experts
        out[name] = bytes_of(n, dtype)
    return out


def decode_bytes(
    config: ModelConfig,
    context: int,
    batch: int = 1,
    dtype: str = "bf16",
    cache_dtype: str | None = None,
) -> float:
    """Bytes read to decode one token for each of `batch` requests: every weight once, and all their
    caches.

    Of an untied embedding only the batch's rows are read, and of the experts those the batch is
    expected to touch. cache_dtype None: the weights' dtype, or bf16 under int8 and int4.
    """
    cache_dtype = cache_dtype or ("bf16" if dtype in ("int8", "int4") else dtype)
    return sum(read_parts(config, batch, dtype).values()) + kv_cache_bytes(
        config, context, batch, cache_dtype
    )

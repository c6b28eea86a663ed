"""What machines can do at best with a model: how many requests they hold, and the least time and
money that tokens take.

Floors, by the roofline: each weight read once a step, each multiply-add done once at the machine's
bf16 peak, reading and computing overlapped. No program is faster; a good one comes within a few
tens of percent. Several GPUs count as one with all their memory, bandwidth and arithmetic: links
are free here.
"""

from __future__ import annotations

import math

from labkit.config import ModelConfig
from labkit.formulas.costs import (
    decode_bytes,
    decode_flops,
    kv_cache_bytes,
    kv_cache_reserved_bytes,
    least_prefill_flops,
    read_parts,
    weight_bytes,
)
from labkit.formulas.roofline import Hardware, roofline_seconds
from labkit.formulas.serving import dollars_per_million

USABLE = 0.9  # of a GPU's memory; the rest is for activations, the allocator and the driver


def room_bytes(config: ModelConfig, memory_bytes: float, dtype: str = "bf16") -> float:
    """Bytes left for caches once the weights are in; below 0 the weights don't fit."""
    return USABLE * memory_bytes - weight_bytes(config, dtype)


def largest_batch(
    config: ModelConfig,
    memory_bytes: float,
    context: int,
    dtype: str = "bf16",
    cache_dtype: str = "bf16",
    reserved: bool = False,
) -> int:
    """Requests of `context` tokens whose caches fit beside the weights: as much as they need, or
    (reserved) as a paged engine sets aside that treats all layers alike.
    """
    if reserved:
        one = kv_cache_reserved_bytes(config, context, 1, cache_dtype)
    else:
        one = kv_cache_bytes(config, context, 1, cache_dtype)
    return max(0, math.floor(room_bytes(config, memory_bytes, dtype) / one))


def gpus_to_hold(
    config: ModelConfig,
    memory_bytes: float,
    context: int,
    users: int,
    dtype: str = "bf16",
    cache_dtype: str = "bf16",
) -> int:
    """GPUs whose memory holds the weights once and the caches of all users."""
    held = weight_bytes(config, dtype) + kv_cache_bytes(config, context, users, cache_dtype)
    return math.ceil(held / (USABLE * memory_bytes))


def prefill_bytes(
    config: ModelConfig, context: int, dtype: str = "bf16", cache_dtype: str = "bf16"
) -> float:
    """Bytes that a prompt moves: every weight it meets read once, its cache written."""
    read = sum(read_parts(config, context, dtype).values())
    return read + kv_cache_bytes(config, context, 1, cache_dtype)


def ttft_floor(
    config: ModelConfig,
    context: int,
    hardware: Hardware,
    dtype: str = "bf16",
    cache_dtype: str = "bf16",
) -> float:
    """Seconds that a prompt of `context` tokens takes at least, alone on the machine."""
    moved = prefill_bytes(config, context, dtype, cache_dtype)
    return roofline_seconds(least_prefill_flops(config, context), moved, hardware)


def tpot_floor(
    config: ModelConfig,
    context: int,
    batch: int,
    hardware: Hardware,
    dtype: str = "bf16",
    cache_dtype: str = "bf16",
) -> float:
    """Seconds between two tokens of each of `batch` requests at least: one decode step."""
    read = decode_bytes(config, context, batch, dtype, cache_dtype)
    return roofline_seconds(batch * decode_flops(config, context), read, hardware)


def together(hardware: Hardware, gpus: int) -> Hardware:
    """So many GPUs as one."""
    return Hardware(
        hardware.name, gpus * hardware.flops_per_second, gpus * hardware.bytes_per_second
    )


def sized(
    config: ModelConfig,
    hardware: Hardware,
    memory_bytes: float,
    price: float,
    gpus: int,
    context: int,
    users: int,
    dtype: str = "bf16",
    cache_dtype: str = "bf16",
) -> dict:
    """What `users` requests of `context` tokens take on so many GPUs, each with such a memory, at
    `price` dollars an hour each.

    Users that do not fit wait: the step that `tpot_floor` and `dollars_per_million` are of has as
    many as fit. Where not one fits there is no such number, but None. Money is for the tokens that
    are written; the prompts' share is not in it.
    """
    if gpus < 1 or context < 1 or users < 1:
        raise ValueError(
            f"GPUs, context and users must be at least 1, not {gpus}, {context}, {users}"
        )
    if price < 0:
        raise ValueError(f"a GPU-hour can't cost {price} dollars")
    whole, memory = together(hardware, gpus), gpus * memory_bytes
    fit = largest_batch(config, memory, context, dtype, cache_dtype)
    batch = min(users, fit)
    ttft, tpot, dollars = None, None, None
    if batch > 0:
        ttft = ttft_floor(config, context, whole, dtype, cache_dtype)
        tpot = tpot_floor(config, context, batch, whole, dtype, cache_dtype)
        dollars = dollars_per_million(gpus * price, batch / tpot)
    return {
        "cache_held_bytes": kv_cache_bytes(config, context, users, cache_dtype),
        "cache_reserved_bytes": kv_cache_reserved_bytes(config, context, users, cache_dtype),
        "largest_batch": fit,
        "ttft_floor": ttft,
        "tpot_floor": tpot,
        "dollars_per_million": dollars,
    }

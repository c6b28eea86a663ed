"""The arithmetic every model shares, in torch: linear layers, RMSNorm, RoPE, attention."""
from __future__ import annotations

import math
import platform
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.step import Step

# -- linear layers, and a layout the CPU likes -------------------------------------------------------------------


def can_pack(weight: Tensor) -> bool:
    """oneDNN's blocked layout exists for this weight, and the CPU has arithmetic for its dtype."""
    return (weight.device.type == "cpu" and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
            and (weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and has_bf16())))


def has_bf16() -> bool:
    """The CPU multiplies bf16 itself. Without it, bf16 saves memory but not time."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    return any(getattr(torch.cpu, f, lambda: False)() for f in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`: [N, in] -> [N, out]. A packed weight goes to oneDNN, any other to `F.linear`."""
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and len(x) > 32 and not has_bf16():
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """nn.Linear that can lay its weight out once, in the blocks oneDNN would otherwise make at every call.

    A step of one or two rows is a case of its own: `few` says whether it goes through the packed weight as it is, is
    `"padded"` to four rows (on AMD's Zen 4 four rows take *less* time than one), or through a `"plain"` copy kept beside it
    (faster on older Intel). The values are the same in every layout: `unpack` returns them bit by bit.
    """

    plain: Tensor | None = None
    few = "packed"

    def __init__(self, d_in: int, d_out: int, bias: bool = False):
        super().__init__(d_in, d_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2 or self.few == "packed":
            return linear(x, self.weight, self.bias)
        if self.few == "plain":
            return linear(x, self.plain, self.bias)
        return linear(F.pad(x, (0, 0, 0, 4 - len(x))), self.weight, self.bias)[: len(x)]

    def pack(self) -> None:
        if can_pack(self.weight) and not self.weight.is_mkldnn:
            self.plain = self.weight.detach()
            self.weight = nn.Parameter(torch.ops.mkldnn._reorder_linear_weight(self.plain, None), requires_grad=False)

    def choose(self, few: str) -> None:
        """How a packed layer treats one or two rows from now on; the plain copy is dropped where it is not used."""
        self.few, self.plain = few, self.plain if few == "plain" else None

    def unpack(self) -> None:
        if self.weight.is_mkldnn:
            self.weight, self.plain, self.few = nn.Parameter(self.weight.to_dense()), None, "packed"


def fastest_for_few(layers: list[Linear], rounds: int = 4) -> str:
    """How this CPU multiplies one row fastest, over all packed `layers` in turn: "packed", "padded" or "plain" (see `Linear`).

    The ordinary layout must win by 5 %, because it costs the memory of a second copy.
    """
    rows = {layer.in_features: torch.ones(1, layer.in_features, dtype=layer.weight.dtype) for layer in layers}
    best = dict.fromkeys(("packed", "padded", "plain"), math.inf)
    for few in [*best] * rounds:  # interleaved, so that a busy moment hits all
        start = time.perf_counter()
        for layer in layers:
            layer.few = few
            layer(rows[layer.in_features])
        best[few] = min(best[few], time.perf_counter() - start)
    best["plain"] /= 0.95
    return min(best, key=best.get)


# -- norms and positions -----------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """`x / rms(x) * weight` over the last axis (Zhang & Sennrich 2019)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope_frequencies(head_dim: int, theta: float, scaling: dict | None = None, device="cpu") -> Tensor:
    """Angle per position of each rotated pair, [E/2] (Su et al. 2021, eq. 15); `scaling` is Llama-3's stretch."""
    freq = theta ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    if not scaling:
        return freq
    if scaling["rope_type"] != "llama3":
        raise ValueError(f"RoPE scaling {scaling['rope_type']!r} is not supported; only 'llama3' is")
    wavelength = 2 * math.pi / freq
    turns = scaling["original_max_position_embeddings"] / wavelength  # rotations within the context it was trained on
    lo, hi = scaling["low_freq_factor"], scaling["high_freq_factor"]
    keep = ((turns - lo) / (hi - lo)).clamp(0, 1)  # 1: fast pairs stay as they are; 0: slow pairs are stretched
    return freq * keep + freq / scaling["factor"] * (1 - keep)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pair (i, i + E/2) of each head by its token's angle: x [N,h,E], cos and sin [N,1,E/2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


# -- attention ---------------------------------------------------------------------------------------------------


def attend(q: Tensor, k: Tensor, v: Tensor, kpos: Tensor, step: Step, scale: float, window: int | None = None) -> Tensor:
    """Softmax attention of a step whose requests all bring T tokens.

    q [N,H,E] · k [R,S,G,E] · v [R,S,G,Ev] · kpos [R,S] -> [N,H,Ev]. Keys are never copied out to H heads: the H/G query
    heads that share one key head are folded into the token axis instead.
    One rule masks everything: `0 <= kpos <= qpos and qpos - kpos < window`.
    """
    R, T, S, (H, E), G = len(step.rows), step.T, k.shape[1], q.shape[1:], k.shape[2]
    k, v = k.transpose(1, 2), v.transpose(1, 2)  # [R,G,S,E]
    near = window is None or window >= S
    if T == S and T > 1 and near and not any(step.first):  # whole prompts, nothing before them
        q = q.view(R, T, H, E).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True).transpose(1, 2).flatten(0, 1)
    mask = None
    if T > 1 or not near or min(step.context) < S:
        mask = step.once(("mask", id(kpos), window, H // G), lambda: (kpos, _mask(kpos, step, window, q.dtype, H // G)))[1]
    q = q.view(R, T, G, H // G, E).permute(0, 2, 3, 1, 4).reshape(R, G, -1, E)  # [R, G, H/G*T, E]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.view(R, G, H // G, T, -1).permute(0, 3, 1, 2, 4).reshape(R * T, H, -1)


def _mask(kpos: Tensor, step: Step, window: int | None, dtype, copies: int) -> Tensor:
    """0 where a query may look, -inf where not: [R, 1, copies*T, S]."""
    qpos = step.pos.view(len(step.rows), -1, 1)  # [R,T,1]
    kpos = kpos[:, None]  # [R,1,S]
    see = (kpos >= 0) & (kpos <= qpos)
    if window is not None:
        see &= qpos - kpos < window
    mask = torch.zeros(see.shape, dtype=dtype, device=see.device).masked_fill_(~see, float("-inf"))
    return mask.repeat(1, copies, 1)[:, None]

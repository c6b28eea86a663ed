"""The arithmetic every model shares, in torch: RMSNorm, RoPE, attention.

Linear layers are in `linear`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.kernels import lore
from labkit.step import Step

# -- norms and positions -----------------------------------------------------------------


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if lore.norms_in_few_calls(x):
            return lore.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def rope_frequencies(
    dim: int, theta: float, scaling: dict | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Angle per position of each rotated pair, [dim/2] (Su et al. 2021, eq. 15), stretched by
    `scaling`.

    "linear": every pair by `factor`. "llama3" and "yarn" (Peng et al. 2023): pairs that turn often
    within the context they were trained on stay, slow ones are stretched, with a ramp between.
    ValueError for any other rule.
    """
    freq = theta ** -(torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)
    if not scaling:
        return freq
    rule = scaling["rope_type"]
    if rule == "linear":
        return freq / scaling["factor"]
    if rule == "llama3":
        keep = _llama3_keeps(freq, scaling)
    elif rule == "yarn":
        keep = _yarn_keeps(freq, theta, scaling)
    else:
        raise ValueError(f"RoPE scaling {rule!r} is not supported; choose linear, llama3 or yarn")
    return freq * keep + freq / scaling["factor"] * (1 - keep)


def _llama3_keeps(freq: Tensor, scaling: dict) -> Tensor:
    """How much of each pair's own frequency stays, 0 … 1: a ramp in the turns a pair makes."""
    turns = scaling["original_max_position_embeddings"] * freq / (2 * math.pi)
    low = scaling["low_freq_factor"]
    high = scaling["high_freq_factor"]
    return ((turns - low) / (high - low)).clamp(0, 1)


def _yarn_keeps(freq: Tensor, theta: float, scaling: dict) -> Tensor:
    """The same by YaRN: a ramp in the pair's number (Peng et al. 2023, section 3.2)."""
    dim = 2 * len(freq)

    def pair(turns: float) -> float:
        """The pair that makes so many turns, as a number between two pairs."""
        length = scaling["original_max_position_embeddings"] / (turns * 2 * math.pi)
        return dim * math.log(length) / (2 * math.log(theta))

    low = pair(scaling.get("beta_fast") or 32)
    high = pair(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low = math.floor(low)
        high = math.ceil(high)
    low = max(low, 0)
    high = min(high, dim - 1)
    ramp = (torch.arange(len(freq), device=freq.device) - low) / max(high - low, 0.001)
    return 1 - ramp.clamp(0, 1)


def yarn_gain(scaling: dict | None) -> float:
    """Factor on cos and sin that sharpens attention over a stretched context (Peng et al. 2023, eq.
    22); 1 without YaRN.
    """
    if not scaling or scaling["rope_type"] != "yarn":
        return 1.0
    if scaling.get("attention_factor") is not None:
        return scaling["attention_factor"]

    def gain(m: float) -> float:
        return 0.1 * m * math.log(scaling["factor"]) + 1.0 if scaling["factor"] > 1 else 1.0

    # DeepSeek puts the second one into its query scale instead
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return gain(scaling["mscale"]) / gain(scaling["mscale_all_dim"])
    return gain(1)


def rotations(pos: Tensor, dim: int, theta: float, scaling: dict | None) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles of each position: [..., dim/2] for positions [...]."""
    angle = pos[..., None] * rope_frequencies(dim, theta, scaling, pos.device)
    gain = yarn_gain(scaling)
    return angle.cos() * gain, angle.sin() * gain


def rope_angles(
    step: Step, dim: int, theta: float, scaling: dict | None, dtype
) -> tuple[Tensor, Tensor]:
    """What `rope` needs for each token, cos and sin [N,1,dim]: the same in every layer, so computed
    once per step.
    """

    def make():
        cos, sin = rotations(step.pos[:, None], dim, theta, scaling)
        return torch.cat([cos, cos], -1).to(dtype), torch.cat([-sin, sin], -1).to(dtype)

    return step.once(("rope", dim, theta, scaling is None, dtype), make)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pair (i, i + E/2) of each head by its token's angle: x [N,h,E], cos and sin [N,1,E]
    from `rope_angles`.

    (a, b) becomes (a cos - b sin, b cos + a sin). Rolling by half swaps a and b, and `sin` carries
    the sign: three operations. Where cos is narrower than x, the rest of each head is not rotated.
    """
    if (dim := cos.shape[-1]) < x.shape[-1]:
        return torch.cat([rope(x[..., :dim], cos, sin), x[..., dim:]], -1)
    return torch.addcmul(x * cos, x.roll(dim // 2, -1), sin)


# -- attention ---------------------------------------------------------------------------


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kpos: Tensor,
    step: Step,
    scale: float,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Softmax attention of a step whose requests all bring T tokens.

    q [N,H,E] · k [R,S,G,E] · v [R,S,G,Ev] · kpos [R,S] · sinks [H] -> [N,H,Ev]. Keys are never
    copied out to H heads: the H/G query heads that share one key head are folded into the token
    axis instead. One rule masks everything: `0 <= kpos <= qpos and qpos - kpos < window`.
    """
    H, E = q.shape[1:]
    R, S, G, Ev = v.shape
    T = step.T
    k = k.transpose(1, 2).to(q.dtype)  # [R,G,S,E]
    v = v.transpose(1, 2).to(q.dtype)  # [R,G,S,Ev]
    hides = window is not None and window < S
    fused = sinks is None and Ev == E  # what torch's own kernel can do

    # whole prompts with nothing before them: the mask is a triangle, which torch makes by itself
    if fused and T == S and T > 1 and not hides and not any(step.first):
        q = q.view(R, T, H, E).transpose(1, 2)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        return seen.transpose(1, 2).flatten(0, 1)

    mask = None
    if T > 1 or hides or min(step.context) < S:
        # the same in every layer; torch's kernel wants a row of it for every query row
        copies = H // G if fused and T > 1 else 1
        mask = step.once(
            ("mask", kpos, window, copies, q.dtype),
            lambda: visible(kpos, step, window, q.dtype, copies),
        )
    q = fold(q, R, G)
    if fused:
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    else:
        seen = _attend_plainly(q * scale, k, v, mask, sinks)
    return unfold(seen, H)


def fold(q: Tensor, R: int, G: int) -> Tensor:
    """[R*T,H,E] -> [R,G,H/G*T,E]: heads that share a key head become more of its queries."""
    N, H, E = q.shape
    return q.view(R, N // R, G, H // G, E).permute(0, 2, 3, 1, 4).reshape(R, G, -1, E)


def unfold(x: Tensor, H: int) -> Tensor:
    """[R,G,H/G*T,E] -> [R*T,H,E]: `fold` undone."""
    R, G, _, E = x.shape
    return x.view(R, G, H // G, -1, E).permute(0, 3, 1, 2, 4).reshape(-1, H, E)


def _attend_plainly(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sinks: Tensor | None
) -> Tensor:
    """What torch's kernel can't do: values of another size than keys (MLA), and sinks.

    q [R,G,H/G*T,E], scaled already · k [R,G,S,E] · v [R,G,S,Ev] · mask [R,1,T,S] · sinks [H]. A
    sink is one more score in every softmax whose value is nothing (Agarwal et al. 2025, gpt-oss;
    Xiao et al. 2023).
    """
    R, G, queries, _ = q.shape
    scores = q @ k.transpose(2, 3)  # [R,G,H/G*T,S]
    if mask is not None:
        T = mask.shape[2]  # the mask is the same for all heads
        scores = (scores.unflatten(2, (-1, T)) + mask[:, :, None]).flatten(2, 3)
    if sinks is None:
        return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    shared = sinks.view(G, -1, 1)  # [G,H/G,1]
    each = shared.expand(-1, -1, queries // shared.shape[1]).reshape(G, queries, 1)
    scores = torch.cat([scores, each.to(scores.dtype).expand(R, -1, -1, -1)], -1)
    return scores.softmax(-1, dtype=torch.float32)[..., :-1].to(v.dtype) @ v


def visible(kpos: Tensor, step: Step, window: int | None, dtype, copies: int) -> Tensor:
    """0 where a query may look, -inf where not: [R,1,copies*T,S]."""
    qpos = step.pos.view(len(step.rows), -1, 1)  # [R,T,1]
    kpos = kpos[:, None]  # [R,1,S]
    see = (kpos >= 0) & (kpos <= qpos)
    if window is not None:
        see &= qpos - kpos < window
    mask = torch.zeros(see.shape, dtype=dtype, device=see.device).masked_fill_(~see, float("-inf"))
    return mask.repeat(1, copies, 1)[:, None] if copies > 1 else mask[:, None]

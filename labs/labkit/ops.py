"""The arithmetic every model shares, in torch: RMSNorm, RoPE, attention.

Linear layers are in `linear`.
"""

from __future__ import annotations

import math
import mmap

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.step import Step

# -- memory ------------------------------------------------------------------------------


def zeros(shape, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """For caches, whose masked slots meet the values too, with weight 0: and 0 * NaN is NaN.

    On a CPU a page of them takes memory, and time to clear, only once something is written there.
    """
    size = math.prod(shape) * dtype.itemsize
    if size == 0 or torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape)


# -- norms and positions -----------------------------------------------------------------


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = torch.tensor([eps], device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps.item())
        # half as many operations as F.rms_norm makes on a CPU
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * self.weight * torch.addcmul(self.eps, norm, norm, value=1 / x.shape[-1]).rsqrt()


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
    if scaling["rope_type"] == "linear":
        return freq / scaling["factor"]
    if scaling["rope_type"] == "llama3":  # the ramp is linear in the turns a pair makes
        turns = scaling["original_max_position_embeddings"] * freq / (2 * math.pi)
        lo, hi = scaling["low_freq_factor"], scaling["high_freq_factor"]
        keep = ((turns - lo) / (hi - lo)).clamp(0, 1)
    elif scaling["rope_type"] == "yarn":  # the ramp is linear in the pair's number
        pair = lambda turns: (
            dim
            * math.log(scaling["original_max_position_embeddings"] / (turns * 2 * math.pi))
            / (2 * math.log(theta))
        )
        lo, hi = pair(scaling.get("beta_fast") or 32), pair(scaling.get("beta_slow") or 1)
        if scaling.get("truncate", True):
            lo, hi = math.floor(lo), math.ceil(hi)
        lo, hi = max(lo, 0), min(hi, dim - 1)
        keep = 1 - ((torch.arange(dim // 2, device=device) - lo) / max(hi - lo, 0.001)).clamp(0, 1)
    else:
        raise ValueError(
            f"RoPE scaling {scaling['rope_type']!r} is not supported; choose linear, llama3 or yarn"
        )
    return freq * keep + freq / scaling["factor"] * (1 - keep)


def yarn_gain(scaling: dict | None) -> float:
    """Factor on cos and sin that sharpens attention over a stretched context (Peng et al. 2023, eq.
    22); 1 without YaRN.
    """
    if not scaling or scaling["rope_type"] != "yarn":
        return 1.0
    if scaling.get("attention_factor") is not None:
        return scaling["attention_factor"]
    gain = lambda m: 0.1 * m * math.log(scaling["factor"]) + 1.0 if scaling["factor"] > 1 else 1.0
    # DeepSeek puts the second one into its query scale instead
    both = scaling.get("mscale") and scaling.get("mscale_all_dim")
    return gain(scaling["mscale"]) / gain(scaling["mscale_all_dim"]) if both else gain(1)


def rope_angles(
    step: Step, dim: int, theta: float, scaling: dict | None, dtype
) -> tuple[Tensor, Tensor]:
    """What `rope` needs for each token, [N,1,dim] twice: the same in every layer, so computed once
    per step.
    """

    def make():
        angle = step.pos[:, None, None] * rope_frequencies(dim, theta, scaling, step.pos.device)
        cos, sin = angle.cos() * yarn_gain(scaling), angle.sin() * yarn_gain(scaling)
        return torch.cat([cos, cos], -1).to(dtype), torch.cat([-sin, sin], -1).to(dtype)

    return step.once(("rope", dim, theta, scaling is None), make)


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
    R, T, S, (H, E), G = len(step.rows), step.T, k.shape[1], q.shape[1:], k.shape[2]
    k, v, share = k.transpose(1, 2).to(q.dtype), v.transpose(1, 2).to(q.dtype), H // G  # [R,G,S,E]
    far = window is not None and window < S
    fused = sinks is None and v.shape[-1] == E
    # whole prompts, nothing before them
    if fused and T == S and T > 1 and not far and not any(step.first):
        q = q.view(R, T, H, E).transpose(1, 2)
        return (
            F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
            .transpose(1, 2)
            .flatten(0, 1)
        )
    mask = None
    if T > 1 or far or min(step.context) < S:
        copies = share if fused and T > 1 else 1  # the fused kernel wants a mask row per query row
        mask = step.once(
            ("mask", id(kpos), window, copies),
            lambda: (kpos, visible(kpos, step, window, q.dtype, copies)),
        )[1]
    q = fold(q, R, G)
    if fused:
        return unfold(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale), H)
    return unfold(
        _attend_plainly(
            q * scale,
            k,
            v,
            mask,
            None if sinks is None else sinks.view(G, share, 1).expand(-1, -1, T).reshape(G, -1, 1),
        ),
        H,
    )


def fold(q: Tensor, R: int, G: int) -> Tensor:
    """[R*T,H,E] -> [R,G,H/G*T,E]: the query heads that share a key head become more of its queries."""
    N, H, E = q.shape
    return q.view(R, N // R, G, H // G, E).permute(0, 2, 3, 1, 4).reshape(R, G, -1, E)


def unfold(x: Tensor, H: int) -> Tensor:
    """The way back, [R,G,H/G*T,E] -> [R*T,H,E]."""
    R, G, _, E = x.shape
    return x.view(R, G, H // G, -1, E).permute(0, 3, 1, 2, 4).reshape(-1, H, E)


def _attend_plainly(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sinks: Tensor | None
) -> Tensor:
    """What the fused kernel can't do: values of another size than keys (MLA), and sinks.

    A sink is one more score in every softmax whose value is nothing (Agarwal et al. 2025, gpt-oss;
    Xiao et al. 2023).
    """
    scores = q @ k.transpose(2, 3)  # [R,G,H/G*T,S]
    if mask is not None:  # the same for all queries that share a key head
        scores = (scores.unflatten(2, (-1, mask.shape[2])) + mask[:, :, None]).flatten(2, 3)
    if sinks is None:
        return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    scores = torch.cat([scores, sinks.to(scores.dtype).expand(len(q), -1, -1, -1)], -1)
    return scores.softmax(-1, dtype=torch.float32)[..., :-1].to(v.dtype) @ v


def visible(kpos: Tensor, step: Step, window: int | None, dtype, copies: int) -> Tensor:
    """0 where a query may look, -inf where not: [R, 1, copies*T, S]."""
    qpos = step.pos.view(len(step.rows), -1, 1)  # [R,T,1]
    kpos = kpos[:, None]  # [R,1,S]
    see = (kpos >= 0) & (kpos <= qpos)
    if window is not None:
        see &= qpos - kpos < window
    mask = torch.zeros(see.shape, dtype=dtype, device=see.device).masked_fill_(~see, float("-inf"))
    return mask.repeat(1, copies, 1)[:, None] if copies > 1 else mask[:, None]

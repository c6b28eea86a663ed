"""The arithmetic every model shares, in torch: linear layers, RMSNorm, RoPE, attention."""
from __future__ import annotations

import math
import mmap
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
        return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
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
        if self.few == "plain" and self.plain is not None:
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
    best: dict[str, float] = {"packed": math.inf, "padded": math.inf, "plain": math.inf}
    for few in [*best] * rounds:  # interleaved, so that a busy moment hits all
        start = time.perf_counter()
        for layer in layers:
            layer.few = few
            layer(rows[layer.in_features])
        best[few] = min(best[few], time.perf_counter() - start)
    best["plain"] /= 0.95
    return min(best, key=lambda few: best[few])


# -- memory ------------------------------------------------------------------------------------------------------


def zeros(shape, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """For caches, whose masked slots meet the values too, with weight 0: and 0 * NaN is NaN.

    On a CPU a page of them takes memory, and time to clear, only once something is written there.
    """
    size = math.prod(shape) * dtype.itemsize
    if size == 0 or torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape)


# -- norms and positions -----------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), torch.tensor([eps], device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps.item())
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # half as many operations as F.rms_norm makes on a CPU
        return x * self.weight * torch.addcmul(self.eps, norm, norm, value=1 / x.shape[-1]).rsqrt()


def rope_frequencies(dim: int, theta: float, scaling: dict | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Angle per position of each rotated pair, [dim/2] (Su et al. 2021, eq. 15), stretched by `scaling`.

    "linear": every pair by `factor`. "llama3" and "yarn" (Peng et al. 2023): pairs that turn often within the context they were
    trained on stay, slow ones are stretched, with a ramp between. ValueError for any other rule.
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
        pair = lambda turns: dim * math.log(scaling["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(theta))
        lo, hi = pair(scaling.get("beta_fast") or 32), pair(scaling.get("beta_slow") or 1)
        if scaling.get("truncate", True):
            lo, hi = math.floor(lo), math.ceil(hi)
        lo, hi = max(lo, 0), min(hi, dim - 1)
        keep = 1 - ((torch.arange(dim // 2, device=device) - lo) / max(hi - lo, 0.001)).clamp(0, 1)
    else:
        raise ValueError(f"RoPE scaling {scaling['rope_type']!r} is not supported; choose linear, llama3 or yarn")
    return freq * keep + freq / scaling["factor"] * (1 - keep)


def yarn_gain(scaling: dict | None) -> float:
    """Factor on cos and sin that sharpens attention over a stretched context (Peng et al. 2023, eq. 22); 1 without YaRN."""
    if not scaling or scaling["rope_type"] != "yarn":
        return 1.0
    if scaling.get("attention_factor") is not None:
        return scaling["attention_factor"]
    gain = lambda m: 0.1 * m * math.log(scaling["factor"]) + 1.0 if scaling["factor"] > 1 else 1.0
    both = scaling.get("mscale") and scaling.get("mscale_all_dim")  # DeepSeek puts the second one into its query scale instead
    return gain(scaling["mscale"]) / gain(scaling["mscale_all_dim"]) if both else gain(1)


def rope_angles(step: Step, dim: int, theta: float, scaling: dict | None, dtype) -> tuple[Tensor, Tensor]:
    """What `rope` needs for each token, [N,1,dim] twice: the same in every layer, so computed once per step."""

    def make():
        angle = step.pos[:, None, None] * rope_frequencies(dim, theta, scaling, step.pos.device)
        cos, sin = angle.cos() * yarn_gain(scaling), angle.sin() * yarn_gain(scaling)
        return torch.cat([cos, cos], -1).to(dtype), torch.cat([-sin, sin], -1).to(dtype)

    return step.once(("rope", dim, theta, scaling is None), make)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pair (i, i + E/2) of each head by its token's angle: x [N,h,E], cos and sin [N,1,E] from `rope_angles`.

    (a, b) becomes (a cos - b sin, b cos + a sin). Rolling by half swaps a and b, and `sin` carries the sign: three operations.
    Where cos is narrower than x, the rest of each head is not rotated.
    """
    if (dim := cos.shape[-1]) < x.shape[-1]:
        return torch.cat([rope(x[..., :dim], cos, sin), x[..., dim:]], -1)
    return torch.addcmul(x * cos, x.roll(dim // 2, -1), sin)


# -- attention ---------------------------------------------------------------------------------------------------


def attend(q: Tensor, k: Tensor, v: Tensor, kpos: Tensor, step: Step, scale: float, window: int | None = None,
           sinks: Tensor | None = None) -> Tensor:
    """Softmax attention of a step whose requests all bring T tokens.

    q [N,H,E] · k [R,S,G,E] · v [R,S,G,Ev] · kpos [R,S] · sinks [H] -> [N,H,Ev]. Keys are never copied out to H heads: the H/G
    query heads that share one key head are folded into the token axis instead.
    One rule masks everything: `0 <= kpos <= qpos and qpos - kpos < window`.
    """
    R, T, S, (H, E), G = len(step.rows), step.T, k.shape[1], q.shape[1:], k.shape[2]
    k, v, share = k.transpose(1, 2), v.transpose(1, 2), H // G  # [R,G,S,E]
    far = window is not None and window < S
    fused = sinks is None and v.shape[-1] == E
    if fused and T == S and T > 1 and not far and not any(step.first):  # whole prompts, nothing before them
        q = q.view(R, T, H, E).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True).transpose(1, 2).flatten(0, 1)
    mask = None
    if T > 1 or far or min(step.context) < S:
        copies = share if fused and T > 1 else 1  # the fused kernel wants a mask row per query row
        mask = step.once(("mask", id(kpos), window, copies), lambda: (kpos, visible(kpos, step, window, q.dtype, copies)))[1]
    q = fold(q, R, G)
    if fused:
        return unfold(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale), H)
    return unfold(_attend_plainly(q * scale, k, v, mask, None if sinks is None else sinks.view(G, share, 1).expand(-1, -1, T).reshape(G, -1, 1)), H)


def fold(q: Tensor, R: int, G: int) -> Tensor:
    """[R*T,H,E] -> [R,G,H/G*T,E]: the query heads that share a key head become more of its queries."""
    N, H, E = q.shape
    return q.view(R, N // R, G, H // G, E).permute(0, 2, 3, 1, 4).reshape(R, G, -1, E)


def unfold(x: Tensor, H: int) -> Tensor:
    """The way back, [R,G,H/G*T,E] -> [R*T,H,E]."""
    R, G, _, E = x.shape
    return x.view(R, G, H // G, -1, E).permute(0, 3, 1, 2, 4).reshape(-1, H, E)


def _attend_plainly(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sinks: Tensor | None) -> Tensor:
    """What the fused kernel can't do: values of another size than keys (MLA), and sinks.

    A sink is one more score in every softmax whose value is nothing (Agarwal et al. 2025, gpt-oss; Xiao et al. 2023).
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

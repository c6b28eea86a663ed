"""Gated delta rule: a layer that keeps no tokens, only a matrix it corrects
as it reads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.config import ModelConfig
from labkit.linear import Linear
from labkit.ops import RMSNorm
from labkit.step import Step


class GatedDeltaNet(nn.Module):
    """Linear attention with a forget gate and the delta rule (Yang, Kautz &
    Hatamizadeh 2025), as in Qwen3-Next.

    Each value head keeps a matrix S [dk,dv] from keys to values. A token
    fades it by exp(g), looks up what its key recalls, and writes the
    difference: `S = exp(g) S; S += k (beta (v - k S)); out = q S`. Before
    that, q, k and v pass a short causal convolution. `path` is "auto",
    "recurrent" (token by token) or "chunked" (32 tokens at once); auto takes
    recurrent for one token.
    """

    recurrent = True
    window = None

    def __init__(
        self, config: ModelConfig, layer: int = 0, path: str = "auto"
    ):
        super().__init__()
        c = config
        self.path = path
        self.Hk = c.delta_n_key_heads
        self.Hv = c.delta_n_value_heads
        self.dk = c.delta_key_dim
        self.dv = c.delta_value_dim
        values = self.Hv * self.dv
        # q, k, v: what is convolved
        self.channels = 2 * self.Hk * self.dk + values
        # one matrix (q, k, v, gate z, beta, decay)
        self.qkvzba = Linear(c.d_model, self.channels + values + 2 * self.Hv)
        self.conv = nn.Parameter(
            torch.randn(self.channels, c.delta_conv) * c.delta_conv**-0.5
        )
        # heads forget at different speeds
        self.A_log = nn.Parameter(torch.linspace(1, 16, self.Hv).log())
        dt = torch.linspace(math.log(0.001), math.log(0.1), self.Hv).exp()
        self.dt_bias = nn.Parameter(dt.expm1().log())  # softplus undone
        self.norm = RMSNorm(self.dv, c.norm_eps)
        self.out = Linear(values, c.d_model)

    @property
    def items(self):
        """What a cache keeps per request: the convolution's last inputs, and
        the matrix S of each value head.
        """
        past = (self.conv.shape[1] - 1, self.channels)
        state = (self.Hv, self.dk, self.dv)
        return past, state

    def forward(self, x: Tensor, step: Step, cache) -> Tensor:
        u, z, g, beta = self.parts(self.qkvzba(x))

        def go_on(part: Step) -> Tensor:  # [N,Hv,dv]
            def rows(t: Tensor) -> Tensor:  # [N,...] -> [R,T,...]
                return t[part.tokens].unflatten(0, (-1, part.T))

            past, state = cache.read(part)
            q, k, v, past = self.convolve(rows(u), past)
            rule = recurrent if self.one_by_one(part.T) else chunked
            out, state = rule(q, k, v, rows(g), rows(beta), state)
            cache.write(part, past, state)
            return out.flatten(0, 1)

        out = self.norm(step.by_parts(go_on).to(x.dtype))
        return self.out(out.flatten(1) * F.silu(z))

    def parts(
        self, projected: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `qkvzba` makes of each token -> u [N,channels], q, k and v
        before their convolution; gate z [N,Hv*dv]; log decay g and step size
        beta [N,Hv].
        """
        u, z, beta, dt = projected.split(
            [self.channels, self.Hv * self.dv, self.Hv, self.Hv], dim=1
        )
        dt = F.softplus(dt.float() + self.dt_bias.float())
        g = -self.A_log.float().exp() * dt
        return u, z, g, beta.float().sigmoid()

    def one_by_one(self, T: int) -> bool:
        """Whether T tokens go token by token."""
        return self.path == "recurrent" or (self.path == "auto" and T == 1)

    def convolve(
        self, u: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u [R,T,channels], past [R,conv-1,channels] -> q, k [R,T,Hv,dk] of
        length 1, v [R,T,Hv,dv], and the next past.
        """
        T = u.shape[1]
        u = torch.cat([past, u], dim=1)
        # [channels] each: what a token j back weighs
        first, *rest = self.conv.t().contiguous()
        mixed = u[:, :T] * first
        for j, weight in enumerate(rest, 1):
            mixed.addcmul_(u[:, j : j + T], weight)
        keys = self.Hk * self.dk
        values = self.Hv * self.dv
        q, k, v = F.silu(mixed).float().split([keys, keys, values], dim=2)

        def heads(t: Tensor) -> Tensor:  # [R,T,Hk*dk] -> [R,T,Hv,dk]
            t = t.unflatten(2, (self.Hk, self.dk))
            t = t * torch.rsqrt(t.square().sum(-1, keepdim=True) + 1e-6)
            return t.repeat_interleave(self.Hv // self.Hk, dim=2)

        q = heads(q) * self.dk**-0.5
        v = v.unflatten(2, (self.Hv, self.dv))
        return q, heads(k), v, u[:, T:]


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The rule as it reads. q, k [R,T,Hv,dk] · v [R,T,Hv,dv] · g, beta
    [R,T,Hv] · state [R,Hv,dk,dv] -> out [R,T,Hv,dv], state.
    """

    def flat(t: Tensor) -> Tensor:  # [R,Hv,...] -> [R*Hv,1,...]
        return t.flatten(0, 1)[:, None]

    S = state.flatten(0, 1)
    out = []
    for t in range(q.shape[1]):
        k_t = flat(k[:, t])
        S = S * flat(g[:, t]).exp()[..., None]
        error = (flat(v[:, t]) - k_t @ S) * flat(beta[:, t])[..., None]
        S = torch.baddbmm(S, k_t.transpose(1, 2), error)
        out.append((flat(q[:, t]) @ S).view(v[:, t].shape))
    return torch.stack(out, dim=1), S.view_as(state)


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state: Tensor,
    size: int = 32,
) -> tuple[Tensor, Tensor]:
    """The same in chunks of `size` tokens, as matrix products (Yang et al.
    2024, "Parallelizing Linear Transformers", section 3).

    Within a chunk, what token i corrects depends on what every j < i wrote: a
    unit triangular system, inverted for all chunks and heads at once. Only
    the state itself then goes from chunk to chunk.
    """
    R, T, Hv, _ = q.shape
    size = min(size, T)
    chunks = -(-T // size)
    # padding writes nothing (beta 0) and forgets nothing (g 0)
    pad = chunks * size - T

    def cut(t: Tensor) -> Tensor:  # [R,T,Hv,...] -> [chunks*R*Hv,size,...]
        t = F.pad(t, (0, 0) * (t.dim() - 2) + (0, pad)) if pad else t
        return (
            t.unflatten(1, (chunks, size))
            .movedim((1, 3), (0, 2))
            .flatten(0, 2)
        )

    q, k, v, g, beta = map(cut, (q, k, v, g, beta))
    past = g.cumsum(1)  # log of all that was forgotten since the chunk began
    since = past.exp()[..., None]
    until = (past[:, -1:] - past).exp()[..., None]
    # from token j to token i >= j; clamped for the gradient's sake
    fade = (past[:, :, None] - past[:, None]).clamp(max=0).exp().tril()
    system = (beta[..., None] * k) @ k.transpose(1, 2) * fade
    inverse = torch.linalg.solve_triangular(
        system,
        torch.eye(size, device=q.device).expand_as(system),
        upper=False,
        unitriangular=True,
    )
    inverse = inverse * beta[:, None]
    parts = (
        inverse @ v,
        inverse @ (k * since),
        q * since,
        (q @ k.transpose(1, 2)) * fade,
        (k * until).transpose(1, 2),
        since[:, -1:],
    )
    S = state.flatten(0, 1)
    out = []
    for own, known, ask, within, write, kept in zip(
        *(t.unflatten(0, (chunks, -1)).unbind(0) for t in parts)
    ):
        error = torch.baddbmm(own, known, S, alpha=-1)
        out.append(torch.baddbmm(ask @ S, within, error))
        S = torch.baddbmm(S * kept, write, error)
    # [R,Hv,T,dv]
    out = torch.stack(out, 1).unflatten(0, (R, Hv)).flatten(2, 3)[:, :, :T]
    return out.transpose(1, 2), S.view_as(state)

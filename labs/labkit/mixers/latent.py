"""Multi-head latent attention: H heads' keys and values come out of one small
vector, and only that vector is cached.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.config import ModelConfig
from labkit.linear import Linear
from labkit.ops import RMSNorm, attend, rope, rope_angles
from labkit.step import Step

LATENT_EPS = 1e-6  # of the norms inside; published models fix it


class MLA(nn.Module):
    """Latent attention with decoupled RoPE (DeepSeek-AI 2024, DeepSeek-V2,
    section 2.1).

    Cached per token: latent [C] and one rotated key [Er] for all heads. The
    same scores come out in two ways:

    *re-projected*: expand every cached latent to H keys and values, then
    attend as usual, which pays for itself in a prefill;
    *absorbed*: move the expansion over to the query, and attend to the
    latents themselves as if they were one key/value head.

    `path` is "auto", "absorbed" or "reprojected"; auto takes the one with
    fewer FLOPs.
    """

    recurrent = False
    window = None

    def __init__(
        self, config: ModelConfig, layer: int = 0, path: str = "auto"
    ):
        super().__init__()
        c, D = config, config.d_model
        self.path = path
        self.H = c.n_heads
        self.C = c.kv_lora_rank
        self.nope = c.qk_nope_head_dim
        self.turn = c.qk_rope_head_dim
        self.v_dim = c.v_head_dim
        self.scale = c.query_scale or (self.nope + self.turn) ** -0.5
        self.rope_theta, self.rope_scaling = c.rope_of(layer)
        q_dim = self.H * (self.nope + self.turn)
        # one matrix (query, latent, rotated key): one pass over x
        self.down = Linear(D, (c.q_lora_rank or q_dim) + self.C + self.turn)
        self.q_norm = (
            RMSNorm(c.q_lora_rank, LATENT_EPS) if c.q_lora_rank else None
        )
        self.q_up = Linear(c.q_lora_rank, q_dim) if c.q_lora_rank else None
        self.kv_norm = RMSNorm(self.C, LATENT_EPS)
        self.kv_up = nn.Parameter(
            torch.randn(self.H, self.nope + self.v_dim, self.C) * self.C**-0.5
        )
        self.out = Linear(self.H * self.v_dim, D)

    @property
    def items(self):
        """What a cache keeps per token: the latent and the rotated key, side
        by side, as the key of a single head.
        """
        return ((1, self.C + self.turn),)

    def forward(self, x: Tensor, step: Step, cache) -> Tensor:
        q, latent = self.project(x, step)
        cache.write(step, latent)

        def attend_to_latents(part: Step) -> Tensor:  # [N,H,Ev]
            latents, kpos = cache.read(part)  # [R,S,1,C+Er]
            absorbs = self.absorbs(part.T, latents.shape[1])
            way = self.absorbed if absorbs else self.reprojected
            return way(q[part.tokens], latents, kpos, part)

        return self.out(step.by_parts(attend_to_latents).flatten(1))

    def project(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """x [N,D] -> q [N,H,En+Er] and what is cached [N,1,C+Er], rotated to
        their positions.
        """
        q_size = self.down.out_features - self.C - self.turn
        q, latent, key = self.down(x).split([q_size, self.C, self.turn], 1)
        if self.q_up is not None and self.q_norm is not None:
            q = self.q_up(self.q_norm(q))
        q = q.view(len(x), self.H, -1)
        q, q_turn = q.split([self.nope, self.turn], dim=2)
        latent = self.kv_norm(latent)[:, None]
        key = key[:, None]
        angles = rope_angles(
            step, self.turn, self.rope_theta, self.rope_scaling, x.dtype
        )
        q = torch.cat([q, rope(q_turn, *angles)], dim=2)
        return q, torch.cat([latent, rope(key, *angles)], dim=2)

    def absorbs(self, T: int, S: int) -> bool:
        """Whether T queries over S latents go the absorbed way: not a prompt
        from its start, and fewer FLOPs.

        A query costs H (2C + Er) per latent absorbed, H (En + Er + Ev)
        re-projected, which expands each latent for C H (En + Ev).
        """
        if self.path != "auto":
            return self.path == "absorbed"
        size = self.nope + self.v_dim
        return T == 1 or (T < S and T * (2 * self.C - size) <= self.C * size)

    def absorbed(
        self, q: Tensor, latents: Tensor, kpos: Tensor, part: Step
    ) -> Tensor:
        """q [N,H,En+Er] · latents [R,S,1,C+Er] -> [N,H,Ev], through queries
        and outputs of latent size.
        """
        # [H,En,C], [H,Ev,C]
        up_k, up_v = self.kv_up.split([self.nope, self.v_dim], dim=1)
        q, q_turn = q.split([self.nope, self.turn], dim=2)
        q = torch.einsum("nhe,hec->nhc", q, up_k)
        q = torch.cat([q, q_turn], dim=2)  # [N,H,C+Er]
        values = latents[..., : self.C]
        seen = attend(q, latents, values, kpos, part, self.scale)  # [N,H,C]
        return torch.einsum("nhc,hvc->nhv", seen, up_v)

    def reprojected(
        self, q: Tensor, latents: Tensor, kpos: Tensor, part: Step
    ) -> Tensor:
        """The same, through keys [R,S,H,En+Er] and values [R,S,H,Ev] of every
        head.
        """
        latent, key = latents.split([self.C, self.turn], dim=3)
        kv = F.linear(latent.squeeze(2), self.kv_up.flatten(0, 1))
        kv = kv.unflatten(2, (self.H, -1))  # [R,S,H,En+Ev]
        k, v = kv.split([self.nope, self.v_dim], dim=3)
        k = torch.cat([k, key.expand(-1, -1, self.H, -1)], dim=3)
        return attend(q, k, v, kpos, part, self.scale)

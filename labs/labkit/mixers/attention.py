"""Multi-head, grouped-query and multi-query attention are one module and one number: G, the key/value heads."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit.config import ModelConfig
from labkit.ops import Linear, RMSNorm, attend, rope, rope_frequencies
from labkit.step import Step


class Attention(nn.Module):
    """Softmax attention with G key/value heads for H query heads (Vaswani et al. 2017; Ainslie et al. 2023).

    G = H is multi-head, 1 < G < H grouped-query, G = 1 multi-query attention. A `window` makes it sliding.
    """

    def __init__(self, config: ModelConfig, window: int | None = None):
        super().__init__()
        self.config, self.window = config, window
        H, G, E = config.n_heads, config.n_kv_heads, config.head_dim
        self.qkv = Linear(config.d_model, (H + 2 * G) * E, bias=config.bias)  # one matrix: one pass over x
        self.out = Linear(H * E, config.d_model, bias=config.bias)
        self.q_norm = RMSNorm(E, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(E, config.norm_eps) if config.qk_norm else None

    @property
    def items(self):
        """What a cache keeps per token: a key and a value for each of the G heads."""
        return (self.config.n_kv_heads, self.config.head_dim), (self.config.n_kv_heads, self.config.head_dim)

    def forward(self, x: Tensor, step: Step, cache) -> Tensor:
        q, k, v = self.project(x, step)
        cache.write(step, k, v)
        scale = self.config.head_dim**-0.5
        look = getattr(cache, "attend", None)  # blocks are attended to where they lie
        seen = [look(q[part.tokens], part, scale, self.window) if look else
                attend(q[part.tokens], *cache.read(part), part, scale, self.window) for part in step.parts]
        return self.out(torch.cat(seen).flatten(1) if len(seen) > 1 else seen[0].flatten(1))

    def project(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """x [N,D] -> q [N,H,E], k [N,G,E], v [N,G,E], rotated to their positions."""
        H, G, E = self.config.n_heads, self.config.n_kv_heads, self.config.head_dim
        qk, v = self.qkv(x).view(len(x), H + 2 * G, E).split([H + G, G], dim=1)
        if self.q_norm is not None:
            qk = torch.cat([self.q_norm(qk[:, :H]), self.k_norm(qk[:, H:])], dim=1)
        if self.config.position == "rope":
            qk = rope(qk, *self.angles(step, x.dtype))
        return qk[:, :H], qk[:, H:], v

    def angles(self, step: Step, dtype) -> tuple[Tensor, Tensor]:
        """cos and sin of each token's rotation, [N,1,E/2]: the same in every layer, so computed once per step."""
        c = self.config

        def make():
            angle = step.pos[:, None, None] * rope_frequencies(c.head_dim, c.rope_theta, c.rope_scaling, step.pos.device)
            return angle.cos().to(dtype), angle.sin().to(dtype)

        return step.once(("rope", c.rope_theta), make)

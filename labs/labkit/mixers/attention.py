"""Multi-head, grouped-query and multi-query attention are one module and one
number: G, the key/value heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit.config import ModelConfig
from labkit.linear import Linear
from labkit.ops import RMSNorm, rope, rope_angles
from labkit.step import Step


class Attention(nn.Module):
    """Softmax attention with G key/value heads for H query heads (Vaswani et
    al. 2017; Ainslie et al. 2023).

    G = H is multi-head, 1 < G < H grouped-query, G = 1 multi-query attention.
    A sliding layer has a `window` (Beltagy et al. 2020). What families add is
    off by default: norms on queries and keys, partial RoPE, sinks, an output
    gate, biases.
    """

    recurrent = False

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        self.H = H = config.n_heads
        self.G = G = config.n_kv_heads
        self.E = E = config.head_dim
        self.window = config.window_of(layer)
        self.scale = config.query_scale or E**-0.5
        self.rope_dim = config.rope_dim
        self.rope_theta, self.rope_scaling = config.rope_of(layer)
        bias = config.bias or config.attention_bias
        gate = H if config.output_gate else 0
        # one matrix (q, k, v, gate): one pass over x
        self.qkv = Linear(config.d_model, (H + 2 * G + gate) * E, bias=bias)
        self.out = Linear(H * E, config.d_model, bias=bias)
        self.q_norm = RMSNorm(E, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(E, config.norm_eps) if config.qk_norm else None
        self.sinks = nn.Parameter(torch.zeros(H)) if config.sinks else None

    @property
    def items(self):
        """What a cache keeps per token: a key and a value for each of the G
        heads.
        """
        return (self.G, self.E), (self.G, self.E)

    def forward(self, x: Tensor, step: Step, cache) -> Tensor:
        q, k, v, gate = self.project(x, step)
        cache.write(step, k, v)
        out = cache.attend(q, step, self.scale, self.window, self.sinks)
        if gate is not None:
            out = out * gate.sigmoid()
        return self.out(out.flatten(1))

    def project(
        self, x: Tensor, step: Step
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """x [N,D] -> q [N,H,E], k [N,G,E], v [N,G,E], rotated to their
        positions, and the gate [N,H,E] or None.
        """
        H, G = self.H, self.G
        heads = self.qkv(x).view(len(x), -1, self.E)
        qk = heads[:, : H + G]
        v = heads[:, H + G : H + 2 * G]
        gate = heads[:, H + 2 * G :] if heads.shape[1] > H + 2 * G else None
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.cat(
                [self.q_norm(qk[:, :H]), self.k_norm(qk[:, H:])], dim=1
            )
        if self.rope_dim:
            angles = rope_angles(
                step,
                self.rope_dim,
                self.rope_theta,
                self.rope_scaling,
                x.dtype,
            )
            qk = rope(qk, *angles)
        return qk[:, :H], qk[:, H:], v, gate

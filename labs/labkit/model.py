"""The shell that never changes: embed, blocks, norm, head.

Mixers, feed-forward layers and caches are swapped inside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit.caches import make_cache
from labkit.config import ModelConfig
from labkit.ffn import GELUMLP, SwiGLU
from labkit.linear import Linear
from labkit.mixers import make_mixer
from labkit.moe import MoE
from labkit.ops import RMSNorm
from labkit.step import Step


def make_norm(config: ModelConfig) -> nn.Module:
    norm = RMSNorm if config.norm == "rms" else nn.LayerNorm
    return norm(config.d_model, config.norm_eps)


def make_ffn(config: ModelConfig, layer: int) -> nn.Module:
    """The feed-forward layer of `layer`: dense, or a mixture of experts."""
    if config.has_experts(layer):
        return MoE(config)
    return GELUMLP(config) if config.ffn == "gelu" else SwiGLU(config)


def make_table(config: ModelConfig, rows: int) -> nn.Embedding:
    """A vector for each of `rows` tokens or positions, so small that a tied head starts with logits
    near 1.
    """
    if torch.get_default_device().type == "meta":
        # no values to draw; for drawing them there torch would import its compiler
        return nn.Embedding(rows, config.d_model, _weight=torch.empty(rows, config.d_model))
    table = nn.Embedding(rows, config.d_model)
    nn.init.normal_(table.weight, std=config.d_model**-0.5)
    return table


class Block(nn.Module):
    """One layer: tokens look at each other, then each thinks by itself; both add to the residual
    stream.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.norm1 = make_norm(config)
        self.norm2 = make_norm(config)
        self.mixer = make_mixer(config, layer)
        self.ffn = make_ffn(config, layer)
        after = make_norm if config.post_norms else lambda _: nn.Identity()
        self.after1 = after(config)
        self.after2 = after(config)

    def forward(self, x: Tensor, step: Step, cache) -> Tensor:
        x = x + self.after1(self.mixer(self.norm1(x), step, cache))
        return x + self.after2(self.ffn(self.norm2(x)))


class GPT(nn.Module):
    """A decoder-only transformer with random weights; `labkit.weights` fills in published ones."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed = make_table(config, config.vocab_size)
        learned = config.position == "learned"
        self.positions = make_table(config, config.max_context) if learned else None
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = make_norm(config)
        self.head = Linear(config.d_model, config.vocab_size)
        if config.tie_embeddings:
            self.head.weight = self.embed.weight

    @property
    def device(self):
        return self.embed.weight.device

    @property
    def dtype(self):
        return self.embed.weight.dtype

    def caches(
        self, kind: str, rows: int, capacity: int, *, block_size: int = 16, longest_step: int = 1
    ) -> list:
        """An empty cache per layer, for `rows` requests of up to `capacity` tokens.

        kind: "static", "paged", "none", or "ring" for sliding layers that must take steps of up to
        `longest_step` tokens a request.
        """
        if rows < 1 or capacity < 1 or block_size < 1 or longest_step < 1:
            raise ValueError(
                "a cache needs at least one row and one token, in blocks and steps of at least"
                f" one, not {rows} and {capacity}, {block_size} and {longest_step}"
            )
        table = None
        # every row gets its own blocks, in order; an engine hands them out on demand instead
        if kind == "paged":
            per_row = -(-capacity // block_size)
            table = torch.arange(rows * per_row, device=self.device).view(rows, per_row)
        return [
            make_cache(
                kind,
                block.mixer,
                rows,
                capacity,
                table=table,
                block_size=block_size,
                longest_step=longest_step,
                dtype=self.dtype,
                device=self.device,
            )
            for block in self.blocks
        ]

    def forward(self, step: Step, caches: list, last: Tensor | None = None) -> Tensor:
        """Logits [N,V], or [R',V] of the packed tokens `last` only: the head is the largest matrix,
        so ask for few rows.
        """
        x = self.embed(step.ids)
        if self.config.embed_scale != 1:
            x = x * self.config.embed_scale
        if self.positions is not None:
            x = x + self.positions(step.pos)
        for block, cache in zip(self.blocks, caches):
            x = block(x, step, cache)
        return self.head(self.norm(x if last is None else x[last]))

    @torch.inference_mode()
    def pack(self) -> GPT:
        """Lay every matrix out as the CPU likes it (see `linear.Linear`); on other devices nothing
        changes.
        """
        for m in self.modules():
            if isinstance(m, Linear):
                m.pack()
        return self

    def unpack(self) -> GPT:
        """Back to ordinary weights, bit by bit."""
        for m in self.modules():
            if isinstance(m, Linear):
                m.unpack()
        if self.config.tie_embeddings:
            self.head.weight = self.embed.weight
        return self

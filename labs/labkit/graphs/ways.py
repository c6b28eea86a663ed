"""One decode step of a model on a GPU, in three ways that write the same.

    fused    five launches a layer: norm and gating, or the residual, are part of the products
    small    kernels of our own between products that are a library's: for many rows
    torch    the model's own forward: where Triton is absent, or can't do a layer

None of them is a second model: each walks over `model.blocks` and takes weights and sizes from
their modules. All work on fixed tensors and ask the host nothing, so that a CUDA graph can hold
them. A request at position -1 is padding: it reads and writes nothing, and its logits mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from labkit import ops
from labkit.caches import Cache, PagedCache, RingCache, SlotCache, StaticCache
from labkit.ffn import SwiGLU
from labkit.kernels import cuda
from labkit.kernels.cuda.heads import Heads
from labkit.kernels.cuda.matrix import Matrix
from labkit.kernels.cuda.slots import Slots
from labkit.mixers.attention import Attention
from labkit.model import GPT, Block
from labkit.moe import MoE
from labkit.ops import RMSNorm
from labkit.step import Requests, Step

WAYS = ("fused", "small", "torch")
FEW = 16  # rows up to which our products are faster than a library's


# -- can it be done --------------------------------------------------------------------------------


def why_not(model: GPT, caches: list) -> str:
    """Why no way can do this model's step on these caches; empty if one can."""
    if len(caches) != len(model.blocks):
        return f"a model of {len(model.blocks)} layers needs as many caches, not {len(caches)}"
    for i, (block, cache) in enumerate(zip(model.blocks, caches)):
        if block.mixer.recurrent:
            return f"layer {i} is recurrent, and the host counts what its state has taken in"
        if not isinstance(block.mixer, Attention):
            return f"layer {i} attends to a latent (MLA), which no captured step does yet"
        if isinstance(block.ffn, MoE):
            return f"layer {i} has experts, and the host asks which of them were chosen"
        kept = type(cache).__name__
        if not isinstance(cache, StaticCache | PagedCache):
            return f"layer {i} has a {kept}, which has no slots to write to"
        if type(cache).write is not SlotCache.write:
            return f"layer {i} has {kept}, which keep codes in their slots"
    return ""


def why_not_small(model: GPT) -> str:
    """Why our kernels can't do it, and torch's operations must; empty if they can."""
    if missing := cuda.missing(model.device):
        return missing
    from labkit.kernels.cuda import attention

    for i, block in enumerate(model.blocks):
        if not attention.takes(block.mixer.E):
            return f"layer {i} has heads of {block.mixer.E} numbers, which is no power of 2"
    return ""


def why_not_fused(model: GPT) -> str:
    """Why our products can't do it, and a library's must; empty if they can."""
    if missing := why_not_small(model):
        return missing
    if model.dtype != torch.bfloat16 and not cuda.interpreted():
        return "fused products are made for bf16"
    if not isinstance(model.norm, RMSNorm):
        return "fused products know no norm but RMSNorm"
    for i, block in enumerate(model.blocks):
        if not isinstance(block.ffn, SwiGLU):
            return f"layer {i} has a feed-forward layer without a gate"
        if not isinstance(block.after1, nn.Identity):
            return f"layer {i} has norms after its mixer and its feed-forward layer"
        if _gate(block.mixer):
            return f"layer {i} has a gate on its attention"
    for name, layer, kind in _products(model):
        if why := _why_not_ours(layer, kind, model.device):
            return f"{name} {why}"
    return ""


def _products(model: GPT):
    """Every product of a step: what it is called, its layer, and the gating of what comes out."""
    for i, block in enumerate(model.blocks):
        yield f"blocks.{i}.mixer.qkv", block.mixer.qkv, ""
        yield f"blocks.{i}.mixer.out", block.mixer.out, ""
        yield f"blocks.{i}.ffn.gate_up", block.ffn.gate_up, block.ffn.kind
        yield f"blocks.{i}.ffn.down", block.ffn.down, ""
    yield "head", model.head, ""


def _why_not_ours(layer: nn.Module, kind: str, device: torch.device) -> str:
    from labkit.kernels.cuda import linear

    matrix = matrix_of(layer)
    if matrix is None:
        return "has a bias, or a layout of weights that is not our kernels'"
    if missing := cuda.missing(device, matrix.bits):
        return f"has {matrix.bits} bits, and {missing}"
    if not all(linear.takes(matrix, rows, kind) for rows in (1, FEW)):
        return f"has {matrix.shape[0]} outputs, which fill no whole tiles"
    return ""


def matrix_of(layer: nn.Module) -> Matrix | None:
    """A layer's weight as our products read it; None where it has a bias, or another layout."""
    if getattr(layer, "bias", None) is not None:
        return None
    if isinstance(layer, nn.Linear):
        return None if getattr(layer, "packed", False) else Matrix(layer.weight.detach())
    # few bits, if they were packed for our products
    matrix = getattr(getattr(layer, "packed", None), "matrix", None)
    return matrix if isinstance(matrix, Matrix) else None


def _gate(mixer: Attention) -> bool:
    return mixer.qkv.out_features > (mixer.H + 2 * mixer.G) * mixer.E


# -- what stays the same from step to step ---------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Layer:
    """A block of the model, and what our kernels need to know of it and of its cache."""

    block: Block
    heads: Heads
    slots: Slots

    @cached_property
    def qkv(self) -> Matrix | None:
        return matrix_of(self.block.mixer.qkv)

    @cached_property
    def out(self) -> Matrix | None:
        return matrix_of(self.block.mixer.out)

    @cached_property
    def gate_up(self) -> Matrix | None:
        return matrix_of(self.block.ffn.gate_up)

    @cached_property
    def down(self) -> Matrix | None:
        return matrix_of(self.block.ffn.down)


def layers_of(model: GPT, caches: list) -> list[Layer]:
    """The model's blocks with their caches. Layers that rotate alike share a table of angles."""
    positions = longest(model, caches)
    tables: dict = {}

    def angles(mixer: Attention) -> Tensor:
        key = (mixer.rope_dim, mixer.rope_theta, mixer.rope_scaling is None)
        if key not in tables:
            tables[key] = angles_of(mixer, positions, model.device)
        return tables[key]

    return [
        Layer(block, heads_of(block.mixer, angles(block.mixer)), slots_of(cache))
        for block, cache in zip(model.blocks, caches)
    ]


def longest(model: GPT, caches: list) -> int:
    """How many tokens of a request all layers can hold; rings hold any number."""
    held = [cache.capacity for cache in caches if not isinstance(cache, RingCache)]
    return min([*held, model.config.max_context])


def slots_of(cache: SlotCache) -> Slots:
    if isinstance(cache, PagedCache):
        return Slots(*cache.buffers, cache.block_size, cache.table)
    return Slots(*cache.buffers, cache.capacity)


def heads_of(mixer: Attention, angles: Tensor) -> Heads:
    normed = mixer.q_norm is not None
    return Heads(
        mixer.H,
        mixer.G,
        mixer.E,
        mixer.scale,
        angles,
        mixer.window,
        q_norm=mixer.q_norm.weight if normed else None,
        k_norm=mixer.k_norm.weight if normed else None,
        eps=mixer.q_norm.eps if normed else 0.0,
        sinks=mixer.sinks,
    )


def angles_of(mixer: Attention, positions: int, device: torch.device) -> Tensor:
    """What `Heads` keeps of a layer's rotation, [positions,dim] in fp32."""
    dim = mixer.rope_dim or 0
    if dim == 0:
        return torch.zeros(positions, 0, device=device)
    at = torch.arange(positions, device=device)
    return torch.cat(ops.rotations(at, dim, mixer.rope_theta, mixer.rope_scaling), 1)


# -- the three ways --------------------------------------------------------------------------------


class Ways:
    """A model's step on these caches, for up to `batch` requests.

    fast: the fastest way that can do it, for few rows and for many; `reasons` says of each faster
    one why not. ValueError where none can.
    """

    def __init__(self, model: GPT, caches: list, batch: int):
        if why := why_not(model, caches):
            raise ValueError(why)
        self.model = model
        self.layers = layers_of(model, caches)
        self.longest = longest(model, caches)
        self.reasons = {"fused": why_not_fused(model), "small": why_not_small(model)}
        self.early = overlaps(model.device)
        if not self.reasons["small"]:
            from labkit.kernels.cuda.attention import Scratch

            self.scratch = Scratch.of(batch, self.layers[0].heads, model.device)

    def fastest(self, rows: int) -> str:
        """The way that a step of so many rows goes."""
        if not self.reasons["fused"] and rows <= FEW:
            return "fused"
        return "torch" if self.reasons["small"] else "small"

    def step(self, way: str, ids: Tensor, rows: Tensor, pos: Tensor) -> Tensor:
        """Logits [R,V] of one token each: ids, rows (of the caches) and pos are [R], int64.

        ValueError for a way that can't do it.
        """
        if way not in WAYS:
            raise ValueError(f"a step goes one of the ways {', '.join(WAYS)}, not {way!r}")
        if why := self.reasons.get(way):
            raise ValueError(f"this model's step can't go the way {way!r}: {why}")
        return getattr(self, way)(ids, rows, pos)

    def embed(self, ids: Tensor, pos: Tensor) -> Tensor:
        """Where the residual stream begins, [R,D]."""
        model = self.model
        x = model.embed(ids)
        if model.config.embed_scale != 1:
            x = x * model.config.embed_scale
        if model.positions is not None:
            x = x + model.positions(pos.clamp_min(0))
        return x

    def fused(self, ids: Tensor, rows: Tensor, pos: Tensor) -> Tensor:
        from labkit.kernels.cuda.attention import attend
        from labkit.kernels.cuda.linear import linear

        early = self.early
        x = self.embed(ids, pos)
        for layer in self.layers:
            norm1, norm2 = layer.block.norm1, layer.block.norm2
            qkv = linear(x, layer.qkv, norm1.weight, norm1.eps, early=early)
            seen = attend(qkv, layer.heads, layer.slots, rows, pos, self.scratch, early=early)
            x = linear(seen, layer.out, add=x, out=x, early=early)
            kind = layer.block.ffn.kind
            h = linear(x, layer.gate_up, norm2.weight, norm2.eps, gate=kind, early=early)
            x = linear(h, layer.down, add=x, out=x, early=early)
        norm = self.model.norm
        return linear(x, self.head, norm.weight, norm.eps, early=early)

    @cached_property
    def head(self) -> Matrix | None:
        return matrix_of(self.model.head)

    def small(self, ids: Tensor, rows: Tensor, pos: Tensor) -> Tensor:
        from labkit.kernels.cuda.attention import attend

        x = self.embed(ids, pos)
        # what is yet to be added to the stream: the next norm does it
        delta = None
        for layer in self.layers:
            block = layer.block
            qkv = block.mixer.qkv(add_norm(x, delta, block.norm1))
            seen = attend(qkv, layer.heads, layer.slots, rows, pos, self.scratch)
            if _gate(block.mixer):
                seen = seen * qkv[:, -seen.shape[1] :].sigmoid()
            delta = block.after1(block.mixer.out(seen))
            delta = block.after2(feed_forward(block.ffn, add_norm(x, delta, block.norm2)))
        return self.model.head(add_norm(x, delta, self.model.norm))

    def torch(self, ids: Tensor, rows: Tensor, pos: Tensor) -> Tensor:
        R = len(ids)
        # numbers that the host knows are not asked for; the caches below ask the device
        known = Requests(rows=[0] * R, first=[0] * R, lengths=[1] * R)
        cu = torch.arange(R + 1, device=ids.device)
        step = Step(ids, pos.clamp_min(0), rows, cu, known)
        caches = [Fixed(layer.slots, pos, self.longest) for layer in self.layers]
        return self.model(step, caches)


def overlaps(device: torch.device) -> bool:
    """Whether kernels can start while those before them end (see `kernels.cuda.launch`)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def add_norm(x: Tensor, delta: Tensor | None, norm: nn.Module) -> Tensor:
    """x += delta in place, if there is one; `norm(x)`."""
    if isinstance(norm, RMSNorm):
        from labkit.kernels.cuda import norm as kernel

        return kernel.add_norm(x, delta, norm.weight, norm.eps)
    return norm(x if delta is None else x.add_(delta))


def feed_forward(ffn: nn.Module, x: Tensor) -> Tensor:
    """`ffn(x)`, its gating in one launch if it has one."""
    if isinstance(ffn, SwiGLU):
        from labkit.kernels.cuda.gate import gated

        return ffn.down(gated(ffn.gate_up(x), ffn.kind))
    return ffn(x)


class Fixed(Cache):
    """A cache as a captured step sees it: tensors of one size whatever the context, slots and
    positions computed on the device.
    """

    def __init__(self, slots: Slots, pos: Tensor, longest: int):
        self.slots = slots
        self.pos = pos  # [R]; -1 = padding
        self.longest = longest

    def write(self, step: Step, *items: Tensor) -> None:
        """Padding writes once more what the first request does; where that is padding too, what
        is there already.
        """
        live = self.pos >= 0
        at = self.slots.of(step.rows, step.pos)
        at = torch.where(live, at, at[0])
        for buffer, x in zip((self.slots.keys, self.slots.values), items):
            new = x.transpose(0, 1).to(buffer.dtype)  # [G,R,E]
            new = torch.where(live[:, None], new, new[:, :1])
            buffer.index_copy_(1, at, torch.where(live[0], new, buffer[:, at]))

    def read(self, step: Step) -> tuple[Tensor, ...]:
        """Every slot of the step's rows, and its position: 0 or less where it holds none."""
        goes_round = self.slots.table is None and self.slots.size < self.longest
        j = torch.arange(self.slots.size if goes_round else self.longest, device=self.pos.device)
        newest = step.pos[:, None]
        if goes_round:
            kpos = newest - (newest - j) % self.slots.size
        else:
            kpos = torch.where(j <= newest, j, -1)
        at = self.slots.of(step.rows[:, None], j)  # [R,S]
        k, v = (b[:, at].movedim(0, 2) for b in (self.slots.keys, self.slots.values))
        return k, v, kpos

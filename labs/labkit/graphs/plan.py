"""A step on a CPU: the model's operations laid out once as an array, which one call into C runs.

`lay` walks over a block as its `forward` does, and asks its own layers for their weights; what an
operation computes is in `kernels/plan.c`. Activations are fp32, whatever the weights are.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int64, c_void_p
from functools import cache as once

import torch
from torch import Tensor, nn

from labkit.caches import SlotCache
from labkit.ffn import SwiGLU
from labkit.graphs.ways import longest
from labkit.kernels import attention, build, linear
from labkit.mixers.attention import Attention
from labkit.model import GPT, Block
from labkit.ops import RMSNorm, rotations
from labkit.step import Step

TOKENS = 256  # of a step, at least; a prompt of more is read by kernels whose calls don't count
GATES = {"swiglu": "silu_gate", "geglu": "gelu_gate"}


class Layer(ctypes.Structure):
    """One layer's attention: `struct attention` of plan.c."""

    _fields_ = (
        ("slots", attention.Slots),
        ("rule", attention.Rule),
        ("heads", c_int64),
        ("turned", c_int64),
        ("angles", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("eps", c_float),
        ("attend", c_void_p),
        ("keep", c_void_p),
    )


class Op(ctypes.Structure):
    """`struct op` of plan.c."""

    _fields_ = (
        ("run", c_void_p),
        ("input", c_void_p),
        ("add", c_void_p),
        ("out", c_void_p),
        ("width", c_int64),
        ("with_", c_void_p),
        ("linear", c_void_p),
        ("eps", c_float),
    )


class Tokens(ctypes.Structure):
    """What a step works on: `struct step` of plan.c."""

    _fields_ = (
        ("N", c_int64),
        ("outs", c_int64),
        ("pos", c_void_p),
        ("rows", c_void_p),
        ("last", c_void_p),
        ("requests", attention.Requests),
        ("logits", c_void_p),
    )


@once
def _library() -> ctypes.CDLL:
    library = build.library("plan")
    library.run.argtypes = (POINTER(Op), c_int64, POINTER(Tokens), c_int)
    library.run.restype = None
    return library


def why_not(model: GPT, caches: list) -> str:
    """Why no plan can be made of this model and these caches, in one sentence; empty if one can."""
    c = model.config
    if missing := build.missing("plan") or attention.missing(model.dtype):
        return f"there is no kernel for it: {missing}"
    if c.norm != "rms" or c.position != "rope":
        return "its norms are LayerNorms, or its positions are learned"
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        return "somebody watches its layers by hooks, which a plan does not call"
    for i, (block, cache) in enumerate(zip(model.blocks, caches)):
        if reason := _why_not_block(block, cache):
            return f"layer {i}: {reason}"
    if model.head.matrix() is None:
        return "the head's weight does not lie in panels: pack the model first"
    return ""


def _why_not_block(block: Block, cache) -> str:
    mixer, ffn = block.mixer, block.ffn
    if type(mixer) is not Attention:
        return f"{type(mixer).__name__} is no softmax attention over keys and values"
    if type(ffn) is not SwiGLU or ffn.kind not in GATES:
        return f"{type(ffn).__name__} is no SwiGLU or GeGLU of dense layers"
    if mixer.qkv.out_features != (mixer.H + 2 * mixer.G) * mixer.E:
        return "its heads have output gates"
    if mixer.E % 16 or mixer.E > 512:
        return f"heads of {mixer.E} numbers do not fill vectors of 16"
    kept = isinstance(cache, SlotCache) and cache.plain
    if not kept or cache.buffers[0].dtype not in attention.FLAGS:
        return f"a {type(cache).__name__} is no buffer of keys and values in fp32 or bf16"
    if any(m.matrix() is None for m in (mixer.qkv, mixer.out, ffn.gate_up, ffn.down)):
        return "a weight does not lie in panels: pack the model first"
    return ""


class Plan:
    """A model's step as an array of operations, for up to `tokens` packed tokens.

    Any step fits that brings no more, in any shape: decodes, chunks, drafts to check. It must be
    captured anew when weights are replaced. ValueError with the reason for a model or caches that
    it can't be made of.
    """

    def __init__(self, model: GPT, caches: list, tokens: int):
        if reason := why_not(model, caches):
            raise ValueError(f"no plan can be made of this model: {reason}")
        self.model = model
        self.caches = caches
        self.tokens = max(tokens, TOKENS)
        self.positions = longest(model, caches)
        self.kept = []  # what the operations point to
        self.buffers = {}
        self.angles = {}
        self.ops = []
        D = model.config.d_model
        self.x = self._buffer("x", D)
        h = self._buffer("h", D)
        for block, cache in zip(model.blocks, caches):
            self._lay(block, cache, h)
        self._norm(self.x, model.norm, h, run="norm_last")
        self._linear(h, model.head, out=None, run="head")
        self.array = (Op * len(self.ops))(*self.ops)
        # caches that send a token to the same slot refuse the same steps
        self.checked = list({c.layout[:2]: c for c in caches}.values())

    def _lay(self, block: Block, cache: SlotCache, h: Tensor) -> None:
        """`Block.forward`, operation by operation."""
        mixer, ffn = block.mixer, block.ffn
        layer = self._layer(mixer, cache)
        self._norm(self.x, block.norm1, h)
        qkv = self._linear(h, mixer.qkv)
        self._op("rotate_and_keep", qkv, qkv, with_=layer)
        seen = self._buffer("seen", mixer.H * mixer.E)
        self._op("attention", qkv, seen, with_=layer)
        self._add(seen, mixer.out, block.after1, h)
        self._norm(self.x, block.norm2, h)
        gate_up = self._linear(h, ffn.gate_up)
        gated = self._buffer("gated", ffn.down.in_features)
        self._op(GATES[ffn.kind], gate_up, gated)
        self._add(gated, ffn.down, block.after2, h)

    def _add(self, x: Tensor, layer, after: nn.Module, h: Tensor) -> None:
        """A layer's output goes to the residual stream, through a norm if there is one."""
        if not isinstance(after, RMSNorm):
            self._linear(x, layer, out=self.x, add=self.x)
            return
        self._linear(x, layer, out=h)
        self._norm(h, after, h)
        self._op("add", h, self.x)

    # -- one operation -------------------------------------------------------------------

    def _op(self, run: str, x: Tensor, out: Tensor | None, **more) -> None:
        address = ctypes.cast(getattr(_library(), run), c_void_p)
        out_at = None if out is None else out.data_ptr()
        self.ops.append(Op(run=address, input=x.data_ptr(), out=out_at, width=x.shape[1], **more))

    def _norm(self, x: Tensor, norm: RMSNorm, out: Tensor, run: str = "norm") -> None:
        self._op(run, x, out, with_=self._floats(norm.weight), eps=norm.eps)

    def _linear(self, x: Tensor, layer, out="new", add=None, run: str = "multiply"):
        weight = layer.matrix()
        self.kept.append(weight)
        if isinstance(out, str):
            out = self._buffer(f"{layer.out_features} outputs", layer.out_features)
        add_at = None if add is None else add.data_ptr()
        kernel = ctypes.cast(linear.in_panels(weight.kind), c_void_p)
        self._op(run, x, out, add=add_at, with_=ctypes.addressof(weight.matrix), linear=kernel)
        return out

    def _layer(self, mixer: Attention, cache: SlotCache) -> int:
        rule = attention.Rule.of(mixer.scale, mixer.window, None)
        rule.sinks = self._floats(mixer.sinks)
        q_norm = mixer.q_norm
        attend, keep = attention.in_teams(cache.buffers[0].dtype)
        layer = Layer(
            cache.in_place(),
            rule,
            mixer.H,
            mixer.rope_dim,
            self._angles(mixer),
            self._floats(q_norm and q_norm.weight),
            self._floats(q_norm and mixer.k_norm.weight),
            q_norm.eps if q_norm else 0,
            attend,
            keep,
        )
        self.kept.append(layer)
        return ctypes.addressof(layer)

    # -- what they point to --------------------------------------------------------------

    def _buffer(self, name: str, width: int) -> Tensor:
        """[tokens,width]: one for all layers, as one ends before the next begins."""
        return self.buffers.setdefault(name, torch.zeros(self.tokens, width))

    def _floats(self, x: Tensor | None) -> int | None:
        """Where this vector lies in fp32."""
        if x is None:
            return None
        self.kept.append(x.detach().float().contiguous())
        return self.kept[-1].data_ptr()

    def _angles(self, mixer: Attention) -> int | None:
        """cos and sin of every position, [positions,turned]: one table for all that turn alike."""
        if not mixer.rope_dim:
            return None
        key = (mixer.rope_dim, mixer.rope_theta, mixer.rope_scaling is None)
        if key not in self.angles:
            at = torch.arange(self.positions)
            turns = rotations(at, mixer.rope_dim, mixer.rope_theta, mixer.rope_scaling)
            self.angles[key] = torch.cat(turns, -1).contiguous()
        return self.angles[key].data_ptr()

    # -- a step --------------------------------------------------------------------------

    def refuses(self, step: Step) -> str:
        """Why this step is not for the plan, in one sentence; empty if it is."""
        if len(step.ids) > self.tokens:
            return f"the step brings {len(step.ids)} tokens, and was captured for {self.tokens}"
        if max(step.context) > self.positions:
            return (
                f"a request reaches {max(step.context)} tokens, and was captured for"
                f" {self.positions}"
            )
        return ""

    def __call__(self, step: Step, last: Tensor | None = None) -> Tensor:
        """Logits of the packed tokens `last`, or of all: [R',V].

        ValueError for a step that it refuses, or whose tokens have no slot.
        """
        if reason := self.refuses(step):
            raise ValueError(reason)
        for cache in self.checked:
            cache.check(step)
        model = self.model
        N = len(step.ids)
        self.x[:N] = model.embed(step.ids)
        if model.config.embed_scale != 1:
            self.x[:N] *= model.config.embed_scale
        last = torch.arange(N) if last is None else last.long().contiguous()
        logits = torch.empty(len(last), model.config.vocab_size)
        requests, _ = step.once("requests in C", lambda: attention.requests_of(step))
        pos, rows = step.pos.long().contiguous(), step.token_rows.long().contiguous()
        tokens = Tokens(N, len(last), pos.data_ptr(), rows.data_ptr(), last.data_ptr(), requests)
        tokens.logits = logits.data_ptr()
        _library().run(self.array, len(self.array), tokens, torch.get_num_threads())
        return logits.to(model.dtype)

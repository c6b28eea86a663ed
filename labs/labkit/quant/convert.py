"""Swap a model's linear layers for quantised ones; find the layers that resist, and smooth them."""

from __future__ import annotations

from contextlib import ExitStack
from fnmatch import fnmatch

import torch
from torch import nn

from labkit.config import UnknownName
from labkit.linear import Linear
from labkit.model import GPT
from labkit.quant.linear import KINDS, FewBits, FewBitsEmbedding, kernel_names, row_codes
from labkit.step import Step

# the head is the largest matrix, and its outputs are the logits: it stays at 8 bits, and what it
# multiplies nearly exact, as most of what w4a8 loses is lost there
HEADS = dict.fromkeys(("int4", "int4min", "w4a8", "w4a8min"), "int8")


@torch.inference_mode()
def quantize(model: GPT, kind: str, *, only=("*",), skip=(), kernel: str | None = None) -> GPT:
    """The same model, changed in place: its `Linear`s compute in few bits, and `model.quantisation`
    says which and how.

    kind: "fp16" (16-bit weights, sums in fp32), "int8" (8-bit weights), "w8a8" (and 8-bit
    activations), "int4" (4-bit weights in groups of 32), "int4min" (with a minimum for each group),
    "w4a8", "w4a8min" (and 8-bit activations). The head of 4-bit kinds is "int8". only, skip: names
    of layers, with wildcards, such as `"blocks.11.ffn.down"` or `"head"`; layers already quantised
    stay as they are, so kinds are mixed by calling twice. kernel: the first of `kernel_names`
    unless named. Raises ValueError for an unknown kind or kernel, or a name that fits no layer.
    """
    if kind not in KINDS:
        raise UnknownName("quantisation", kind, KINDS)
    linear = {n: m for n, m in model.named_modules() if isinstance(m, Linear | FewBits)}
    for pattern in (*only, *skip):
        if not any(fnmatch(n, pattern) for n in linear):
            raise ValueError(
                f"no linear layer is called {pattern!r}: the names go from {min(linear)!r} to"
                f" {max(linear)!r}"
            )
    known = kernel_names(kind, model.device.type)
    if kernel is not None and kernel not in known:
        raise UnknownName(f"{kind} kernel that is right here", kernel, known)
    fits = lambda name, patterns: any(fnmatch(name, p) for p in patterns)
    chosen = {
        n: m
        for n, m in linear.items()
        if isinstance(m, Linear) and fits(n, only) and not fits(n, skip)
    }
    new = {}
    for name, layer in chosen.items():
        its = HEADS.get(kind, kind) if name == "head" else kind
        new[name] = KINDS[its](
            layer, layer.dense(), its, kernel or kernel_names(its, model.device.type)[0]
        )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new[name])
    if "head" in new and model.config.tie_embeddings and isinstance(model.embed, nn.Embedding):
        # the head has its own codes now; rows of the shared matrix are only looked up
        model.embed = FewBitsEmbedding(model.embed, kind)
    model.quantisation = {}
    for m in (m for m in model.modules() if isinstance(m, FewBits | FewBitsEmbedding)):
        row = model.quantisation.setdefault(
            f"{m.kind} {m.kernel}", {"layers": 0, "weights": 0, "bytes": 0}
        )
        row.update(
            layers=row["layers"] + 1,
            weights=row["weights"] + m.in_features * m.out_features,
            bytes=row["bytes"] + m.nbytes,
        )
    return model


@torch.inference_mode()
def calibrate(model: GPT, ids: list[int]) -> dict[str, dict]:
    """What 8-bit activations would do to each `Linear` on a text: `largest` |input|, also per
    channel, and the output's error.

    `per_row`, `per_tensor`: relative error for the median token, with a scale for each token or one
    for all.
    """
    found = {}

    def watch(name, layer, inputs):
        x, w = inputs[0].float(), layer.dense().float()
        whole, (rows, scale) = x.abs().max() / 127, row_codes(x)
        error = lambda rounded: (
            (((rounded - x) @ w.T).norm(dim=1) / (x @ w.T).norm(dim=1)).median().item()
        )
        found[name] = {
            "largest": x.abs().max().item(),
            "channels": x.abs().amax(0),
            "per_row": error(rows * scale),
            "per_tensor": error((x / whole).round() * whole),
        }

    with ExitStack() as hooks:
        for n, m in model.named_modules():
            if isinstance(m, Linear):
                hooks.callback(m.register_forward_pre_hook(lambda m, x, n=n: watch(n, m, x)).remove)
        model(Step.of([(0, 0, ids)], model.device), model.caches("none", 1, 1))
    return found


def outliers(model: GPT, ids: list[int], above: float = 0.03) -> list[str]:
    """Layers whose output for the median token 8-bit activations put off by more than `above`,
    worst first: `skip` them.
    """
    errors = {name: c["per_row"] for name, c in calibrate(model, ids).items()}
    return sorted((n for n in errors if errors[n] > above), key=errors.get, reverse=True)


@torch.inference_mode()
def smooth(model: GPT, ids: list[int], alpha: float = 0.5) -> GPT:
    """Move large activation channels into the weights, in place: the same function, easier to round
    (SmoothQuant; Xiao et al. 2023).

    A channel is divided by `s = max|x|^alpha / max|w|^(1-alpha)` (eq. 4) where it is made, in a
    norm's weight or the rows of `up`, and its column multiplied by s where it is used. Call it
    before `quantize`; ids: some text, but not the one to be judged on.
    """
    measured = calibrate(model.unpack(), ids)

    def move(name: str, makers) -> None:
        if name in measured:
            layer = model.get_submodule(name)
            s = measured[name]["channels"].clamp_min(1e-5) ** alpha / layer.weight.abs().amax(
                0
            ).clamp_min(1e-5) ** (1 - alpha)
            s /= s.log().mean().exp()
            # a new tensor: a tied head parts from the embedding
            layer.weight = nn.Parameter(layer.weight * s, requires_grad=False)
            for maker in makers:
                maker.div_(s if maker.dim() == 1 else s[:, None])

    for i, b in enumerate(model.blocks):
        move(f"blocks.{i}.mixer.qkv", b.norm1.parameters())
        move(f"blocks.{i}.ffn.gate_up", b.norm2.parameters())
        if f"blocks.{i}.ffn.gate_up" in measured:
            move(
                f"blocks.{i}.ffn.down",
                [p[b.ffn.down.in_features :] for p in b.ffn.gate_up.parameters()],
            )
    move("head", model.norm.parameters())
    return model

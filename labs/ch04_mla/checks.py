"""Checks of chapter 04, multi-head latent attention.

Each returns what was right, or raises Wrong with what to look at.
"""

import math
from typing import ClassVar

import numpy as np

from labkit import formulas
from labkit.checks import call, expect
from labkit.published import presets
from labkit.reference.layers import rope
from labkit_labs.ch04_mla import crossover
from labkit_labs.ch04_mla.absorbed import LITE
from labkit_labs.ch04_mla.breakages import adjacent_rope
from labkit_labs.common import gpus

MODELS = {
    "deepseek-v3": presets["deepseek-v3"],
    "DeepSeek-V2-Lite's layer": LITE,
    "tiny-mla": presets["tiny-mla"],
}


def latent_bytes(f):
    """04.1: bytes of a latent cache, from the sizes."""
    for name, tokens, size in (("deepseek-v3", 1, 2), ("tiny-mla", 100, 4)):
        c = MODELS[name]
        L, C, Er = c.n_layers, c.kv_lora_rank, c.qk_rope_head_dim
        want, got = L * (C + Er) * tokens * size, call(f, c, tokens, size)
        where = f"{name}, {tokens:,} tokens of {size} bytes a number"
        expect(
            got != L * C * tokens * size,
            f"{where}: {got:,} are the latents alone. What carries the position is cached beside"
            " them.",
        )
        expect(
            got != 2 * want,
            f"{where}: {got:,} stores everything twice. A latent is read as key and as value, and"
            " lies there once.",
        )
        expect(
            got != want * c.n_heads,
            f"{where}: {got:,} gives each head its own. All heads read the same numbers.",
        )
        expect(
            got != L * c.n_heads * (c.qk_nope_head_dim + Er + c.v_head_dim) * tokens * size,
            f"{where}: {got:,} is what keys and values would take. Nothing of a head is stored.",
        )
        expect(
            got != L * (C + c.n_heads * Er) * tokens * size,
            f"{where}: {got:,} gives each head a rotated key. One serves all heads.",
        )
        expect(got * L != want, f"{where}: {got:,} is one layer of {L}.")
        expect(got == want, f"{where}: {got:,} bytes, expected {want:,}.")
    return "one latent and one rotated key a token and layer: 70,272 bytes for DeepSeek-V3."


class Watched(np.ndarray):
    """An array that notes the shape of whatever is computed from it."""

    seen: ClassVar[set] = set()

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return self._noted(getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, func, types, args, kwargs):
        return self._noted(func, args, kwargs)

    def _noted(self, f, args, kwargs):
        bare = [a.view(np.ndarray) if isinstance(a, Watched) else a for a in args]
        out = f(*bare, **kwargs)
        Watched.seen.add(np.shape(out))
        return out


def absorbed_scores(f):
    """04.2: the scores of one query in one head, with no key ever made."""
    draw = np.random.default_rng(0)
    for S, C, En, Er in ((50, 8, 6, 4), (70, 5, 12, 2)):
        q, turned = draw.standard_normal(En), draw.standard_normal(Er)
        latent, k_rope = draw.standard_normal((S, C)), draw.standard_normal((S, Er))
        up = draw.standard_normal((En, C))
        content, position = latent @ (up.T @ q), k_rope @ turned
        want = (content + position) / math.sqrt(En + Er)
        Watched.seen = set()
        got = np.asarray(call(f, q, turned, latent.view(Watched), k_rope, up))
        where = f"{S} cached tokens, C = {C}, En = {En}, Er = {Er}"
        expect(got.shape == (S,), f"{where}: give one score a token, ({S},), not {got.shape}.")
        expect(
            not np.allclose(got, content / math.sqrt(En + Er)),
            f"{where}: these scores know nothing of positions. The rotated part has scores of its"
            " own, to be added before the scale.",
        )
        expect(
            not np.allclose(got * math.sqrt(C + Er), content + position),
            f"{where}: scaled by the length of what is compared, C + Er. The model was trained with"
            " another length, that of a head's query.",
        )
        expect(
            not np.allclose(got * math.sqrt(En), content + position),
            f"{where}: scaled by the part without position alone. A head's query is longer.",
        )
        expect(
            not np.allclose(got, content / math.sqrt(En + Er) + position),
            f"{where}: only one of two parts is scaled. A score is their sum, scaled once.",
        )
        expect(
            not np.allclose(got, content + position), f"{where}: these scores are not scaled yet."
        )
        expect(np.allclose(got, want), f"{where}: {got[0]:.4f} at first, expected {want[0]:.4f}.")
        expect(
            not {(S, En), (En, S)} & Watched.seen,
            f"{where}: right, but a key of {En} numbers was made for each of {S} tokens. Bring the"
            " query to the latents first.",
        )
    return "the same scores, and the up-projection ran once, not once a token."


def first_reprojected(f):
    """04.3: the fewest new tokens for which re-projecting costs no more than absorbing."""
    for name, context in (
        ("DeepSeek-V2-Lite's layer", 2048),
        ("deepseek-v3", 100_000),
        ("deepseek-v3", 500),
        ("tiny-mla", 50),
    ):
        c = MODELS[name]
        want, got = math.ceil(crossover.crossing(c, context)), call(f, c, context)
        where = f"{name}, {context:,} tokens in all"
        size = c.qk_nope_head_dim + c.v_head_dim
        endless = math.ceil(crossover.crossing(c))
        expect(got == int(got), f"{where}: tokens come whole, not {got}.")
        expect(
            got != endless or endless == want,
            f"{where}: {got} holds for an endless context. Absorbing also moves each query in"
            " and each result out, which a short context does not hide.",
        )
        expect(
            got != math.ceil(c.kv_lora_rank * size / (c.kv_lora_rank - size))
            if c.kv_lora_rank != size
            else True,
            f"{where}: {got} counts a latent once. It is met twice: in a score, in a sum.",
        )
        expect(
            got != want - 1,
            f"{where}: at {got} re-projecting still costs more; round the other way.",
        )
        expect(
            got == want, f"{where}: {got}, expected {want}: write both costs and set them equal."
        )
    return "four cases; the number of heads and the rotated part have dropped out."


def queries_in_memory_bound(f):
    """04.4: the most new tokens for which absorbed attention is still bound by memory."""
    for name, gpu in (("DeepSeek-V2-Lite's layer", "H100"), ("deepseek-v3", "H100"),
                      ("DeepSeek-V2-Lite's layer", "H200")):  # fmt: skip
        c, ceilings = MODELS[name], gpus.named(gpu).ceilings
        ridge = ceilings.flops_per_second / ceilings.bytes_per_second
        one = intensity(c)
        want, got = int(ridge / one), call(f, c, ceilings.flops_per_second,
                                           ceilings.bytes_per_second)  # fmt: skip
        where = f"{name} on an {gpu}"
        expect(got == int(got), f"{where}: tokens come whole, not {got}.")
        expect(
            got != int(ridge * c.n_heads / one),
            f"{where}: {got} is for one head. All {c.n_heads} of them meet each latent that is"
            " read.",
        )
        expect(
            got != int(ridge / one / 2) or want == int(ridge / one / 2),
            f"{where}: {got} takes a number for one byte; bf16 has two.",
        )
        expect(
            got != math.ceil(ridge / one),
            f"{where}: {got} is rounded up: with so many arithmetic is the limit already.",
        )
        expect(
            got != int(ridge / c.n_heads),
            f"{where}: {got} meets a latent once. It serves the score and the sum.",
        )
        expect(
            got != int(ridge),
            f"{where}: {got} is one FLOP a byte, as with a key and a value for each head.",
        )
        expect(
            got == want,
            f"{where}: {got}, expected {want}: one query does {one:.0f} FLOPs for each byte of"
            f" latents, and the card balances at {ridge:.0f}.",
        )
    return (
        "1 for DeepSeek-V3 on an H100: with 128 heads on each latent, arithmetic is nearly the"
        " limit already."
    )


def intensity(c) -> float:
    """FLOPs for each byte of bf16 latents that one query does, all heads together."""
    f = formulas.symbols
    flops = f.latent_decode_flops(1, 1, c.n_heads, c.kv_lora_rank, c.qk_rope_head_dim)
    return flops / (2 * (c.kv_lora_rank + c.qk_rope_head_dim))


def to_halves(f):
    """04.5: rows of weights made for neighbouring pairs, reordered for halves."""
    draw = np.random.default_rng(0)
    for E, D in ((8, 5), (64, 16)):
        wq, wk = draw.standard_normal((2, E, D))
        x = draw.standard_normal((20, 1, D))
        pos = np.arange(20)
        scores = lambda turn, a, b, E=E, x=x, pos=pos: np.einsum(
            "tge,sge->ts", turn(x @ a.T, pos, 1e4), turn(x @ b.T, pos, 1e4)
        )
        want = scores(adjacent_rope, wq, wk)
        a, b = (np.asarray(call(f, w.copy())) for w in (wq, wk))
        expect(a.shape == (E, D), f"keep the shape: ({E}, {D}), not {a.shape}.")
        expect(
            {tuple(row) for row in a} == {tuple(row) for row in wq},
            f"({E}, {D}): the rows are not those that came in. Only their order changes.",
        )
        expect(
            not np.array_equal(a, wq),
            f"({E}, {D}): the order is as before, and `rope` turns rows 0 and {E // 2} together"
            " where the model learned 0 and 1.",
        )
        got = scores(rope, a, b)
        back = np.argsort(np.r_[0:E:2, 1:E:2])
        expect(
            not np.array_equal(a, wq[back]),
            f"({E}, {D}): that is the way back, from halves to neighbours.",
        )
        expect(
            np.allclose(got, want),
            f"({E}, {D}): scores are off by {np.abs(got - want).max():.2g}. Which two rows did the"
            " model learn to turn together, which comes first, and where does `rope` seek them?",
        )
    return "the scores of the neighbours' RoPE, from the halves' RoPE, at every distance."


CHECKS = {
    "04.1": latent_bytes,
    "04.2": absorbed_scores,
    "04.3": first_reprojected,
    "04.4": queries_in_memory_bound,
    "04.5": to_halves,
}

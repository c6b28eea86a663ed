"""Seeded faults: each moves the logits far beyond the gate by which labkit is compared with
transformers, so none could hide.
"""

import pytest
import torch

import labkit
from labkit import kernels, ops
from labkit.caches import StateCache
from labkit.mixers import attention, latent
from labkit.weights import families, from_hf
from tests import oracles


def gap(a, b):
    return (a - b).abs().max().item()


def every(path, change):
    """Change an attribute of every layer that has it: `path` is dotted."""

    def mutate(model, _):
        *owners, name = path.split(".")
        hit = 0
        for owner in model.blocks:
            for part in owners:
                owner = getattr(owner, part, None)
            if getattr(owner, name, None) is not None:
                old = getattr(owner, name)
                new = change(old.data if isinstance(old, torch.nn.Parameter) else old)
                setattr(
                    owner,
                    name,
                    torch.nn.Parameter(new, requires_grad=False)
                    if isinstance(old, torch.nn.Parameter)
                    else new,
                )
                hit += 1
        assert hit

    return mutate


def config(**changes):
    """Change the config that the routers read."""
    return every("ffn.router.config", lambda c: c.replace(**changes))


def patch(module, name, make):
    return lambda model, monkeypatch: monkeypatch.setattr(module, name, make(getattr(module, name)))


def wrong_grouping(attend):
    """Query head h reads key head h % G instead of h // (H / G)."""

    def wrong(q, k, *rest):
        order = torch.arange(q.shape[1]).view(-1, k.shape[2]).T.flatten()
        return attend(q[:, order], k, *rest)[:, order.argsort()]

    return wrong


def interleaved(rope):
    """Pairs (0,1), (2,3) … rotated, instead of (0,n/2), (1,n/2+1) …"""

    def wrong(x, cos, sin):
        half = cos.shape[-1] // 2
        a = x[..., : 2 * half : 2]
        b = x[..., 1 : 2 * half : 2]
        c = cos[..., :half]
        s = sin[..., half:]
        return torch.cat(
            [torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2), x[..., 2 * half :]], -1
        )

    return wrong


def blind_to_itself(mask):
    """`kpos < qpos` instead of `<=`."""

    def wrong(kpos, *rest):
        return mask(torch.where(kpos >= 0, kpos + 1, kpos), *rest)

    return wrong


def forget_state(model, monkeypatch):
    monkeypatch.setattr(
        StateCache, "write", lambda self, step, *_: self.length.__setitem__(0, max(step.context))
    )


def shared_norm_eps(model, _):
    for m in model.modules():
        if isinstance(m, ops.RMSNorm):
            m.eps = 1e-5 if m.eps < 5e-6 else 1e-6


zero = lambda x: x * 0
FAULTS = {
    "window one more": ("mistral", every("mixer.window", lambda w: w + 1)),
    "window one less": ("mistral", every("mixer.window", lambda w: w - 1)),
    "window one more, gpt-oss": ("gpt-oss", every("mixer.window", lambda w: w + 1)),
    "head grouping": ("llama-gqa", patch(ops, "attend", wrong_grouping)),
    "rope interleaved": ("llama-gqa", patch(attention, "rope", interleaved)),
    "rope interleaved, latent": ("deepseek-dense", patch(latent, "rope", interleaved)),
    "rope base": ("qwen3", every("mixer.rope_theta", lambda t: t * 1.01)),
    "rope of all dimensions": ("qwen3-next", every("mixer.rope_dim", lambda _: oracles.E)),
    "rope not stretched": ("llama3-rope", every("mixer.rope_scaling", lambda _: None)),
    "rope stretched linearly": (
        "llama-yarn",
        every("mixer.rope_scaling", lambda s: s | {"rope_type": "linear"}),
    ),
    "yarn without its gain": ("llama-yarn", patch(ops, "yarn_gain", lambda _: lambda scaling: 1.0)),
    "yarn's scale of queries": ("deepseek-yarn", every("mixer.scale", lambda _: 24**-0.5)),
    "gemma's local base": ("gemma3", every("mixer.rope_theta", lambda _: 1e6)),
    "query scale": ("gemma3", every("mixer.scale", lambda _: 16**-0.5)),
    "norm eps": ("llama-gqa", shared_norm_eps),
    "norm eps, latent": ("deepseek-dense", shared_norm_eps),
    "norm weights less 1": ("gemma3", every("norm1.weight", lambda w: w - 1)),
    "norm after the mixer": ("gemma3", every("after1", lambda _: torch.nn.Identity())),
    "query norm": ("qwen3", every("mixer.q_norm", lambda _: torch.nn.Identity())),
    "latent norm": ("deepseek-dense", every("mixer.kv_norm", lambda _: torch.nn.Identity())),
    "embedding scale": ("gemma3", lambda model, _: model.embed.weight.data.mul_(1.01)),
    "qkv bias": ("llama-bias", every("mixer.qkv.bias", zero)),
    "output bias": ("gpt-oss", every("mixer.out.bias", zero)),
    "expert bias": ("gpt-oss", every("ffn.down_bias", zero)),
    "router bias": ("gpt-oss", every("ffn.router.score.bias", zero)),
    "sinks": ("gpt-oss", every("mixer.sinks", lambda s: s - 100)),
    "gpt-oss gating": ("gpt-oss", every("ffn.kind", lambda _: "swiglu")),
    "no renormalising": ("qwen3-moe", config(renormalise=False)),
    "renormalising": ("qwen3-moe-raw", config(renormalise=True)),
    "one expert less": ("mixtral", config(n_active_experts=1)),
    "router correction": ("deepseek-moe", every("ffn.router.correction", zero)),
    "routed scale": ("deepseek-moe", config(routed_scale=1.0)),
    "expert groups": ("deepseek-moe", config(n_expert_groups=1, n_active_groups=1)),
    "shared expert": ("deepseek-moe", every("ffn.shared.down.weight", zero)),
    "shared gate": ("qwen3-next", every("ffn.shared_gate", lambda _: None)),
    "gelu for silu": ("llama-gqa", every("ffn.kind", lambda _: "geglu")),
    "output gate": (
        "qwen3-next-dense",
        every("mixer.qkv.weight", lambda w: torch.cat([w[:128], zero(w[128:])])),
    ),
    "decay": ("qwen3-next-dense", every("mixer.A_log", lambda a: a + 0.05)),
    "decay's bias": ("qwen3-next-dense", every("mixer.dt_bias", zero)),
    "convolution reversed": ("qwen3-next-dense", every("mixer.conv", lambda w: w.flip(1))),
    "state forgotten": ("qwen3-next-dense", forget_state),
    "blind to itself": ("llama-gqa", patch(ops, "visible", blind_to_itself)),
    "learned positions": (
        "gpt2",
        lambda model, _: model.positions.weight.data.copy_(model.positions.weight.data.roll(1, 0)),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seeded_fault_is_seen(fault, monkeypatch):
    name, mutate = FAULTS[fault]
    theirs = oracles.build(name)
    ours, tokens = from_hf(theirs), oracles.text(40)
    # the faults are torch's way's; test_kernels has the kernel's
    monkeypatch.setattr(kernels.attention, "takes", lambda *_: False)
    mutate(ours, monkeypatch)
    got = labkit.logits(ours, tokens, [7, 13, *[1] * 20], "static")
    assert gap(got, oracles.expected(theirs, tokens)) > 10 * oracles.gate(name)


@pytest.mark.parametrize(
    "name,layout,wrong",
    [
        ("deepseek-dense", "deinterleave", lambda w, dim=0: w),
        ("gpt-oss", "deinterleave", lambda w, dim=0: w),
        ("gemma3", "plus_one", lambda w: w),
        ("qwen3-next", "ungroup", lambda w, key_heads, sizes: w),
        ("qwen3-next", "part_of_head", lambda w, heads, part: w.chunk(2)[part]),
    ],
)
def test_a_wrong_layout_on_loading_is_seen(name, layout, wrong, monkeypatch):
    theirs = oracles.build(name)
    monkeypatch.setattr(families, layout, wrong)
    assert gap(
        labkit.logits(from_hf(theirs), oracles.text(40)), oracles.expected(theirs, oracles.text(40))
    ) > 10 * oracles.gate(name)

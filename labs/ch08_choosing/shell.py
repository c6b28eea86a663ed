"""CH08-SHELL: one shell, insides swapped.

For every variant: its size, its cache, the lines that differ, and the contract that does not.

Most variants are one number in the config and no line of code. The others are another mixer or FFN
behind the same call, `mixer(x, step, cache)` and `ffn(x)`, both [N,D] -> [N,D]: asserted here on a
step that mixes a prompt, a chunk and a decoded token.
"""

import dataclasses

from labkit import ModelConfig, formulas
from labkit.lab import Lab

BASE = ModelConfig(256, 128, 2, 8, 8, 16, 352, 512)
VARIANTS = {
    "MHA": {},
    "GQA": {"n_kv_heads": 2},
    "MQA": {"n_kv_heads": 1},
    "SWA": {"layer_types": ("sliding",) * 2, "window": 64},
    "MLA": {
        "layer_types": ("mla",) * 2,
        "kv_lora_rank": 48,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
    },
    "gated DeltaNet": {
        "layer_types": ("delta",) * 2,
        "delta_n_key_heads": 4,
        "delta_n_value_heads": 8,
        "delta_key_dim": 16,
        "delta_value_dim": 16,
    },
    "MoE": {"n_experts": 8, "n_active_experts": 2, "d_expert": 88},
}


def lines(obj) -> list[str]:
    """Its source, without docstring and blank lines."""
    from labkit import show

    return [line.rstrip() for line in show(obj, doc=False).text.splitlines() if line.strip()]


def differing(left, right) -> int:
    """Lines of `right` that `left` has not, in order: what `labkit.compare(left, right)` marks on
    the right.
    """
    import difflib

    a, b = lines(left), lines(right)
    return len(b) - sum(
        n for _, _, n in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    )


def run(device="cpu", quick=False):
    import torch

    import labkit

    rows, standard = [], labkit.GPT(BASE)
    around = lambda m: {
        name: p.shape
        for name, p in m.named_parameters()
        if ".mixer." not in name and ".ffn." not in name
    }
    default = {f.name: getattr(BASE, f.name) for f in dataclasses.fields(BASE) if f.name != "_"}
    for name, changes in VARIANTS.items():
        config = BASE.replace(**changes)
        torch.manual_seed(0)
        model = labkit.GPT(config).to(device).eval()
        block, plain = model.blocks[0], standard.blocks[0]
        for b in model.blocks:
            b.ffn.execution = "loop"  # what any device can do, for experts; others don't look
        shapes = {}
        note = lambda key, shapes=shapes: (
            lambda _, given, out: shapes.update({key: (tuple(given[0].shape), tuple(out.shape))})
        )
        hooks = [
            part.register_forward_hook(note(key))
            for key, part in (("mixer", block.mixer), ("ffn", block.ffn), ("shell", block))
        ]
        # three requests, three lengths, no padding
        step = labkit.Step.of([(0, 0, [1, 2, 3]), (1, 0, [4] * 70), (2, 0, [5])], device)
        caches = model.caches("ring", 3, 128, longest_step=70)
        with torch.inference_mode():
            logits = model(step, caches, step.last)
        for hook in hooks:
            hook.remove()
        at, grown = 200, formulas.kv_cache_bytes(config, 400) - formulas.kv_cache_bytes(config, 200)
        rows.append(
            {
                "variant": name,
                "parameters": formulas.parameters(config),
                "active": formulas.active_parameters(config),
                "bytes_a_token": formulas.kv_cache_bytes(config, at) / at,
                "bytes_a_further_token": grown / 200,
                "config": ", ".join(k for k, v in changes.items() if default[k] != v) or "–",
                "mixer": type(block.mixer).__name__,
                "ffn": type(block.ffn).__name__,
                "mixer_lines": differing(type(plain.mixer), type(block.mixer)),
                "ffn_lines": differing(type(plain.ffn), type(block.ffn)),
                "shell": len(set(around(model).items()) ^ set(around(standard).items())),
                "shapes": sorted({f"{list(a)} -> {list(b)}" for a, b in shapes.values()}),
                "logits": list(logits.shape),
            }
        )
    return rows


def go(rows):
    for r in rows:
        if r["shapes"] != rows[0]["shapes"] or r["logits"] != rows[0]["logits"]:
            return (
                f"{r['variant']} maps {', '.join(r['shapes'])}, where {rows[0]['variant']} maps"
                f" {', '.join(rows[0]['shapes'])}: an inside must not change the contract"
            )
        if r["shell"]:
            return (
                f"{r['variant']} changes {r['shell']} tensors of the shell: move the difference"
                " into its mixer or FFN"
            )


def plot(rows):
    from labkit import plotting

    return plotting.bars(
        {r["variant"]: r["bytes_a_token"] for r in rows},
        x_label="cache bytes a token at 200 tokens, bf16",
        form="{:,.0f}",
        alt="Cache bytes per token by variant: "
        + ", ".join(f"{r['variant']} {r['bytes_a_token']:,.0f}" for r in rows),
    )


LAB = Lab(
    asks="Does every inside map [N,D] to [N,D], in the same shell?",
    title="One shell, seven insides",
    minutes=0.1,
    objective=(
        "Run every variant in the same shell, and list what differs: sizes, cache, lines of code;"
        " and what does not: the shapes."
    ),
    notice=(
        "GQA, MQA and a sliding window are one number and not one line. MLA and DeltaNet are"
        " another mixer, experts another FFN. The shell never changes, so a migration can be rolled"
        " back by its config. See the lines with labkit.compare."
    ),
    columns={
        "variant": "variant",
        "parameters": "parameters",
        "active": "active",
        "bytes_a_token": "cache bytes a token|,.0f",
        "bytes_a_further_token": "of a further one|,.0f",
        "config": "config",
        "mixer": "mixer",
        "mixer_lines": "its own lines",
        "ffn": "FFN",
        "ffn_lines": "its own lines",
        "shell": "shell's tensors that differ",
        "shapes": "in -> out",
    },
    run=run,
    plot=plot,
    go=go,
)

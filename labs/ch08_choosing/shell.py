"""CH08-SHELL: one shell, insides swapped.

For every variant: its size, its cache, the lines that differ, and the contract that does not.

Most variants are one number in the config and no line of code. The others are another mixer or FFN
behind the same call, `mixer(x, step, cache)` and `ffn(x)`, both [N,D] -> [N,D]: asserted here on a
step that mixes a prompt, a chunk and a decoded token.
"""

import dataclasses
import difflib
from contextlib import contextmanager

from labkit import ModelConfig, formulas, plotting
from labkit.lab import Lab
from labkit.source import show
from labkit.tables import listed, only

BASE = ModelConfig(
    vocab_size=256,
    d_model=128,
    n_layers=2,
    n_heads=8,
    n_kv_heads=8,
    head_dim=16,
    d_ff=352,
    max_context=512,
)
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
CONTEXT = 200  # tokens that a cache is measured at, and once more as many


def lines(obj) -> list[str]:
    """Its source, without docstring and blank lines."""
    return [line.rstrip() for line in show(obj, doc=False).text.splitlines() if line.strip()]


def differing(left, right) -> int:
    """Lines of `right` that `left` has not, in order: what `labkit.compare(left, right)` marks on
    the right.
    """
    ours, theirs = lines(right), lines(left)
    same = difflib.SequenceMatcher(None, theirs, ours, autojunk=False).get_matching_blocks()
    return len(ours) - sum(block.size for block in same)


def around(model) -> set:
    """The shell: (name, shape) of every tensor outside of mixers and FFNs."""
    return {
        (name, parameter.shape)
        for name, parameter in model.named_parameters()
        if ".mixer." not in name and ".ffn." not in name
    }


@contextmanager
def shapes_of(*parts):
    """A set that fills with "[in] -> [out]", one for each shape that goes through these parts."""
    seen = set()

    def note(part, given, out):
        seen.add(f"{list(given[0].shape)} -> {list(out.shape)}")

    hooks = [part.register_forward_hook(note) for part in parts]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def run(device):
    """A row for each variant."""
    import torch

    import labkit

    standard = labkit.GPT(BASE)
    plain = standard.blocks[0]
    # three requests, three lengths, no padding
    step = labkit.Step.of([(0, 0, [1, 2, 3]), (1, 0, [4] * 70), (2, 0, [5])], device)
    rows = []
    for name, changes in VARIANTS.items():
        config = BASE.replace(**changes)
        torch.manual_seed(0)
        model = labkit.GPT(config).to(device).eval()
        block = model.blocks[0]
        for b in model.blocks:
            b.ffn.execution = "loop"  # what any device can do, for experts; others don't look
        caches = model.caches("ring", 3, 128, longest_step=70)
        with shapes_of(block.mixer, block.ffn, block) as shapes, torch.inference_mode():
            logits = model(step, caches, step.last)
        held = formulas.kv_cache_bytes(config, CONTEXT)
        grown = formulas.kv_cache_bytes(config, 2 * CONTEXT) - held
        rows.append(
            {
                "variant": name,
                "parameters": formulas.parameters(config),
                "active": formulas.active_parameters(config),
                "bytes_a_token": held / CONTEXT,
                "bytes_a_further_token": grown / CONTEXT,
                "config": ", ".join(changed(config)) or "–",
                "mixer": type(block.mixer).__name__,
                "ffn": type(block.ffn).__name__,
                "mixer_lines": differing(type(plain.mixer), type(block.mixer)),
                "ffn_lines": differing(type(plain.ffn), type(block.ffn)),
                "shell": len(around(model) ^ around(standard)),
                "shapes": sorted(shapes),
                "logits": list(logits.shape),
            }
        )
    return rows


def changed(config: ModelConfig) -> list[str]:
    """The fields in which a config differs from BASE."""
    names = [field.name for field in dataclasses.fields(BASE) if field.name != "_"]
    return [name for name in names if getattr(config, name) != getattr(BASE, name)]


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
    return plotting.bars(
        {r["variant"]: r["bytes_a_token"] for r in rows},
        x_label=f"cache bytes a token at {CONTEXT} tokens, bf16",
        form="{:,.0f}",
        alt="Cache bytes per token by variant: "
        + ", ".join(f"{r['variant']} {r['bytes_a_token']:,.0f}" for r in rows),
    )


def notice(rows):
    by_config = [r["variant"] for r in rows[1:] if not r["mixer_lines"] + r["ffn_lines"]]
    mla, delta, moe = (only(rows, variant=name) for name in ("MLA", "gated DeltaNet", "MoE"))
    return (
        f"{listed(by_config)} are a setting in the config and not one line. MLA and DeltaNet are"
        f" another mixer, of {mla['mixer_lines']} and {delta['mixer_lines']} lines of its own;"
        f" experts are another FFN, of {moe['ffn_lines']}. The shell never changes, so a migration"
        " can be rolled back by its config. See the lines with labkit.compare."
    )


LAB = Lab(
    title="One shell, seven insides",
    objective=(
        "Run every variant in the same shell, and list what differs: sizes, cache, lines of code;"
        " and what does not: the shapes."
    ),
    asks="Does every inside map [N,D] to [N,D], in the same shell?",
    notice=notice,
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
    go=go,
    plot=plot,
    minutes=0.1,
)

"""CH06-DENSE: a mixture of experts against two dense layers: one with its capacity, one with what
it uses per token.

Capacity-matched: as many parameters, all of them used. Active-matched: as many used, and no more
held. The experts run three ways: a loop, a gather of the weights each token needs, and one grouped
product. FFN and the whole layer are timed apart, because attention dilutes any claim.
"""

import copy
from functools import partial

from labkit import ModelConfig, bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import only, progress, where

MOE = ModelConfig(
    vocab_size=1024,
    d_model=512,
    n_layers=1,
    n_heads=8,
    n_kv_heads=4,
    head_dim=64,
    d_ff=512,
    max_context=4096,
    n_experts=32,
    n_active_experts=2,
    d_expert=256,
)
ACTIVE, CAPACITY = "dense, active-matched", "dense, capacity-matched"
DENSE = {  # and its feed-forward size
    ACTIVE: MOE.n_active_experts * MOE.d_expert,
    CAPACITY: MOE.n_experts * MOE.d_expert,
}
LOOP, GATHER, GROUPED = EXECUTIONS = ("MoE, loop", "MoE, gather", "MoE, grouped")
CONTEXT = 512


def layers(device: str, dtype) -> dict:
    """name -> a block; the three executions share one set of experts."""
    import torch

    from labkit.model import Block

    torch.manual_seed(0)
    made = {name: Block(MOE.replace(n_experts=0, d_ff=d_ff), 0) for name, d_ff in DENSE.items()}
    experts = Block(MOE, 0)
    for name in EXECUTIONS:
        made[name] = copy.deepcopy(experts)
        made[name].ffn.execution = name.removeprefix("MoE, ")
    for block in made.values():
        block.to(device, dtype).eval()
    return made


def sizes_of(name: str, touched: int) -> dict:
    """Parameters that an FFN holds, uses for one token, and reads where so many experts are
    touched.
    """
    if name in DENSE:
        held = 3 * MOE.d_model * DENSE[name]
        return {"held": held, "active": held, "read": held}
    one = 3 * MOE.d_model * MOE.d_expert
    router = MOE.d_model * MOE.n_experts
    return {
        "held": MOE.n_experts * one + router,
        "active": MOE.n_active_experts * one + router,
        "read": touched * one + router,
    }


def run(device, *, tokens, repeats):
    """A row for each number of tokens and each FFN."""
    import torch

    from labkit.moe import expert_load
    from labkit.step import Step
    from labkit_labs.common import layer

    # grouped products on a GPU want bf16
    dtype = "bf16" if device.startswith("cuda") else "fp32"
    kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    blocks = layers(device, kind)

    @torch.inference_mode()
    def ffn(block, x):
        return block.ffn(x)

    @torch.inference_mode()
    def whole(block, x, cache):
        step = Step.of([(row, CONTEXT - 1, [0]) for row in range(len(x))], device)
        return block(x, step, cache)

    rows = []
    for N in progress(tokens, "tokens"):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(N, MOE.d_model, generator=generator).to(device, kind)
        outs = {name: ffn(block, x).float() for name, block in blocks.items()}
        scale = outs[LOOP].abs().max().item()
        with torch.inference_mode():
            experts, _ = blocks[LOOP].ffn.router(x)
            touched = int((expert_load(experts, MOE.n_experts) > 0).sum())
            # all attend alike, so one cache serves all
            cache = layer.full_cache(blocks[LOOP].mixer, CONTEXT, batch=N)
        timed = partial(bench.interleave, warmup=2, repeats=repeats, device=device)
        ffns = timed({name: partial(ffn, block, x) for name, block in blocks.items()})
        wholes = timed({name: partial(whole, block, x, cache) for name, block in blocks.items()})
        for name, m in ffns.items():
            moe = name in EXECUTIONS
            sizes = sizes_of(name, touched)
            gap = (outs[name] - outs[LOOP]).abs().max().item() / scale
            rows.append(
                m.to_row(
                    variant=name,
                    tokens=N,
                    device=device,
                    parameters=sizes["held"],
                    active=sizes["active"],
                    flops=2 * N * sizes["active"],
                    bytes=formulas.bytes_of(sizes["read"], dtype),
                    experts_touched=touched if moe else None,
                    layer_median=wholes[name].median,
                    multiple=bench.multiple(ffns[CAPACITY], m),
                    layer_multiple=bench.multiple(wholes[CAPACITY], wholes[name]),
                    gap=gap if moe else None,
                )
            )
    return rows


def go(rows):
    """On a GPU also: does gathering what a token needs beat the loop?"""
    gpu = rows[0]["device"].startswith("cuda")
    for r in rows:
        if r["gap"] is not None and not r["gap"] <= (3e-2 if gpu else 1e-4):
            return (
                f"{r['variant']} differs from the loop by {r['gap']:.1e} of the largest output:"
                " look at how tokens find their experts' answers again"
            )
    loop = only(rows, variant=LOOP, tokens=1)
    gather = only(rows, variant=GATHER, tokens=1)
    if gpu and loop["median"] < 1.5 * gather["median"]:
        return (
            "on this GPU gathering two experts is not 1.5 times as fast as the loop: look whether"
            " something waits for the device"
        )


def pays(rows):
    best = max(r["multiple"] for r in where(rows, tokens=1) if r["variant"] in EXECUTIONS)
    if best <= 1:
        return (
            f"for one token the fastest execution takes {1 / best:.1f} times the capacity-matched"
            " dense layer: routing costs more than the experts save"
        )


def plot(rows):
    many = max(r["tokens"] for r in rows)
    milliseconds = {r["variant"]: 1e3 * r["median"] for r in where(rows, tokens=many)}
    return plotting.bars(
        milliseconds,
        x_label=f"milliseconds of the FFN, {many} tokens",
        form="{:,.2f}",
        alt=f"FFN time for {many} tokens: "
        + ", ".join(f"{name} {ms:.2f} ms" for name, ms in milliseconds.items()),
    )


def notice(rows):
    many = max(r["tokens"] for r in rows)
    dense = only(rows, variant=CAPACITY, tokens=1)
    best = max(
        (r for r in where(rows, tokens=1) if r["variant"] in EXECUTIONS),
        key=lambda r: r["multiple"],
    )
    loop, gather, grouped = (only(rows, variant=name, tokens=many) for name in EXECUTIONS)
    return (
        f"For one token the mixture uses {best['active'] / dense['active']:.0%} of the parameters"
        " that the dense layer of its capacity uses, and its fastest execution takes"
        f" {1 / best['multiple']:.2f} times as long: what lies between is routing. {many} tokens"
        f" touch {loop['experts_touched']} of {MOE.n_experts} experts, and all that these hold is"
        f" read. There the gather takes {gather['median'] / loop['median']:.2f} times as long as"
        f" the loop, the grouped product {grouped['median'] / loop['median']:.2f} times. On a CPU a"
        " gather copies weights for every token, and a grouped product is a loop inside; a GPU has"
        " kernels for both."
    )


LAB = Lab(
    title="Experts against dense layers",
    objective=(
        "Time a mixture of experts against dense layers of equal capacity and of equal active size,"
        " for one token and for many, in three executions."
    ),
    asks=(
        "Do the three executions agree, and does one token profit from the experts it does not use"
        " (on a GPU: from gathering only those it uses)?"
    ),
    notice=notice,
    columns={
        "tokens": "tokens",
        "variant": "FFN",
        "parameters": "parameters",
        "active": "active",
        "experts_touched": "experts touched",
        "median": "FFN, seconds|.5f",
        "iqr": "quartiles apart|.5f",
        "multiple": "times dense|.2f",
        "layer_median": "layer, seconds|.5f",
        "layer_multiple": "times dense|.2f",
        "flops": "FLOPs|,",
        "bytes": "bytes read|,.0f",
        "gap": "largest difference|.1e",
    },
    run=run,
    sizes={
        "full": {"tokens": (1, 256), "repeats": 15},
        "quick": {"tokens": (1, 32), "repeats": 5},
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=0.5,
)

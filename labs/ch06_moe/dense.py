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
from labkit.tables import only, progress, series, where

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
DENSE = (ACTIVE, CAPACITY)
LOOP, GATHER, GROUPED = EXECUTIONS = ("MoE, loop", "MoE, gather", "MoE, grouped")
CONTEXT = 512


def width(name: str, config: ModelConfig) -> int:
    """The feed-forward size of a dense twin: of all experts, or of those that a token uses."""
    return config.d_expert * {ACTIVE: config.n_active_experts, CAPACITY: config.n_experts}[name]


def layers(config: ModelConfig, device: str, dtype) -> dict:
    """name -> a block; the three executions share one set of experts."""
    import torch

    from labkit.model import Block

    torch.manual_seed(0)
    make = lambda config: Block(config, 0).to(device, dtype).eval()
    made = {name: make(config.replace(n_experts=0, d_ff=width(name, config))) for name in DENSE}
    experts = make(config)
    for name in EXECUTIONS:
        made[name] = copy.deepcopy(experts, {id(p): p for p in experts.parameters()})
        made[name].ffn.execution = name.removeprefix("MoE, ")
    return made


def sizes_of(name: str, config: ModelConfig, touched: int) -> dict:
    """Parameters that an FFN holds, uses for one token, and reads where so many experts are
    touched.
    """
    if name in DENSE:
        held = 3 * config.d_model * width(name, config)
        return {"held": held, "active": held, "read": held}
    one = 3 * config.d_model * config.d_expert
    router = config.d_model * config.n_experts
    return {
        "held": config.n_experts * one + router,
        "active": config.n_active_experts * one + router,
        "read": touched * one + router,
    }


def measured(config: ModelConfig, device: str, tokens, repeats: int) -> list[dict]:
    """A row for each number of tokens and each FFN."""
    import torch

    from labkit.moe import expert_load
    from labkit.step import Step
    from labkit_labs.common import layer

    # grouped products on a GPU want bf16
    dtype = "bf16" if device.startswith("cuda") else "fp32"
    kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    blocks = layers(config, device, kind)

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
        x = torch.randn(N, config.d_model, generator=generator).to(device, kind)
        outs = {name: ffn(block, x).float() for name, block in blocks.items()}
        scale = outs[LOOP].abs().max().item()
        with torch.inference_mode():
            experts, _ = blocks[LOOP].ffn.router(x)
            touched = int((expert_load(experts, config.n_experts) > 0).sum())
            # all attend alike, so one cache serves all
            cache = layer.full_cache(blocks[LOOP].mixer, CONTEXT, batch=N)
        timed = partial(bench.interleave, warmup=2, repeats=repeats, device=device)
        ffns = timed({name: partial(ffn, block, x) for name, block in blocks.items()})
        wholes = timed({name: partial(whole, block, x, cache) for name, block in blocks.items()})
        for name, m in ffns.items():
            moe = name in EXECUTIONS
            sizes = sizes_of(name, config, touched)
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


def run(device, *, tokens, repeats):
    """A row for each number of tokens and each FFN, at the lab's own small size."""
    return measured(MOE, device, tokens, repeats)


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
    tokens = sorted({r["tokens"] for r in rows})
    times = series(rows, "variant", "multiple")
    return plotting.lines(
        tokens,
        times,
        log_x=True,
        log_y=True,
        x_label="tokens",
        y_label="times the large dense layer",
        alt=f"FFN speed at {tokens[0]} to {tokens[-1]} tokens, in times that of the"
        " capacity-matched dense layer: "
        + "; ".join(f"{name} {', '.join(f'{x:.2f}' for x in xs)}" for name, xs in times.items()),
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
        "full": {"tokens": (1, 4, 16, 64, 256), "repeats": 15},
        "quick": {"tokens": (1, 32), "repeats": 5},
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=1,
)

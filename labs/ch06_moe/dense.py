"""CH06-DENSE: a mixture of experts against two dense layers: one with its capacity, one with what
it uses per token.

Capacity-matched: as many parameters, all of them used. Active-matched: as many used, and no more
held. The experts run three ways: a loop, a gather of the weights each token needs, and one grouped
product. FFN and the whole layer are timed apart, because attention dilutes any claim.
"""

from labkit import ModelConfig
from labkit.lab import Lab

MOE = ModelConfig(1024, 512, 1, 8, 4, 64, 512, 4096, n_experts=32, n_active_experts=2, d_expert=256)
DENSE = {"dense, active-matched": 2 * 256, "dense, capacity-matched": 32 * 256}
CONTEXT = 512


def layers(device: str, dtype):
    """name -> a block; the three executions share one set of experts."""
    import copy

    import torch

    from labkit.model import Block

    torch.manual_seed(0)
    made = {name: Block(MOE.replace(n_experts=0, d_ff=d_ff), 0) for name, d_ff in DENSE.items()}
    made["MoE, loop"] = Block(MOE, 0)
    for way in ("gather", "grouped"):
        made[f"MoE, {way}"] = copy.deepcopy(made["MoE, loop"])
    for name, block in made.items():
        block.to(device, dtype).eval()
        if name.startswith("MoE"):
            block.ffn.execution = name.removeprefix("MoE, ")
    return made


def run(device="cpu", quick=False):
    import torch

    from labkit import bench, formulas
    from labkit.moe import expert_load
    from labkit.step import Step
    from labkit.tables import progress
    from labkit_labs.common import layer

    torch.set_num_threads(1)
    # grouped products on a GPU want bf16
    dtype, name_of = (
        (torch.bfloat16, "bf16") if device.startswith("cuda") else (torch.float32, "fp32")
    )
    blocks, rows = layers(device, dtype), []
    for N in progress((1, 32) if quick else (1, 256), "tokens"):
        x = torch.randn(N, MOE.d_model, generator=torch.Generator().manual_seed(1)).to(
            device, dtype
        )
        step = lambda N=N: Step.of([(r, CONTEXT - 1, [0]) for r in range(N)], device)
        with torch.inference_mode():
            outs = {name: block.ffn(x) for name, block in blocks.items()}
            touched = int(
                (expert_load(blocks["MoE, loop"].ffn.router(x)[0], MOE.n_experts) > 0).sum()
            )
            # all attend alike, so one cache serves all
            cache = layer.full_cache(blocks["MoE, loop"].mixer, CONTEXT, batch=N)
            timed = {}
            for part, call in (
                ("ffn", lambda b, x=x: b.ffn(x)),
                ("layer", lambda b, x=x, step=step, cache=cache: b(x, step(), cache)),
            ):
                fns = {name: lambda b=b, call=call: call(b) for name, b in blocks.items()}
                timed[part] = bench.interleave(
                    fns, warmup=2, repeats=5 if quick else 15, device=device
                )
        scale = outs["MoE, loop"].float().abs().max().item()
        for name, m in timed["ffn"].items():
            moe = name.startswith("MoE")
            one = 3 * MOE.d_model * MOE.d_expert
            held = (
                MOE.n_experts * one + MOE.d_model * MOE.n_experts
                if moe
                else 3 * MOE.d_model * DENSE[name]
            )
            active = 2 * one + MOE.d_model * MOE.n_experts if moe else held
            read = touched * one + MOE.d_model * MOE.n_experts if moe else held
            rows.append(
                m.to_row(
                    variant=name,
                    tokens=N,
                    device=device,
                    parameters=held,
                    active=active,
                    flops=2 * N * active,
                    bytes=formulas.bytes_of(read, name_of),
                    experts_touched=touched if moe else None,
                    layer_median=timed["layer"][name].median,
                    multiple=bench.multiple(timed["ffn"]["dense, capacity-matched"], m),
                    layer_multiple=bench.multiple(
                        timed["layer"]["dense, capacity-matched"], timed["layer"][name]
                    ),
                    gap=(
                        (outs[name] - outs["MoE, loop"]).float().abs().max().item() / scale
                        if moe
                        else None
                    ),
                )
            )
    return rows


def go(rows):
    gpu = rows[0]["device"].startswith("cuda")
    for r in rows:
        if r["gap"] is not None and not r["gap"] <= (3e-2 if gpu else 1e-4):
            return (
                f"{r['variant']} differs from the loop by {r['gap']:.1e} of the largest output:"
                " look at how tokens find their experts' answers again"
            )
    of = {(r["variant"], r["tokens"]): r for r in rows}
    if gpu and of["MoE, loop", 1]["median"] < 1.5 * of["MoE, gather", 1]["median"]:
        return (
            "on this GPU gathering two experts is not 1.5 times as fast as the loop: look whether"
            " something waits for the device"
        )


def pays(rows):
    best = max(r["multiple"] for r in rows if r["tokens"] == 1 and r["variant"].startswith("MoE"))
    if best <= 1:
        return (
            f"for one token the fastest execution takes {1 / best:.1f} times the capacity-matched"
            " dense layer: routing costs more than the experts save"
        )


def plot(rows):
    from labkit import plotting

    many = max(r["tokens"] for r in rows)
    values = {r["variant"]: r["median"] * 1e3 for r in rows if r["tokens"] == many}
    return plotting.bars(
        values,
        x_label=f"milliseconds of the FFN, {many} tokens",
        form="{:,.2f}",
        alt=f"FFN time for {many} tokens: "
        + ", ".join(f"{k} {v:.2f} ms" for k, v in values.items()),
    )


LAB = Lab(
    asks=(
        "Do the three executions agree, and is gathering what a GPU wants? Does one token profit"
        " from the experts it does not use?"
    ),
    title="Experts against dense layers",
    minutes=0.5,
    objective=(
        "Time a mixture of experts against dense layers of equal capacity and of equal active size,"
        " for one token and for many, in three executions."
    ),
    notice=(
        "For one token the mixture costs about what its active parameters cost, plus the routing."
        " For many tokens nearly all experts are touched, so nearly all bytes are read. On a CPU a"
        " gather copies weights for every token and falls far behind, and a grouped product ties"
        " with the plain loop, because it is one inside. A GPU has kernels for both, and turns this"
        " round."
    ),
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
    plot=plot,
    go=go,
    pays=pays,
)

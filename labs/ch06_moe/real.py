"""CH06-REAL: CH06-DENSE at the size of a published model.

One layer of Qwen3-30B-A3B: 128 experts of which a token uses 8. Nothing else differs from the small
lab: the same two dense layers beside it, the same three executions, the same clock.
"""

from labkit import ModelConfig, presets
from labkit.lab import Lab
from labkit.tables import only, where
from labkit_labs.ch06_moe import dense

NAME = "qwen3-30b-a3b"


def shape(experts: int) -> ModelConfig:
    """A layer of the model, with so many of its experts."""
    return presets[NAME].replace(
        n_layers=1, n_experts=experts, vocab_size=1024, max_context=dense.CONTEXT
    )


def run(device, *, experts, tokens, repeats):
    """A row for each number of tokens and each FFN."""
    return [
        row | {"experts": experts}
        for row in dense.measured(shape(experts), device, tokens, repeats)
    ]


def notice(rows):
    many = max(r["tokens"] for r in rows)
    first = where(rows, tokens=1)
    one, small = (only(first, variant=name) for name in (dense.LOOP, dense.ACTIVE))
    loop, gather, grouped = (only(rows, variant=name, tokens=many) for name in dense.EXECUTIONS)
    active = only(rows, variant=dense.ACTIVE, tokens=many)
    return (
        f"For one token the loop is {one['multiple']:.1f} times as fast as the dense"
        f" layer of its capacity, and the dense layer of its active size"
        f" {small['multiple']:.1f} times. {many} tokens touch"
        f" {loop['experts_touched']} of {loop['experts']} experts: the loop is left with"
        f" {loop['multiple']:.1f} times, the grouped product with {grouped['multiple']:.1f}, the"
        f" gather with {gather['multiple']:.2f}; the active-matched dense layer has"
        f" {active['multiple']:.1f}, because it reads no more weights for {many} tokens than for"
        " one."
    )


LAB = Lab(
    title="Experts of a real size",
    objective=(
        "Time one layer of Qwen3-30B-A3B against dense layers of its capacity and active size."
    ),
    asks=(
        "Do the three executions agree, and does one token profit from the experts it does not use?"
    ),
    notice=notice,
    columns=dense.LAB.columns,
    run=run,
    sizes={
        "full": {"experts": 128, "tokens": (1, 8, 32), "repeats": 5},
        "quick": {"experts": 16, "tokens": (1, 4), "repeats": 2},
    },
    threads=1,
    go=dense.go,
    pays=dense.pays,
    plot=dense.plot,
    minutes=2,
)

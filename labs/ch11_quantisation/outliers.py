"""CH11-OUTLIERS: where 8-bit activations break, and why: the largest number that enters each
down-projection.
"""

import statistics

from labkit import plotting
from labkit.lab import Lab


def run(device, *, tokens):
    """A row for each layer. tokens: of the text that is read."""
    from labkit import quant
    from labkit.weights import smollm2

    model, tokenizer = smollm2("fp32", device)
    ids = tokenizer.encode(quant.read_text("course"))[:tokens]
    before = quant.calibrate(model, ids)
    after = quant.calibrate(
        quant.smooth(model, tokenizer.encode(quant.read_text("calibration"))), ids
    )
    rows = []
    for i in range(len(model.blocks)):
        down = f"blocks.{i}.ffn.down"
        qkv = f"blocks.{i}.mixer.qkv"
        rows.append(
            {
                "layer": i,
                "largest": before[down]["largest"],
                "per_tensor": before[down]["per_tensor"],
                "per_row": before[down]["per_row"],
                "smoothed": after[down]["per_row"],
                "qkv_per_row": before[qkv]["per_row"],
                "qkv_smoothed": after[qkv]["per_row"],
            }
        )
    return rows


def go(rows):
    for r in rows:
        if r["per_row"] > 1.05 * r["per_tensor"]:
            return (
                f"in layer {r['layer']} a scale per token errs by {r['per_row']:.3f}, one for all"
                f" by {r['per_tensor']:.3f}: look which axis is scaled"
            )


def plot(rows):
    first, second, *others = sorted(rows, key=lambda r: -r["largest"])
    return plotting.lines(
        [r["layer"] for r in rows],
        {"largest": [r["largest"] for r in rows]},
        x_label="layer",
        log_y=True,
        y_label="largest |input| of the down-projection",
        alt=(
            "Largest input of each layer's down-projection, on a log scale:"
            f" {first['largest']:,.0f} in layer {first['layer']}, {second['largest']:,.0f} in layer"
            f" {second['layer']}, at most {others[0]['largest']:,.0f} in the others."
        ),
    )


def notice(rows):
    worst = max(rows, key=lambda r: r["largest"])
    middle = statistics.median_high(r["largest"] for r in rows)
    left = max(rows, key=lambda r: r["per_row"] - r["smoothed"])
    return (
        f"In layer {worst['layer']} one input reaches {worst['largest']:,.0f}, where half of the"
        f" layers stay below {middle:,.0f}. One scale for all tokens is then too coarse for the"
        f" rest: an error of {worst['per_tensor']:.3f}, where 1 says that they all round to zero. A"
        f" scale per token confines the damage: {worst['per_row']:.3f}. What then remains sits in"
        " channels, not in tokens, and smoothing takes that: in layer"
        f" {left['layer']} from {left['per_row']:.3f} to {left['smoothed']:.3f}."
    )


LAB = Lab(
    title="The numbers that break 8 bits",
    objective=(
        "Find the layers of SmolLM2 whose inputs 8 bits cannot hold; compare one scale for all"
        " tokens, one per token, and smoothed channels."
    ),
    asks="Does a scale per token never do worse than one for all?",
    notice=notice,
    columns={
        "layer": "layer",
        "largest": "largest input|,.1f",
        "per_tensor": "error, one scale|.3f",
        "per_row": "a scale per token|.3f",
        "smoothed": "and smoothed|.3f",
        "qkv_per_row": "qkv: per token|.3f",
        "qkv_smoothed": "qkv: smoothed|.3f",
    },
    run=run,
    sizes={"full": {"tokens": 512}, "quick": {"tokens": 128}},
    threads=1,
    go=go,
    plot=plot,
    minutes=0.5,
)

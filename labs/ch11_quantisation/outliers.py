"""CH11-OUTLIERS: where 8-bit activations break, and why: the largest number that enters each
down-projection.
"""

from labkit.lab import Lab


def run(device="cpu", quick=False):
    import torch

    from labkit import quant
    from labkit.weights import smollm2

    torch.set_num_threads(1)
    model, tokenizer = smollm2("fp32", device)
    ids = tokenizer.encode(quant.text("course"))[: 128 if quick else 512]
    before = quant.calibrate(model, ids)
    after = quant.calibrate(quant.smooth(model, tokenizer.encode(quant.text("calibration"))), ids)
    return [
        {
            "layer": i,
            "largest": m["largest"],
            "per_tensor": m["per_tensor"],
            "per_row": m["per_row"],
            "smoothed": after[f"blocks.{i}.ffn.down"]["per_row"],
            "qkv_per_row": before[f"blocks.{i}.mixer.qkv"]["per_row"],
            "qkv_smoothed": after[f"blocks.{i}.mixer.qkv"]["per_row"],
        }
        for i in range(len(model.blocks))
        for m in [before[f"blocks.{i}.ffn.down"]]
    ]


def go(rows):
    for r in rows:
        if r["per_row"] > 1.05 * r["per_tensor"]:
            return (
                f"in layer {r['layer']} a scale per token errs by {r['per_row']:.3f}, one for all"
                f" by {r['per_tensor']:.3f}: look which axis is scaled"
            )


def plot(rows):
    from labkit import plotting

    return plotting.lines(
        [r["layer"] for r in rows],
        {"largest": [r["largest"] for r in rows]},
        x_label="layer",
        log_y=True,
        y_label="largest |input| of the down-projection",
        alt=(
            "Largest input of each layer's down-projection, on a log scale: two layers stand far"
            " above the others."
        ),
    )


LAB = Lab(
    asks="Does a scale per token never do worse than one for all?",
    title="The numbers that break 8 bits",
    minutes=0.5,
    objective=(
        "Find the layers of SmolLM2 whose inputs 8 bits cannot hold; compare one scale for all"
        " tokens, one per token, and smoothed channels."
    ),
    notice=(
        "In one layer a single token's activation reaches thousands while the others stay near 2:"
        " with one scale for all tokens, the others all round to zero (an error of 1). A scale per"
        " token confines the damage. What then remains sits in channels, not in tokens: smoothing"
        " takes that."
    ),
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
    plot=plot,
    go=go,
)

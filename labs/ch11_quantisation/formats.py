"""CH11-FORMATS: a ruler of number formats: how many values each has, how many bits it takes, how
close it comes.
"""

from labkit.lab import Lab


def run(device="cpu", quick=False):
    import numpy as np

    from labkit import reference
    from labkit.weights import smollm2

    # the embedding: the layers' matrices come from a 4-bit grid, on which some 4-bit formats would
    # be right by construction
    real = smollm2("fp32", packed=False)[0].embed.weight.detach().numpy()[: 256 if quick else 4096]
    normal = np.random.default_rng(0).standard_normal(real.shape)
    rows = []
    for name, form in reference.FORMATS.items():
        bits = form.bits_per_weight(real.shape[1])
        on_real, on_normal = (reference.errors(w, form(w)) for w in (real, normal))
        rows.append(
            {
                "format": name,
                "values": len(form.values),
                "block": form.block or real.shape[1],
                "bits": bits,
                "error": on_real["relative"],
                "decibels": on_real["decibels"],
                "normal_error": on_normal["relative"],
                "normal_decibels": on_normal["decibels"],
                "bound_decibels": 20 * np.log10(2) * bits,
            }
        )
    return rows


def go(rows):
    for r in rows:
        if r["normal_decibels"] > r["bound_decibels"] + 0.01:
            return (
                f"{r['format']} is {r['normal_decibels']:.1f} decibels good, where"
                f" {r['bound_decibels']:.1f} is the most its bits allow: count its bits again"
            )


def plot(rows):
    from labkit import plotting

    decibels = {
        f"{r['format']}, {r['bits']:.2f} bits": r["decibels"]
        for r in sorted(rows, key=lambda r: -r["decibels"])
    }
    return plotting.bars(
        decibels,
        x_label="decibels between the weights and their error",
        form="{:.1f}",
        alt="Accuracy in decibels: "
        + "; ".join(f"{name} {value:.1f}" for name, value in decibels.items()),
    )


LAB = Lab(
    asks="Does no format do better than any of its bits can?",
    title="A ruler of formats",
    minutes=0.2,
    objective=(
        "Round one real matrix to every format, and put the error beside the bits that the format"
        " truly takes."
    ),
    notice=(
        "At 8 bits, evenly spaced values beat floating point: a row has one size, and exponents"
        " spend bits on sizes it does not have. At 4 bits the block matters more than the values."
        " Every format stays several decibels under the bound, and six decibels are one bit."
    ),
    columns={
        "format": "format",
        "values": "values",
        "block": "block",
        "bits": "bits per weight|.3f",
        "error": "relative error|.4f",
        "decibels": "decibels|.1f",
        "normal_decibels": "on normal weights|.1f",
        "bound_decibels": "the bound there|.1f",
    },
    run=run,
    plot=plot,
    go=go,
)

"""CH11-FORMATS: a ruler of number formats: how many values each has, how many bits it takes, how
close it comes.
"""

import numpy as np

from labkit import plotting, reference
from labkit.lab import Lab
from labkit.tables import only


def run(device, *, words):
    """A row for each format. words: rows of the embedding that are rounded."""
    from labkit.weights import smollm2

    # the embedding: the layers' matrices come from a 4-bit grid, on which some 4-bit formats would
    # be right by construction
    real = smollm2("fp32", packed=False)[0].embed.weight.detach().numpy()[:words]
    normal = np.random.default_rng(0).standard_normal(real.shape)
    rows = []
    for name, form in reference.FORMATS.items():
        bits = form.bits_per_weight(real.shape[1])
        on_real = reference.errors(real, form(real))
        on_normal = reference.errors(normal, form(normal))
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
    best_first = sorted(rows, key=lambda r: -r["decibels"])
    decibels = {f"{r['format']}, {r['bits']:.2f} bits": r["decibels"] for r in best_first}
    return plotting.bars(
        decibels,
        x_label="decibels between the weights and their error",
        form="{:.1f}",
        alt="Accuracy in decibels: "
        + "; ".join(f"{name} {value:.1f}" for name, value in decibels.items()),
    )


def notice(rows):
    def decibels(name) -> str:
        return f"{only(rows, format=name)['decibels']:.1f}"

    nearest = min(r["bound_decibels"] - r["normal_decibels"] for r in rows)
    return (
        f"At 8 bits, evenly spaced values come to {decibels('int8')} decibels and floating point to"
        f" {decibels('fp8 e4m3')} and {decibels('fp8 e5m2')}: a row has one size, and exponents"
        " spend bits on sizes it does not have. At 4 bits evenly spaced values come to"
        f" {decibels('int4 per row')} with a scale for a row and to {decibels('int4')} with one for"
        f" a block; other values for a block, to {decibels('nf4')} (nf4). On normal weights every"
        f" format stays at least {nearest:.1f} decibels under the bound, and six decibels are one"
        " bit."
    )


LAB = Lab(
    title="A ruler of formats",
    objective=(
        "Round one real matrix to every format, and put the error beside the bits that the format"
        " truly takes."
    ),
    asks="Does no format do better than any of its bits can?",
    notice=notice,
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
    sizes={"full": {"words": 4096}, "quick": {"words": 256}},
    go=go,
    plot=plot,
    minutes=0.2,
    cpu_only=True,
)

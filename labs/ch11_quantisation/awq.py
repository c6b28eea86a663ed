"""CH11-AWQ: scale up the channels that matter before rounding, and scale them down again after (Lin
et al. 2024, section 3.2).
"""

from labkit import plotting
from labkit.lab import Lab
from labkit.tables import only, where
from labkit_labs.ch11_quantisation.layers import output_error, real_layer, search


def run(device, *, outputs, tokens):
    """A row for each exponent, at 4 and at 3 bits.

    outputs: rows of the matrix. tokens: of each text that enters it.
    """
    w, fit, judge = real_layer(outputs, tokens)
    rows = []
    for bits in (4, 3):
        tried, best = search(w, fit, bits)
        nearest = output_error(w, tried[0.0], judge)
        for alpha, rounded in tried.items():
            judged = output_error(w, rounded, judge)
            rows.append(
                {
                    "bits": bits,
                    "alpha": alpha,
                    "chosen": alpha == best,
                    "fitted": output_error(w, rounded, fit),
                    "judged": judged,
                    "multiple": nearest / judged,
                }
            )
    return rows


def go(rows):
    for bits in {r["bits"] for r in rows}:
        chosen = only(rows, bits=bits, chosen=True)["fitted"]
        none = only(rows, bits=bits, alpha=0.0)["fitted"]
        if chosen > none:
            return (
                f"at {bits} bits the chosen exponent errs by {chosen:.4f}, rounding alone by"
                f" {none:.4f}: look how it is chosen"
            )


def plot(rows):
    errors = {f"{bits} bits": [r["judged"] for r in where(rows, bits=bits)] for bits in (4, 3)}
    return plotting.lines(
        [r["alpha"] for r in where(rows, bits=4)],
        errors,
        x_label="alpha",
        y_label="error of the output",
        alt="Error of the layer's output for alpha from 0, round-to-nearest, to 1: "
        + "; ".join(
            f"{bits} {', '.join(f'{error:.3f}' for error in each)}" for bits, each in errors.items()
        ),
    )


def notice(rows):
    def at(bits) -> str:
        chosen = only(rows, bits=bits, chosen=True)
        largest = only(rows, bits=bits, alpha=1.0)
        return (
            f"at {bits} bits the chosen alpha of {chosen['alpha']:.1f} errs"
            f" {1 / chosen['multiple']:.2f} times as much as rounding, and an alpha of 1"
            f" {1 / largest['multiple']:.2f} times"
        )

    return (
        "Alpha 0 is round-to-nearest. No weight is kept at 16 bits: a salient channel is made"
        " larger before rounding and smaller after, so that its error shrinks and its neighbours'"
        " grow a little; too large an alpha hurts those neighbours. On the text that was not"
        f" fitted, {at(4)}; {at(3)}."
    )


LAB = Lab(
    title="AWQ, small: protect the salient channels",
    objective=(
        "Search the one exponent of activation-aware scaling on a real matrix, and check it on a"
        " text it was not fitted on."
    ),
    asks="Is the chosen exponent no worse than none, on the text it was fitted on?",
    notice=notice,
    columns={
        "bits": "bits",
        "alpha": "alpha|.1f",
        "chosen": "chosen",
        "fitted": "error, fitted text|.4f",
        "judged": "error, other text|.4f",
        "multiple": "times smaller than rounding|.2f",
    },
    run=run,
    sizes={
        "full": {"outputs": 4096, "tokens": 1024},
        "quick": {"outputs": 256, "tokens": 256},
    },
    go=go,
    plot=plot,
    minutes=0.5,
    cpu_only=True,
)

"""CH11-AWQ: scale up the channels that matter before rounding, and scale them down again after (Lin
et al. 2024, section 3.2).
"""

from labkit.lab import Lab

GROUP, ALPHAS = 64, [i / 10 for i in range(11)]


def real_layer(rows, tokens=1024):
    """A weight [rows,D] and what enters it on two texts [tokens,D]: fit on the first, judge on the
    second.

    The weight is SmolLM2's head: its other matrices come from a 4-bit grid, and would round to 4
    bits by construction.
    """
    import torch

    from labkit import quant
    from labkit.step import Step
    from labkit.weights import smollm2

    model, tokenizer = smollm2("fp32", packed=False)
    w = model.head.weight.detach().double().numpy()[:rows]
    model.head = torch.nn.Identity()  # what comes out now is what would have entered the head
    inputs = []
    for text in ("milton", "course"):
        with torch.inference_mode():
            inputs.append(
                model(
                    Step.of([(0, 0, tokenizer.encode(quant.text(text))[:tokens])]),
                    model.caches("none", 1, 1),
                )
                .double()
                .numpy()
            )
    return w, *inputs


def output_error(w, rounded, x):
    """Of the layer's output on x, relative."""
    from labkit import reference

    return reference.errors(x @ w.T, x @ rounded.T)["relative"]


def scaled_round(w, x, bits, alpha):
    """Round w * s in groups and divide by s again; a channel's s grows with its mean |x|, so that
    large inputs meet small errors.
    """
    import numpy as np

    from labkit import reference

    s = np.abs(x).mean(axis=0) ** alpha
    s = s / np.sqrt(s.max() * s.min())
    return reference.quantise(w * s, bits, GROUP).dequantise() / s


def run(device="cpu", quick=False):
    w, fit, judge = real_layer(256 if quick else 4096, 256 if quick else 1024)
    rows = []
    for bits in (4, 3):
        tried = {alpha: scaled_round(w, fit, bits, alpha) for alpha in ALPHAS}
        best = min(ALPHAS, key=lambda alpha: output_error(w, tried[alpha], fit))
        rows += [
            {
                "bits": bits,
                "alpha": alpha,
                "chosen": alpha == best,
                "fitted": output_error(w, rounded, fit),
                "judged": output_error(w, rounded, judge),
                "multiple": output_error(w, tried[0.0], judge) / output_error(w, rounded, judge),
            }
            for alpha, rounded in tried.items()
        ]
    return rows


def go(rows):
    for bits in {r["bits"] for r in rows}:
        chosen, none = (
            next(r["fitted"] for r in rows if r["bits"] == bits and r[key] == value)
            for key, value in (("chosen", True), ("alpha", 0.0))
        )
        if chosen > none:
            return (
                f"at {bits} bits the chosen exponent errs by {chosen:.4f}, rounding alone by"
                f" {none:.4f}: look how it is chosen"
            )


def plot(rows):
    from labkit import plotting

    return plotting.lines(
        ALPHAS,
        {f"{bits} bits": [r["judged"] for r in rows if r["bits"] == bits] for bits in (4, 3)},
        x_label="alpha",
        y_label="error of the output",
        alt=(
            "Error of the layer's output by alpha: it falls from round-to-nearest at 0, and rises"
            " again."
        ),
    )


LAB = Lab(
    asks="Is the chosen exponent no worse than none, on the text it was fitted on?",
    title="AWQ, small: protect the salient channels",
    minutes=0.5,
    objective=(
        "Search the one exponent of activation-aware scaling on a real matrix, and check it on a"
        " text it was not fitted on."
    ),
    notice=(
        "Alpha 0 is round-to-nearest. No weight is kept at 16 bits: a salient channel is made"
        " larger before rounding and smaller after, so that its error shrinks and its neighbours'"
        " grow a little. Too large an alpha hurts those neighbours."
    ),
    columns={
        "bits": "bits",
        "alpha": "alpha|.1f",
        "chosen": "chosen",
        "fitted": "error, fitted text|.4f",
        "judged": "error, other text|.4f",
        "multiple": "times smaller than rounding|.2f",
    },
    run=run,
    plot=plot,
    go=go,
)

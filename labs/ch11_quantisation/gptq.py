"""CH11-GPTQ: round one column at a time, and let the columns still to come make up for it (Frantar
et al. 2023, algorithm 1).
"""

import numpy as np

from labkit import plotting, reference
from labkit.lab import Lab
from labkit.tables import only
from labkit_labs.ch11_quantisation.layers import GROUP, output_error, real_layer, search

NEAREST = "round to nearest"
SCALED = "AWQ-style scaling"
GPTQ = "GPTQ"


def gptq(w, x, bits: int, group: int = GROUP, damp: float = 0.01):
    """w [out,in] rounded to `bits` in groups, so that x @ w.T changes least; x [tokens,in].

    The inverse of H = x.T x says how much a column's error can be undone by each later column. Its
    Cholesky factor holds, in row i, what is needed once columns before i are fixed, so it is
    factored once and not updated (their section 3.3, step 3).
    """
    H = x.T @ x
    H += damp * np.diag(H).mean() * np.eye(len(H))  # so that it can be inverted
    U = np.linalg.cholesky(np.linalg.inv(H)).T
    w = w.copy()
    rounded = np.empty_like(w)
    top = 2 ** (bits - 1) - 1
    for i in range(w.shape[1]):
        if i % group == 0:
            scale = np.abs(w[:, i : i + group]).max(axis=1) / top  # of the columns as they are now
        rounded[:, i] = np.clip(np.round(w[:, i] / scale), -top, top) * scale
        error = (w[:, i] - rounded[:, i]) / U[i, i]
        w[:, i + 1 :] -= np.outer(error, U[i, i + 1 :])
    return rounded


def run(device, *, outputs, tokens):
    """A row for each method, at 4 and at 3 bits.

    outputs: rows of the matrix. tokens: of each text that enters it.
    """
    w, fit, judge = real_layer(outputs, tokens)
    rows = []
    for bits in (4, 3):
        scaled, alpha = search(w, fit, bits)
        made = {
            NEAREST: reference.quantise(w, bits, GROUP).dequantise(),
            SCALED: scaled[alpha],
            GPTQ: gptq(w, fit, bits),
        }
        nearest = output_error(w, made[NEAREST], judge)
        for method, rounded in made.items():
            judged = output_error(w, rounded, judge)
            rows.append(
                {
                    "bits": bits,
                    "method": method,
                    "weights": reference.errors(w, rounded)["relative"],
                    "fitted": output_error(w, rounded, fit),
                    "judged": judged,
                    "multiple": nearest / judged,
                }
            )
    return rows


def go(rows):
    for bits in {r["bits"] for r in rows}:
        ours = only(rows, bits=bits, method=GPTQ)["fitted"]
        nearest = only(rows, bits=bits, method=NEAREST)["fitted"]
        if ours > nearest:
            return (
                f"at {bits} bits GPTQ errs by {ours:.4f}, rounding by {nearest:.4f}: look at the"
                " order of the updates"
            )


def plot(rows):
    errors = {f"{r['method']}, {r['bits']} bits": r["judged"] for r in rows}
    return plotting.bars(
        errors,
        x_label="error of the output, on a text not fitted",
        form="{:.3f}",
        alt="Error of the layer's output: "
        + "; ".join(f"{name} {error:.3f}" for name, error in errors.items()),
    )


def notice(rows):
    ours = only(rows, bits=4, method=GPTQ)
    nearest = only(rows, bits=4, method=NEAREST)
    return (
        "What counts is what the layer computes on real inputs, not how near its weights are. At 4"
        f" bits GPTQ's weights err {ours['weights'] / nearest['weights']:.2f} times as much as"
        f" rounding's, its outputs {ours['fitted'] / nearest['fitted']:.2f} times as much on the"
        f" text it was fitted on. On the other text it is {1 / ours['multiple']:.2f} times: what"
        " lies between is the price of having fitted."
    )


LAB = Lab(
    title="GPTQ, small: let later columns make up for it",
    objective=(
        "Quantise one real matrix to 4 and 3 bits by rounding, by AWQ-style scaling and by GPTQ,"
        " and compare weights and outputs."
    ),
    asks="Do GPTQ's outputs come nearer than rounding's, on the text it was fitted on?",
    notice=notice,
    columns={
        "bits": "bits",
        "method": "method",
        "weights": "error of the weights|.4f",
        "fitted": "of the output, fitted text|.4f",
        "judged": "of the output, other text|.4f",
        "multiple": "times smaller than rounding|.2f",
    },
    run=run,
    sizes={
        "full": {"outputs": 4096, "tokens": 1024},
        "quick": {"outputs": 128, "tokens": 256},
    },
    go=go,
    plot=plot,
    minutes=0.4,
    cpu_only=True,
)

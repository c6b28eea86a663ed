"""CH11-GPTQ: round one column at a time, and let the columns still to come make up for it (Frantar
et al. 2023, algorithm 1).
"""

from labkit.lab import Lab

GROUP = 64


def gptq(w, x, bits, group=GROUP, damp=0.01):
    """w [out,in] rounded to `bits` in groups, so that x @ w.T changes least; x [tokens,in].

    The inverse of H = x.T x says how much a column's error can be undone by each later column. Its
    Cholesky factor holds, in row i, what is needed once columns before i are fixed, so it is
    factored once and not updated (their section 3.3, step 3).
    """
    import numpy as np

    H = x.T @ x
    H += damp * np.diag(H).mean() * np.eye(len(H))  # so that it can be inverted
    U = np.linalg.cholesky(np.linalg.inv(H)).T
    w, rounded, top = w.copy(), np.empty_like(w), 2 ** (bits - 1) - 1
    for i in range(w.shape[1]):
        if i % group == 0:
            scale = np.abs(w[:, i : i + group]).max(axis=1) / top  # of the columns as they are now
        rounded[:, i] = np.clip(np.round(w[:, i] / scale), -top, top) * scale
        error = (w[:, i] - rounded[:, i]) / U[i, i]
        w[:, i + 1 :] -= np.outer(error, U[i, i + 1 :])
    return rounded


def run(device="cpu", quick=False):
    from labkit import reference
    from labkit_labs.ch11_quantisation.awq import ALPHAS, output_error, real_layer, scaled_round

    w, fit, judge = real_layer(128 if quick else 4096, 256 if quick else 1024)
    rows = []
    for bits in (4, 3):
        nearest = reference.quantise(w, bits, GROUP).dequantise()
        scaled = min(
            (scaled_round(w, fit, bits, alpha) for alpha in ALPHAS),
            key=lambda rounded: output_error(w, rounded, fit),
        )
        for method, rounded in (
            ("round to nearest", nearest),
            ("AWQ-style scaling", scaled),
            ("GPTQ", gptq(w, fit, bits)),
        ):
            rows.append(
                {
                    "bits": bits,
                    "method": method,
                    "weights": reference.errors(w, rounded)["relative"],
                    "fitted": output_error(w, rounded, fit),
                    "judged": output_error(w, rounded, judge),
                    "multiple": output_error(w, nearest, judge) / output_error(w, rounded, judge),
                }
            )
    return rows


def go(rows):
    for bits in {r["bits"] for r in rows}:
        error = {r["method"]: r["fitted"] for r in rows if r["bits"] == bits}
        if error["GPTQ"] > error["round to nearest"]:
            return (
                f"at {bits} bits GPTQ errs by {error['GPTQ']:.4f}, rounding by"
                f" {error['round to nearest']:.4f}: look at the order of the updates"
            )


def plot(rows):
    from labkit import plotting

    errors = {f"{r['method']}, {r['bits']} bits": r["judged"] for r in rows}
    return plotting.bars(
        errors,
        x_label="error of the output, on a text not fitted",
        form="{:.3f}",
        alt="Error of the layer's output: "
        + "; ".join(f"{name} {error:.3f}" for name, error in errors.items()),
    )


LAB = Lab(
    asks="Do GPTQ's outputs come nearer than rounding's, on the text it was fitted on?",
    title="GPTQ, small: let later columns make up for it",
    minutes=0.4,
    objective=(
        "Quantise one real matrix to 4 and 3 bits by rounding, by AWQ-style scaling and by GPTQ,"
        " and compare weights and outputs."
    ),
    notice=(
        "GPTQ's weights are further from the originals than rounding's, and its outputs are nearer:"
        " what counts is what the layer computes on real inputs. The gap between the fitted text"
        " and the other is the price of having fitted."
    ),
    columns={
        "bits": "bits",
        "method": "method",
        "weights": "error of the weights|.4f",
        "fitted": "of the output, fitted text|.4f",
        "judged": "of the output, other text|.4f",
        "multiple": "times smaller than rounding|.2f",
    },
    run=run,
    plot=plot,
    go=go,
)

"""One real layer and what enters it: what AWQ and GPTQ round, and how they are judged."""

import numpy as np

from labkit import reference

GROUP = 64  # weights that share a scale
ALPHAS = [i / 10 for i in range(11)]


def real_layer(rows: int, tokens: int):
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

    @torch.inference_mode()
    def entering(text: str):
        ids = tokenizer.encode(quant.read_text(text))[:tokens]
        return model(Step.of([(0, 0, ids)]), model.caches("none", 1, 1)).double().numpy()

    return w, entering("milton"), entering("course")


def output_error(w, rounded, x) -> float:
    """Of the layer's output on x, relative."""
    return reference.errors(x @ w.T, x @ rounded.T)["relative"]


def scaled_round(w, x, bits: int, alpha: float):
    """Round w * s in groups and divide by s again; a channel's s grows with its mean |x|, so that
    large inputs meet small errors (AWQ; Lin et al. 2024, section 3.2).
    """
    s = np.abs(x).mean(axis=0) ** alpha
    s = s / np.sqrt(s.max() * s.min())
    return reference.quantise(w * s, bits, GROUP).dequantise() / s


def search(w, x, bits: int) -> tuple[dict, float]:
    """(alpha -> w rounded by it, the alpha whose output on x comes nearest)."""
    tried = {alpha: scaled_round(w, x, bits, alpha) for alpha in ALPHAS}
    return tried, min(ALPHAS, key=lambda alpha: output_error(w, tried[alpha], x))

"""CH05-SINKS: what a model does when the first tokens leave the window.

SmolLM2 was trained to see everything, and its attention rests on its first tokens. The same text
three times: seeing all, seeing a window, seeing a window and the first 4 tokens (StreamingLLM, Xiao
et al. 2023). Positions stay the true ones; the paper counts within the cache, which matters once a
text is longer than the model was trained for.
"""

import math
from contextlib import contextmanager

from labkit.lab import Lab

SINKS = 4


def visible(T: int, window: int | None, sinks: int, device="cpu"):
    """Which of T keys each of T queries may see: [T,T]."""
    import torch

    query, key = torch.arange(T, device=device)[:, None], torch.arange(T, device=device)
    near = (
        torch.ones(T, T, dtype=torch.bool, device=device)
        if window is None
        else query - key < window
    )
    return (key <= query) & (near | (key < sinks))


@contextmanager
def seen_through(model, mask):
    """Inside the block every mixer of the model attends by `mask`.

    The shell does not notice: only its insides were swapped.
    """
    import torch
    import torch.nn.functional as F

    class Masked(torch.nn.Module):
        recurrent = False

        def __init__(self, mixer):
            super().__init__()
            self.mixer = mixer

        def forward(self, x, step, cache):
            q, k, v, _ = self.mixer.project(x, step)  # [T,H,E], [T,G,E], [T,G,E]
            q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
            seen = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=self.mixer.scale, enable_gqa=True
            )
            return self.mixer.out(seen[0].transpose(0, 1).flatten(1))

    inside = [block.mixer for block in model.blocks]
    try:
        for block in model.blocks:
            block.mixer = Masked(block.mixer)
        yield
    finally:
        for block, mixer in zip(model.blocks, inside):
            block.mixer = mixer


def run(device="cpu", quick=False):
    import torch

    from labkit.tables import progress
    from labkit.weights import smollm2
    from labkit_labs.common import corpus as text

    torch.set_num_threads(1)
    T, window = (320, 64) if quick else (2048, 256)
    model, tokenizer = smollm2("fp32", device)
    tokens, rows = text.prose(tokenizer, T), []
    for name, w, sinks in progress(
        [
            ("everything", None, 0),
            ("window", window, 0),
            (f"window + {SINKS} sinks", window, SINKS),
        ],
        "views",
    ):
        with seen_through(model, visible(T, w, sinks, device)):
            loss = text.losses(model, tokens)
        for a in range(0, T, window):
            nll = loss[a : a + window].mean().item()
            rows.append(
                {
                    "view": name,
                    "window": w,
                    "sinks": sinks,
                    "first": a,
                    "last": min(a + window, T) - 1,
                    "nll": nll,
                    "perplexity": math.exp(nll),
                    "kept": T if w is None else min(T, w + sinks),
                }
            )
    return rows


def go(rows):
    of = lambda view: [
        r["nll"]
        for r in rows
        if r["view"].startswith(view) and (view != "window" or r["sinks"] == 0)
    ]
    everything, window, sinks = of("everything"), of("window"), of(f"window + {SINKS}")
    if abs(everything[0] - window[0]) > 1e-3:
        return (
            f"within the first window the views differ ({everything[0]:.3f}, {window[0]:.3f}): look"
            " at the mask, which hides too much or too little"
        )
    lost = sum(window[1:]) - sum(everything[1:])
    if sum(window[1:]) - sum(sinks[1:]) < 0.5 * lost or lost <= 0:
        return (
            "the first 4 tokens give back less than half of what the window loses: look whether"
            " they are still seen by the last token"
        )


def plot(rows):
    from labkit import plotting

    series = {}
    for r in rows:
        series.setdefault(r["view"], []).append(r["nll"])
    return plotting.lines(
        sorted({r["last"] + 1 for r in rows}),
        series,
        x_label="position in the text",
        y_label="nats per token",
        alt=(
            "Loss by position for three views of the same text: with a window alone it jumps once"
            " the first tokens leave it, with 4 sinks it does not."
        ),
    )


LAB = Lab(
    asks=(
        "Is the window harmless while the text fits into it, and harmful without sinks afterwards?"
    ),
    title="Attention sinks",
    minutes=0.8,
    objective=(
        "Measure SmolLM2's loss by position when it sees everything, a window, and a window plus"
        " the first 4 tokens."
    ),
    notice=(
        "In the first window all three agree. Then the window alone does far worse, although what"
        " it lost is 4 tokens that say next to nothing: attention has to put its weight somewhere,"
        " and it learned to put it there. Keep them, and the window works."
    ),
    columns={
        "view": "sees",
        "first": "from",
        "last": "to",
        "nll": "nats per token|.3f",
        "perplexity": "perplexity|,.1f",
        "kept": "tokens kept",
    },
    run=run,
    plot=plot,
    go=go,
)

"""CH05-SINKS: what a model does when the first tokens leave the window.

SmolLM2 was trained to see everything, and its attention rests on its first tokens. The same text
three times: seeing all, seeing a window, seeing a window and the first 4 tokens (StreamingLLM, Xiao
et al. 2023). Positions stay the true ones; the paper counts within the cache, which matters once a
text is longer than the model was trained for.
"""

import math
from contextlib import contextmanager

from labkit import plotting
from labkit.lab import Lab
from labkit.tables import progress, series

SINKS = 4
WITH_SINKS = f"window + {SINKS} sinks"


def visible(T: int, window: int | None, sinks: int, device="cpu"):
    """Which of T keys each of T queries may see: [T,T]."""
    import torch

    query = torch.arange(T, device=device)[:, None]
    key = torch.arange(T, device=device)
    if window is None:
        return key <= query
    return (key <= query) & ((query - key < window) | (key < sinks))


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


def run(device, *, tokens, window):
    """A row for each view and each window's worth of the text. tokens: how long it is."""
    from labkit.weights import smollm2
    from labkit_labs.common import corpus

    views = [("everything", None, 0), ("window", window, 0), (WITH_SINKS, window, SINKS)]
    model, tokenizer = smollm2("fp32", device)
    text = corpus.prose(tokenizer, tokens)
    rows = []
    for name, near, sinks in progress(views, "views"):
        with seen_through(model, visible(tokens, near, sinks, device)):
            losses = corpus.losses(model, text)
        for first in range(0, tokens, window):
            nll = losses[first : first + window].mean().item()
            rows.append(
                {
                    "view": name,
                    "window": near,
                    "sinks": sinks,
                    "first": first,
                    "last": min(first + window, tokens) - 1,
                    "nll": nll,
                    "perplexity": math.exp(nll),
                    "kept": tokens if near is None else min(tokens, near + sinks),
                }
            )
    return rows


def go(rows):
    nll = series(rows, "view", "nll")
    everything, *everything_after = nll["everything"]
    window, *window_after = nll["window"]
    _, *sinks_after = nll[WITH_SINKS]
    if abs(everything - window) > 1e-3:
        return (
            f"within the first window the views differ ({everything:.3f}, {window:.3f}): look"
            " at the mask, which hides too much or too little"
        )
    lost = sum(window_after) - sum(everything_after)
    given_back = sum(window_after) - sum(sinks_after)
    if given_back < 0.5 * lost or lost <= 0:
        return (
            f"the first {SINKS} tokens give back less than half of what the window loses: look"
            " whether they are still seen by the last token"
        )


def plot(rows):
    nll = series(rows, "view", "nll")
    return plotting.lines(
        sorted({r["last"] + 1 for r in rows}),
        nll,
        x_label="position in the text",
        y_label="nats per token",
        alt="Loss in nats per token, from window to window along the same text: "
        + "; ".join(
            f"seeing {view} {', '.join(f'{loss:.2f}' for loss in losses)}"
            for view, losses in nll.items()
        ),
    )


def notice(rows):
    nll = series(rows, "view", "nll")

    def lost(view) -> float:
        """Nats per token that a view costs once the text has left the first window."""
        return sum(nll[view][1:]) / len(nll[view][1:]) - everything

    everything = sum(nll["everything"][1:]) / len(nll["everything"][1:])
    return (
        "In the first window all three agree. Then the window alone loses"
        f" {lost('window'):.2f} nats a token, and with the first {SINKS} tokens kept"
        f" {lost(WITH_SINKS):.2f}, although these say next to nothing: attention has to put its"
        " weight somewhere, and it learned to put it there."
    )


LAB = Lab(
    title="Attention sinks",
    objective=(
        "Measure SmolLM2's loss by position when it sees everything, a window, and a window plus"
        " the first 4 tokens."
    ),
    asks=(
        "Is the window harmless while the text fits into it, and do the first tokens give back at"
        " least half of what it loses afterwards?"
    ),
    notice=notice,
    columns={
        "view": "sees",
        "first": "from",
        "last": "to",
        "nll": "nats per token|.3f",
        "perplexity": "perplexity|,.1f",
        "kept": "tokens kept",
    },
    run=run,
    sizes={"full": {"tokens": 2048, "window": 256}, "quick": {"tokens": 320, "window": 64}},
    threads=1,
    go=go,
    plot=plot,
    minutes=0.8,
)

"""What SmolLM2 makes of the course's prose when it sees only a part of it."""

from __future__ import annotations

from labkit_labs.ch05_swa.sinks import seen_through, visible


def loss(tokens: int, after: int, window: int | None, kept: int) -> dict:
    """SmolLM2's loss on the prose from token `after` on, through a window and the first `kept`."""
    from labkit.weights import smollm2
    from labkit_labs.common import corpus

    model, tokenizer = smollm2("fp32", "cpu")
    text = corpus.prose(tokenizer, tokens)
    with seen_through(model, visible(tokens, window, kept)):
        return {"nll": corpus.losses(model, text)[after:].mean().item()}

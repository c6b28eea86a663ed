"""The two loops of the course, side by side: one feeds everything again, the
other only what is new.
"""

from __future__ import annotations

import operator
import reprlib

import torch
from torch import Tensor

from labkit.config import ModelConfig, whole
from labkit.model import GPT
from labkit.sampling import Sampling, pick
from labkit.step import Step


@torch.inference_mode()
def naive(
    model: GPT, prompts, max_new_tokens: int, choose, stop=()
) -> list[list[int]]:
    """Decode without a cache: every step runs the model over the whole text
    so far.
    """
    texts, live = [list(p) for p in prompts], list(range(len(prompts)))
    caches = model.caches("none", len(prompts), 1)
    while live:
        step = Step.of([(r, 0, texts[r]) for r in live], model.device)
        for r, token in zip(
            live, choose(model(step, caches, step.last), live)
        ):
            texts[r].append(token)
        live = [
            r
            for r in live
            if _unfinished(texts[r], prompts[r], max_new_tokens, stop)
        ]
    return [text[len(p) :] for text, p in zip(texts, prompts)]


@torch.inference_mode()
def cached(
    model: GPT, prompts, max_new_tokens: int, choose, stop=(), kind="static"
) -> list[list[int]]:
    """Decode with a cache: the prompt once, then one token a step."""
    texts, live = [list(p) for p in prompts], list(range(len(prompts)))
    longest = max(map(len, prompts))
    caches = model.caches(
        kind, len(prompts), longest + max_new_tokens, longest_step=longest
    )
    done = [0] * len(prompts)  # tokens whose keys and values are in the cache
    while live:
        step = Step.of(
            [(r, done[r], texts[r][done[r] :]) for r in live], model.device
        )
        for r, token in zip(
            live, choose(model(step, caches, step.last), live)
        ):
            done[r] = len(texts[r])
            texts[r].append(token)
        live = [
            r
            for r in live
            if _unfinished(texts[r], prompts[r], max_new_tokens, stop)
        ]
    return [text[len(p) :] for text, p in zip(texts, prompts)]


def _unfinished(
    text: list[int], prompt: list[int], max_new_tokens: int, stop
) -> bool:
    return len(text) - len(prompt) < max_new_tokens and text[-1] not in stop


def generate(
    model: GPT,
    prompts: list[list[int]],
    max_new_tokens: int,
    *,
    cache: str = "static",
    sampling: Sampling | list[Sampling] | None = None,
    stop=None,
) -> list[list[int]]:
    """New tokens for each prompt.

    cache: "static", "paged", "ring" (sliding layers keep their window only)
    or "none" (naive). sampling: one for all or one per prompt; None = greedy.
    stop: token ids that end a reply (kept as its last token); None = the
    model's own, () = never. Raises ValueError for an empty prompt, an id
    outside the vocabulary, or prompt + new beyond `max_context`.
    """
    config = model.config
    prompts = _listed(
        prompts,
        "prompts must be a list of lists of token ids, such as [[1, 2]]",
        lambda prompt: [*map(operator.index, prompt)],
    )
    if not prompts:
        raise ValueError(
            "there is nothing to generate from: give at least one prompt"
        )
    whole(max_new_tokens=max_new_tokens)
    for prompt in prompts:
        check_tokens(config, prompt, max_new_tokens)
    stop = (
        config.stop
        if stop is None
        else _listed(stop, "stop must be a list of token ids, or None")
    )
    samplings = (
        sampling
        if isinstance(sampling, list)
        else [sampling or Sampling()] * len(prompts)
    )
    if len(samplings) != len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts need {len(prompts)} samplings, not {len(samplings)}"
        )
    generators = [s.generator(model.device) for s in samplings]

    def choose(logits: Tensor, live: list[int]) -> list[int]:
        return pick(
            logits,
            [samplings[r] for r in live],
            [generators[r] for r in live],
        )

    if cache == "none":
        return naive(model, prompts, max_new_tokens, choose, stop)
    return cached(model, prompts, max_new_tokens, choose, stop, cache)


@torch.inference_mode()
def logits(
    model: GPT,
    tokens: list[int],
    chunks: list[int] | None = None,
    cache: str = "none",
) -> Tensor:
    """Logits [T,V] of a text, fed in `chunks` (None = at once).

    With "none" each chunk sees the text before it again.

    Raises ValueError if the chunks do not sum to the text, or as `generate`
    does.
    """
    check_tokens(model.config, tokens)
    chunks = (
        [len(tokens)]
        if chunks is None
        else _listed(chunks, "chunks must be a list of token counts")
    )
    if sum(chunks) != len(tokens) or min(chunks, default=0) < 1:
        raise ValueError(
            f"chunks {chunks} must be at least 1 each and sum to the"
            f" {len(tokens)} tokens, not {sum(chunks)}"
        )
    caches = model.caches(cache, 1, len(tokens), longest_step=max(chunks))
    out, at = [], 0
    for n in chunks:
        first = 0 if cache == "none" else at
        step = Step.of([(0, first, tokens[first : at + n])], model.device)
        out.append(model(step, caches)[-n:])
        at += n
    return torch.cat(out)


def _listed(values, rule: str, one=operator.index) -> list:
    try:
        return [one(v) for v in values]
    except TypeError:
        raise ValueError(f"{rule}, not {reprlib.repr(values)}") from None


def check_tokens(
    config: ModelConfig, tokens: list[int], new: int = 0
) -> None:
    """ValueError, in one sentence, for a prompt that the model cannot take."""
    tokens = _listed(
        tokens, "a prompt must be a list of token ids (whole numbers)"
    )
    if not tokens:
        raise ValueError("the prompt is empty: give at least one token")
    if not 0 <= min(tokens) <= max(tokens) < config.vocab_size:
        bad = next(t for t in tokens if not 0 <= t < config.vocab_size)
        raise ValueError(
            f"token id {bad} is outside the vocabulary (0 to {config.vocab_size - 1})"
        )
    if len(tokens) + new > config.max_context:
        raise ValueError(
            f"{len(tokens)} prompt tokens + {new} new ones exceed the model's"
            f" context of {config.max_context}"
        )

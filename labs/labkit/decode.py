"""The two loops of the course, side by side: one feeds everything again, the
other only what is new.

A loop yields every step it has run, so a clock, a recorder or a progress bar
is whoever asks it for the next one. `stream` checks the arguments and starts
a loop, `generate` runs it to its end.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from labkit.config import ModelConfig, whole
from labkit.graphs import capture
from labkit.model import GPT
from labkit.sampling import Sampling, greedy, pick
from labkit.step import Step


class Decoded(NamedTuple):
    """One step of a loop, once its tokens are chosen."""

    step: Step  # what was fed
    logits: Tensor  # [R,V], behind each request's next token
    tokens: dict[int, int]  # request -> that token


@torch.inference_mode()
def naive(model, caches, prompts, new, choose=greedy, stop=()):
    """Decode without a cache: every step feeds the whole text so far.

    Yields a `Decoded` for each of at most `new` steps. caches: of kind
    "none". choose: (logits [R,V], their R requests) -> R tokens.
    """
    feed = dict(enumerate(prompts))  # request -> tokens
    for _ in range(new):
        packed = [(r, 0, feed[r]) for r in feed]
        step = Step.of(packed, model.device)
        logits = model(step, caches, step.last)
        chosen = choose(logits, list(feed))
        tokens = dict(zip(feed, chosen))
        yield Decoded(step, logits, tokens)
        live = [r for r in feed if tokens[r] not in stop]
        # all of it again
        feed = {r: feed[r] + [tokens[r]] for r in live}
        if not feed:
            return


@torch.inference_mode()
def cached(model, caches, prompts, new, choose=greedy, stop=()):
    """Decode with a cache: the prompt once, then one token a step.

    Yields a `Decoded` for each of at most `new` steps. caches: empty, with
    room for every prompt and its new tokens. choose: as in `naive`.
    """
    feed = dict(enumerate(prompts))  # request -> tokens
    done = dict.fromkeys(feed, 0)  # request -> tokens in the cache
    for _ in range(new):
        packed = [(r, done[r], feed[r]) for r in feed]
        step = Step.of(packed, model.device)
        logits = model(step, caches, step.last)
        chosen = choose(logits, list(feed))
        tokens = dict(zip(feed, chosen))
        yield Decoded(step, logits, tokens)
        live = [r for r in feed if tokens[r] not in stop]
        done = {r: done[r] + len(feed[r]) for r in live}
        # only what is new
        feed = {r: [tokens[r]] for r in live}
        if not feed:
            return


def stream(
    model: GPT,
    prompts: list[list[int]],
    max_new_tokens: int,
    *,
    cache: str = "static",
    sampling: Sampling | list[Sampling] | None = None,
    stop=None,
    captured: bool = True,
) -> Iterator[Decoded]:
    """`generate`, a step at a time: its arguments, and a `Decoded` for each
    forward.

    Bad arguments raise ValueError at once; the first forward runs when the
    first step is asked for.
    """
    whole(max_new_tokens=max_new_tokens)
    prompts = _listed(
        prompts,
        "prompts must be a list of lists of token ids, such as [[1, 2]]",
        _ids,
    )
    if not prompts:
        raise ValueError(
            "there is nothing to generate from: give at least one prompt"
        )
    for prompt in prompts:
        _check_fit(model.config, prompt, max_new_tokens)
    stop = check_stop(model.config, stop)
    if not isinstance(sampling, list):
        sampling = [sampling or Sampling()] * len(prompts)
    if len(sampling) != len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts need {len(prompts)} samplings,"
            f" not {len(sampling)}"
        )
    generators = [s.generator(model.device) for s in sampling]

    def choose(logits: Tensor, live: list[int]) -> list[int]:
        return pick(
            logits, [sampling[r] for r in live], [generators[r] for r in live]
        )

    longest = max(map(len, prompts))
    caches = model.caches(
        cache, len(prompts), longest + max_new_tokens, longest_step=longest
    )
    if cache == "none":
        return naive(model, caches, prompts, max_new_tokens, choose, stop)
    run = capture(model, caches, len(prompts)) if captured else model
    return cached(run, caches, prompts, max_new_tokens, choose, stop)


def replies(tokens: Iterable[dict[int, int]]) -> list[list[int]]:
    """The new tokens of each request, from every step's `Decoded.tokens`."""
    made: dict[int, list[int]] = {}
    for step in tokens:
        for r, token in step.items():
            made.setdefault(r, []).append(token)
    return list(made.values())


def generate(
    model: GPT,
    prompts: list[list[int]],
    max_new_tokens: int,
    *,
    cache: str = "static",
    sampling: Sampling | list[Sampling] | None = None,
    stop=None,
    captured: bool = True,
) -> list[list[int]]:
    """New tokens for each prompt.

    cache: "static", "paged", "ring" (sliding layers keep their window only)
    or "none" (naive). sampling: one for all or one per prompt; None = greedy.
    stop: token ids that end a reply (kept as its last token); None = the
    model's own, () = never. captured: decode steps are handed over whole where
    they can be (see `graphs`); False: by the model's own `forward`.

    Raises ValueError for an empty prompt, an id outside the vocabulary, or
    prompt + new beyond `max_context`.

    A process that has generated must not be forked: torch's threads do not
    come along, and the child waits for them (pytorch#17199). Start it with
    `multiprocessing.get_context("spawn")`.
    """
    steps = stream(
        model,
        prompts,
        max_new_tokens,
        cache=cache,
        sampling=sampling,
        stop=stop,
        captured=captured,
    )
    return replies(step.tokens for step in steps)


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
    tokens = check_prompt(model.config, tokens)
    chunks = check_chunks(tokens, chunks)
    caches = model.caches(cache, 1, len(tokens), longest_step=max(chunks))
    found = []
    at = 0
    for n in chunks:
        first = 0 if cache == "none" else at
        step = Step.of([(0, first, tokens[first : at + n])], model.device)
        found.append(model(step, caches)[-n:])
        at += n
    return torch.cat(found)


def check_chunks(
    tokens: list[int], chunks: list[int] | None = None
) -> list[int]:
    """The chunks in which a text is fed, None = at once.

    Raises ValueError if they do not sum to the text.
    """
    if chunks is None:
        chunks = [len(tokens)]
    chunks = _listed(chunks, "chunks must be a list of token counts")
    if sum(chunks) != len(tokens) or min(chunks, default=0) < 1:
        raise ValueError(
            f"chunks {chunks} must be at least 1 each and sum to the"
            f" {len(tokens)} tokens, not {sum(chunks)}"
        )
    return chunks


def check_prompt(
    config: ModelConfig, prompt: list[int], new: int = 0
) -> list[int]:
    """The prompt as a list of int, if a model of this config can take it, and
    `new` tokens more.

    Raises ValueError, in one sentence, if it can not.
    """
    rule = "a prompt must be a list of token ids (whole numbers)"
    prompt = _listed(prompt, rule)
    _check_fit(config, prompt, new)
    return prompt


def check_stop(config: ModelConfig, stop) -> tuple[int, ...]:
    """The token ids that end a reply: the config's own for None, () = never.

    Raises ValueError for what is no list of token ids.
    """
    rule = "stop must be a list of token ids, or None"
    return tuple(_listed(config.stop if stop is None else stop, rule))


def _ids(values) -> list[int]:
    return [operator.index(v) for v in values]


def _listed(values, rule: str, one=operator.index) -> list:
    try:
        return [one(v) for v in values]
    except TypeError:
        raise ValueError(f"{rule}, not {reprlib.repr(values)}") from None


def _check_fit(config: ModelConfig, prompt: list[int], new: int) -> None:
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token")
    if not 0 <= min(prompt) <= max(prompt) < config.vocab_size:
        bad = next(t for t in prompt if not 0 <= t < config.vocab_size)
        raise ValueError(
            f"token id {bad} is outside the vocabulary"
            f" (0 to {config.vocab_size - 1})"
        )
    if len(prompt) + new > config.max_context:
        raise ValueError(
            f"{len(prompt)} prompt tokens + {new} new ones exceed the model's"
            f" context of {config.max_context}"
        )

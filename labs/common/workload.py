"""One workload, and the ways to serve it: one user at a time, static batches (right, and padded
wrongly), and the engine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.decode import generate
from labkit.engine import Engine
from labkit.quant import read_text

WORKLOAD = Path(__file__).parent / "data" / "workload.json"
SYSTEM = """
You are a careful editor who works for a small publisher of technical books. Read what the reader
sends you and answer in plain English. Keep to the facts that the text gives, and say so when it
does not give enough of them. Prefer short sentences, and one idea in each. Use the words of the
field, and explain a word when you use it for the first time. Do not praise the text, do not
apologise, and do not repeat the question. When you are asked to correct a text, change only what is
wrong, and leave the rest as it is, word for word. When you are asked to summarise a text, keep its
order, its numbers and its names, and leave out its examples. When you are asked what something
costs, name the unit, and say whether the cost comes once or with every use. When two things are
compared, say what was the same for both, and what was not. When a number is quoted, say where it
was measured. If a question has several parts, answer them in the order in which they were asked,
and number your answers. If you do not know, say that you do not know. Write no lists unless you are
asked for one. End with the last sentence of your answer, and add nothing after it. The reader's
text follows below.
"""
BLOCK = 16


@dataclass(frozen=True)
class Job:
    """A request: its prompt, and how many tokens it wants."""

    prompt: list[int]
    new: int


def make_workload(tokenizer, n: int = 48, seed: int = 0) -> dict:
    """48 requests: a system prompt of 256 tokens that all share, 20 to 120 tokens of their own,
    replies of geometric length, mean 64.
    """
    draw, words = np.random.default_rng(seed), tokenizer.encode(read_text("course"))
    own, new = draw.integers(20, 121, n), np.clip(draw.geometric(1 / 64, n), 8, 256)
    at = draw.integers(0, len(words) - 120, n)
    return {
        "seed": seed,
        "system": tokenizer.encode(" ".join(SYSTEM.split()))[:256],
        "requests": [
            {"own": words[a : a + k], "new": int(m)} for a, k, m in zip(at, own.tolist(), new)
        ],
    }


def jobs() -> list[Job]:
    """The stored workload."""
    kept = json.loads(WORKLOAD.read_text())
    return [Job(kept["system"] + r["own"], r["new"]) for r in kept["requests"]]


# -- ways to serve: each takes jobs and returns their new tokens -------------------------


def one_by_one(model, work: list[Job], captured: bool = True) -> list[list[int]]:
    """A cache, and one user at a time. captured: each step is handed over whole."""
    return [generate(model, [job.prompt], job.new, stop=(), captured=captured)[0] for job in work]


def static(model, work: list[Job], slots: int, padded: bool = False) -> list[list[int]]:
    """Batches in order of arrival; all of a batch run until its longest reply is done, and what is
    too much is thrown away.

    `padded` is the usual mistake: prompts are filled up to the longest with token 0, and neither
    mask nor positions know.
    """
    out = []
    for i in range(0, len(work), slots):
        batch = work[i : i + slots]
        longest = max(len(job.prompt) for job in batch)
        prompts = [[0] * (longest - len(job.prompt)) * padded + job.prompt for job in batch]
        replies = generate(model, prompts, max(job.new for job in batch), stop=())
        out += [reply[: job.new] for reply, job in zip(replies, batch)]
    return out


def continuous(
    model,
    work: list[Job],
    slots: int,
    prefix: bool = False,
    speculative=None,
    drafts: int | None = None,
) -> list[list[int]]:
    """The engine: who is done leaves, and the next one enters. speculative, drafts: as its own."""
    longest = max(len(job.prompt) + job.new for job in work)
    engine = Engine(
        model,
        max_batch=slots,
        n_blocks=slots * -(-longest // BLOCK),
        block_size=BLOCK,
        token_budget=512,
        prefix_cache=prefix,
        speculative=speculative,
        drafts=drafts,
    )
    for job in work:
        engine.add(job.prompt, job.new, stop=())
    return list(engine.run().values())

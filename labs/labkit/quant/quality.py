"""What fewer bits cost: perplexity, on texts the model has not learned by heart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from labkit import paths
from labkit.config import UnknownName
from labkit.decode import check_prompt
from labkit.model import GPT
from labkit.step import Step


def read_text(name: str) -> str:
    """A stored text: "course" (this course's prose), "milton" (Areopagitica, 1644) or "calibration"
    (never judged on).
    """
    known = {p.stem.removeprefix("text_"): p for p in paths.data().glob("text_*.txt")}
    if name not in known:
        raise UnknownName("text", name, known)
    # the first paragraph says where it is from
    return known[name].read_text(encoding="utf-8").split("\n\n", 1)[1]


@torch.inference_mode()
def perplexity(model: GPT, ids: list[int], window: int = 512, caches=None) -> float:
    """exp of the mean negative log-likelihood of a text: how many tokens the model hesitates
    between, on average.

    The text is cut into windows of `window` tokens, each read afresh; every token but the first is
    predicted once. caches: a function (model, rows, capacity) -> caches to read keys and values
    through; None = as they are.
    """
    if len(ids) < 2 or window < 1:
        raise ValueError(
            f"perplexity needs at least 2 tokens and a window of at least 1, not {len(ids)} and"
            f" {window}"
        )
    check_prompt(model.config, ids[:1] + ids[: min(window, len(ids) - 1)])
    total = 0.0
    for at in range(0, len(ids) - 1, window):
        seen, wanted = ids[at : at + window][: len(ids) - 1 - at], ids[at + 1 : at + 1 + window]
        held = caches(model, 1, len(seen)) if caches else model.caches("none", 1, 1)
        logits = model(Step.of([(0, 0, seen)], model.device), held).float()
        total += F.cross_entropy(
            logits, torch.tensor(wanted, device=model.device), reduction="sum"
        ).item()
    return math.exp(total / (len(ids) - 1))

"""A decode step, handed over whole: one call, or one launch, instead of hundreds.

A decode reads every weight once and computes little, so a step of a small model lasts no longer
than it takes to ask for its operations one by one. Captured, they are laid out once and then
replayed:

    plan   on a CPU: an array of operations, which one call into C runs
    cuda   on a GPU: a CUDA graph for each padded batch size, of one of three `ways`

What can't be captured goes on by the model's own `forward`, with the same result. `why_not` says
what, and `labkit doctor` shows it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode as watched

from labkit.graphs import plan
from labkit.graphs.cuda import CudaGraphs, NoRoom
from labkit.model import GPT
from labkit.step import Step


def why_not(model: GPT, caches: list) -> str:
    """Why steps of this model on these caches can't be captured; empty if they can."""
    if model.device.type == "cpu":
        return plan.why_not(model, caches)
    return CudaGraphs.why_not(model, caches)


class Captured:
    """`model(step, caches, last)`: by the captured step where it fits, else by the model itself.

    why: the reason why every step goes the plain way; empty if steps were captured.
    """

    def __init__(self, model: GPT, caches: list, batch: int):
        self.model = model
        self.caches = caches
        self.why = why_not(model, caches)
        self.replay = None
        if self.why:
            return
        kind = plan.Plan if model.device.type == "cpu" else CudaGraphs
        try:
            self.replay = kind(model, caches, batch)
        except NoRoom as e:
            self.why = str(e)

    @property
    def device(self):
        return self.model.device

    def refuses(self, step: Step) -> str:
        """Why this step goes the plain way; empty if it is replayed."""
        if self.replay is None:
            return self.why
        if watched() or torch.is_grad_enabled():
            return "a gradient, or who counts operations, needs torch's own"
        return self.replay.refuses(step)

    def __call__(self, step: Step, caches: list, last: Tensor | None = None) -> Tensor:
        if caches is not self.caches or self.refuses(step):
            return self.model(step, caches, last)
        try:
            return self.replay(step, last)
        except NoRoom as e:  # a GPU's memory is full: nothing is lost but speed
            self.why = str(e)
            self.replay = None
            return self.model(step, caches, last)


def capture(model: GPT, caches: list, batch: int) -> Captured:
    """A model whose decode steps of up to `batch` requests on `caches` are handed over whole.

    Its call is the model's: (step, caches, last) -> logits. Weights that are replaced afterwards
    need a new capture.
    """
    if batch < 1:
        raise ValueError(f"a step has at least one request, not {batch}")
    return Captured(model, caches, batch)

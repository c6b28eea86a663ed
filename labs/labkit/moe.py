"""Mixture of experts: many feed-forward layers, of which each token uses a few.

Less is computed and read; all of it is stored.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.config import ModelConfig
from labkit.ffn import SwiGLU, gated
from labkit.linear import Linear

EXECUTIONS = ("auto", "loop", "gather", "grouped")


class Router(nn.Module):
    """Chooses A of X experts for each token, and what each one's answer weighs: x [N,D] -> experts
    [N,A], weights [N,A].

    "softmax": the A largest probabilities (Shazeer et al. 2017; Mixtral, Qwen3, gpt-oss).
    "sigmoid": scores on their own, the choice corrected by a bias that evens out the load, within
    the best groups of experts (DeepSeek-AI 2024, DeepSeek-V3, section 2.1.2).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.score = Linear(config.d_model, config.n_experts, bias=config.expert_bias)
        self.register_buffer(
            "correction", torch.zeros(config.n_experts) if config.router_bias else None
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        scores = self.score(x).float()  # [N,X]
        scores = scores.sigmoid() if c.router == "sigmoid" else scores.softmax(-1)
        # the correction is for choosing only
        choice = scores if self.correction is None else scores + self.correction
        if c.n_expert_groups > 1:
            choice = self.in_best_groups(choice)
        experts = choice.topk(c.n_active_experts, dim=1).indices
        weights = scores.gather(1, experts)
        if c.renormalise:
            weights = weights / weights.sum(1, keepdim=True)
        return experts, (weights * c.routed_scale).to(x.dtype)

    def in_best_groups(self, choice: Tensor) -> Tensor:
        """Scores [N,X], -inf outside the best groups: a group is worth its two best experts."""
        groups = choice.unflatten(1, (self.config.n_expert_groups, -1))  # [N,groups,X/groups]
        worth = groups.topk(min(2, groups.shape[2]), dim=2).values.sum(2)
        best = worth.topk(self.config.n_active_groups, dim=1).indices
        out = torch.ones_like(worth, dtype=torch.bool).scatter(1, best, False)
        return groups.masked_fill(out[..., None], float("-inf")).flatten(1)


class MoE(nn.Module):
    """Routed experts, and shared ones that every token uses (Dai et al. 2024, DeepSeekMoE). x [N,D]
    -> [N,D].

    `execution` says how: "loop" goes expert by expert, "gather" copies out the weights each token
    needs (fit for a few tokens on a GPU), "grouped" sorts the tokens and multiplies all experts at
    once (torch's grouped_mm). "auto": loop on a CPU; on a GPU gather up to 16 choices, then
    grouped. All give the same result.
    """

    def __init__(self, config: ModelConfig, execution: str = "auto"):
        super().__init__()
        c = config
        X, D, d = c.n_experts, c.d_model, c.d_expert
        self.execution = execution
        self.kind = c.ffn
        self.router = Router(c)
        self.gate_up = nn.Parameter(torch.randn(X, 2 * d, D) * D**-0.5)
        self.down = nn.Parameter(torch.randn(X, D, d) * d**-0.5)
        self.gate_up_bias = nn.Parameter(torch.zeros(X, 2 * d)) if c.expert_bias else None
        self.down_bias = nn.Parameter(torch.zeros(X, D)) if c.expert_bias else None
        self.shared = SwiGLU(c, c.n_shared_experts * d) if c.n_shared_experts else None
        self.shared_gate = Linear(D, 1) if c.shared_gate else None

    def forward(self, x: Tensor) -> Tensor:
        experts, weights = self.router(x)
        out = self.routed(x, experts, weights)
        if self.shared is None:
            return out
        shared = self.shared(x)
        if self.shared_gate is not None:
            shared = shared * self.shared_gate(x).sigmoid()
        return out + shared

    def routed(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The chosen experts' answers, weighed and summed: x [N,D], experts and weights [N,A] ->
        [N,D].
        """
        way = self._way(x, experts)
        if way == "gather":
            return (self._gather(x, experts) * weights[..., None]).sum(1)
        order = experts.flatten().argsort(stable=True)  # choices, expert by expert
        token = order // experts.shape[1]
        load = expert_load(experts, len(self.gate_up))
        run = self._loop if way == "loop" else self._grouped
        answers = run(x[token], load) * weights.flatten()[order, None]
        return torch.zeros_like(x).index_add_(0, token, answers)

    def _way(self, x: Tensor, experts: Tensor) -> str:
        """How these choices are executed: `execution`, or what it leaves open."""
        if self.execution not in EXECUTIONS:
            raise ValueError(f"experts run by {', '.join(EXECUTIONS)}, not {self.execution!r}")
        if self.execution != "auto":
            return self.execution
        if x.device.type == "cpu":
            return "loop"
        return "gather" if experts.numel() <= 16 else "grouped"

    def _loop(self, x: Tensor, load: Tensor) -> Tensor:
        """x [choices,D], sorted by expert · load [X] -> [choices,D], expert by expert."""

        def expert(i: int, x: Tensor) -> Tensor:
            up_bias = None if self.gate_up_bias is None else self.gate_up_bias[i]
            down_bias = None if self.down_bias is None else self.down_bias[i]
            hidden = gated(F.linear(x, self.gate_up[i], up_bias), self.kind)
            return F.linear(hidden, self.down[i], down_bias)

        parts = enumerate(x.split(load.tolist()))
        return torch.cat([expert(i, part) for i, part in parts if len(part)])

    def _gather(self, x: Tensor, experts: Tensor) -> Tensor:
        """x [N,D] · experts [N,A] -> [N,A,D], each choice by a copy of its expert's weights."""
        hidden = torch.einsum("naed,nd->nae", self.gate_up[experts], x)
        if self.gate_up_bias is not None:
            hidden = hidden + self.gate_up_bias[experts]
        out = torch.einsum("nade,nae->nad", self.down[experts], gated(hidden, self.kind))
        return out if self.down_bias is None else out + self.down_bias[experts]

    def _grouped(self, x: Tensor, load: Tensor) -> Tensor:
        """x [choices,D], sorted by expert · load [X] -> [choices,D], all experts at once."""
        multiply = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
        odd = any(w.shape[2] * w.element_size() % 16 for w in (self.gate_up, self.down))
        if multiply is None or odd:
            raise ValueError(
                "grouped execution needs torch's grouped_mm and rows of a multiple of 16 bytes;"
                " use 'loop' here"
            )
        ends = load.cumsum(0).to(torch.int32)

        def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            y = multiply(x, weight.transpose(1, 2), offs=ends)
            return y if bias is None else y + bias.repeat_interleave(load, 0)

        hidden = gated(product(x, self.gate_up, self.gate_up_bias), self.kind)
        return product(hidden, self.down, self.down_bias)


def expert_load(experts: Tensor, n_experts: int) -> Tensor:
    """How many tokens chose each expert, [X]."""
    return torch.bincount(experts.flatten(), minlength=n_experts)


@contextmanager
def watch_routing(model: nn.Module):
    """Inside the block, every forward adds each router's choice to the list this gives: [(layer
    name, experts [N,A], weights [N,A])].
    """
    seen = []
    hooks = [
        m.register_forward_hook(lambda _, __, out, name=name: seen.append((name, *out)))
        for name, m in model.named_modules()
        if isinstance(m, Router)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()

"""A router at work: which experts each token is sent to, how the load falls, and which weights the
batch has had to read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.traces.trace import Trace


@dataclass(frozen=True)
class RoutingStep:
    """One token, sent to its experts. What is counted is of the forward it came in, so far."""

    forward: int  # from 0
    token: str
    experts: list[int]  # best first
    weights: list[float]  # of their answers
    load: list[int]  # tokens that each expert got
    touched: int  # experts that got any
    read_bytes: int  # of their weights, in all forwards so far: each expert once a forward


def record_routing(
    model,
    steps: list,
    caches: list,
    *,
    layer: int | None = None,
    decode: Callable[[list[int]], str] | None = None,
) -> Trace:
    """Run `model(step, caches)` for each `labkit.Step`, and record what the router of a layer (None
    = the first that has one) chose for each of its tokens.

    `decode` turns ids into text (default: the numbers). ValueError for no steps, and for a layer
    without experts.
    """
    import torch

    from labkit.moe import MoE, watch_routing

    routed = [i for i, block in enumerate(model.blocks) if isinstance(block.ffn, MoE)]
    layer = next(iter(routed), None) if layer is None else layer
    if layer not in routed:
        raise ValueError(
            f"layer {layer} routes no tokens; layers with experts: {routed or 'none'}"
            if routed
            else "no layer of this model has experts, so there is no routing to record"
        )
    if not steps:
        raise ValueError("there is nothing to route: give at least one step")
    moe = model.blocks[layer].ffn
    with watch_routing(moe) as seen, torch.inference_mode():
        for step in steps:
            model(step, caches)
    experts = [p for p in (moe.gate_up, moe.down, moe.gate_up_bias, moe.down_bias) if p is not None]
    shared = [] if moe.shared is None else list(moe.shared.parameters())

    def bytes_of(parameters) -> int:
        return sum(p.numel() * p.element_size() for p in parameters)

    meta = {
        "experts": model.config.n_experts,
        "active": model.config.n_active_experts,
        "layer": layer,
        "expert_bytes": bytes_of(experts) // model.config.n_experts,  # of one
        "shared_bytes": bytes_of(shared),  # read by every forward, and not counted in the steps
    }
    words = [[decode([i]) if decode else str(i) for i in step.ids.tolist()] for step in steps]
    return Trace("routing", "labkit.moe.Router", meta, _steps(words, seen, meta))


def _steps(words: list[list[str]], seen: list, meta: dict) -> list[RoutingStep]:
    """A `RoutingStep` for each word of each forward, with what the router chose for it."""
    steps = []
    read = 0  # experts, in the forwards before
    for forward, (tokens, (_, experts, weights)) in enumerate(zip(words, seen, strict=True)):
        load = [0] * meta["experts"]
        for token, chosen, shares in zip(tokens, experts.tolist(), weights.tolist(), strict=True):
            for expert in chosen:
                load[expert] += 1
            touched = sum(map(bool, load))
            steps.append(
                RoutingStep(
                    forward=forward,
                    token=token,
                    experts=chosen,
                    weights=[round(share, 3) for share in shares],
                    load=list(load),
                    touched=touched,
                    read_bytes=(read + touched) * meta["expert_bytes"],
                )
            )
        read += touched
    return steps

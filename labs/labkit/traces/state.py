"""A memory that corrects itself: what the delta rule writes into its matrix at each token, and
beside it the same writes in one that only adds, as plain linear attention does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.traces.trace import Trace


@dataclass(frozen=True)
class StateStep:
    """One token, taken into the memory of one head: a matrix that answers keys with values."""

    token: str
    key: list[float]  # what is asked for and written under, of length 1
    value: list[float]  # what the memory shall answer
    gate: float  # the share of the old memory that is kept
    beta: float  # the share of the error that is repaired
    before: list[float]  # what the faded memory answers to the key
    after: list[float]  # what it answers once it is written
    state: list[list[float]]  # [dk][dv], afterwards
    error: float  # |value - before| / |value|
    left: float  # |value - after| / |value|
    plain: list[list[float]]  # the same writes, only added: the sum of all key beta value^T
    plain_error: float  # as `error` and `left`, of the plain memory
    plain_left: float
    next: str  # the token that the model finds likeliest to come next


class Watched:
    """A state cache that keeps what was last read and written, and otherwise is the cache it wraps.

    `past`: what the convolution goes on from. `old`, `new`: the matrices before and after.
    """

    def __init__(self, cache):
        self.cache = cache
        self.past = self.old = self.new = None

    def read(self, step):
        self.past, self.old = self.cache.read(step)
        return self.past, self.old

    def write(self, step, past, state):
        self.new = state
        self.cache.write(step, past, state)


def record_state(
    model,
    tokens: list[int],
    *,
    layer: int | None = None,
    head: int = 0,
    decode: Callable[[list[int]], str] | None = None,
    digits: int = 3,
) -> Trace:
    """Feed a text token by token to a model with gated delta layers, and record what one head of a
    layer (None = the last that has one) writes into its memory.

    The memory is what the layer's cache was given; key, value, gate and step size are those that
    the layer made of its input. `decode` turns ids into text (default: the numbers), `digits` are
    kept of each number. ValueError for a layer without the rule, and for a head that it lacks.
    """
    import torch

    from labkit.decode import check_prompt
    from labkit.step import Step

    tokens = check_prompt(model.config, tokens)
    layer = _layer(model, layer, head)
    mixer = model.blocks[layer].mixer
    caches = model.caches("static", 1, len(tokens))
    watched = caches[layer] = Watched(caches[layer])
    word = (lambda id: decode([id])) if decode else str
    projected = []
    hook = mixer.qkvzba.register_forward_hook(lambda _, __, out: projected.append(out))
    plain = torch.zeros(mixer.dk, mixer.dv)
    steps = []
    try:
        for position, id in enumerate(tokens):
            with torch.inference_mode():
                logits = model(Step.of([(0, position, [id])], model.device), caches)
                u, _, g, beta = mixer.parts(projected.pop())
                _, k, v, _ = mixer.convolve(u[None], watched.past)
            k, v = k[0, 0, head].cpu(), v[0, 0, head].cpu()
            gate, beta = g[0, head].exp().item(), beta[0, head].item()
            old, new = watched.old[0, head].cpu(), watched.new[0, head].cpu()
            told = k @ plain
            plain = plain + torch.outer(k, beta * v)
            said = {
                "key": k,
                "value": v,
                "gate": gate,
                "beta": beta,
                "before": k @ (gate * old),
                "after": k @ new,
                "state": new,
                "error": _share(v - k @ (gate * old), v),
                "left": _share(v - k @ new, v),
                "plain": plain,
                "plain_error": _share(v - told, v),
                "plain_left": _share(v - k @ plain, v),
            }
            numbers = {name: _rounded(number, digits) for name, number in said.items()}
            steps.append(StateStep(word(id), **numbers, next=word(int(logits[0].argmax()))))
    finally:
        hook.remove()
    meta = {
        "layer": layer,
        "head": head,
        "heads": mixer.Hv,
        # what the layer keeps, whatever the text; and what its keys and values would take in a
        # cache, for each token
        "state_bytes": caches[layer].cache.allocated_bytes,
        "cache_bytes_per_token": (mixer.Hk * mixer.dk + mixer.Hv * mixer.dv) * model.dtype.itemsize,
    }
    return Trace("state", "labkit.mixers.delta.recurrent", meta, steps)


def _layer(model, layer: int | None, head: int) -> int:
    """The layer that is meant. ValueError if there is none, or it has no such head."""
    from labkit.mixers import GatedDeltaNet

    having = [i for i, b in enumerate(model.blocks) if isinstance(b.mixer, GatedDeltaNet)]
    if not having:
        raise ValueError("no layer of this model has a delta rule, so there is no state to record")
    layer = having[-1] if layer is None else layer
    if layer not in having:
        raise ValueError(f"layer {layer} has no delta rule: choose from {having}")
    heads = model.blocks[layer].mixer.Hv
    if not 0 <= head < heads:
        raise ValueError(f"layer {layer} has heads 0 to {heads - 1}, and no head {head}")
    return layer


def _share(error, value) -> float:
    """How long an error is, beside the value that it is an error of."""
    return (error.norm() / value.norm().clamp_min(1e-9)).item()


def _rounded(numbers, digits: int):
    if hasattr(numbers, "tolist"):
        numbers = numbers.tolist()
    if isinstance(numbers, list):
        return [_rounded(n, digits) for n in numbers]
    return round(numbers, digits) + 0.0  # no minus before a zero

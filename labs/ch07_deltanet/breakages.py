"""What can go wrong in a gated DeltaNet, one fault at a time, and which test sees it.

`Layer` is the layer in NumPy as it should be, on the random weights of a torch layer that is its
oracle. Each other class breaks one condition of it, in the few lines that it overrides.
"""

import numpy as np
import torch

from labkit import presets, reference
from labkit.caches import make_cache
from labkit.reference.delta import unit
from labkit.reference.layers import rms_norm, silu
from labkit.step import Step
from labkit_labs.common import faults, layer

# one layer that reads 200 tokens: what fades slowly must have had time to fade
CONFIG = presets["tiny-delta"].replace(n_layers=1, layer_types=("delta",))
TOKENS = 200
CHUNK = 16
PARTS = [50, 51, 52, 130]  # a prompt, one token, one, a chunk, and the rest


class Layer:
    """One gated DeltaNet: x [T,D] and a cache -> (out [T,D], the cache and what is new).

    The cache is what the convolution goes on from, and the state of each value head.
    """

    condition = "all as it should be"
    switch = ""
    config = CONFIG

    def __init__(self):
        self.torch = layer.make(self.config)
        # heads of a trained model forget at speeds of their own; here half of them soon
        with torch.no_grad():
            self.torch.dt_bias += torch.linspace(0, 3, self.config.delta_n_value_heads)
        self.w = {name: w.detach().numpy() for name, w in self.torch.state_dict().items()}

    # -- what a fault overrides ------------------------------------------------------------

    def kept(self, g):
        """Log of the share of the old memory that is kept, at each token."""
        return g

    def repaired(self, beta):
        """The share of the error that is repaired."""
        return beta

    def gated(self, out, z):
        return out * silu(z)

    def length_one(self, k):
        return unit(k)

    def convolve(self, qkv, past):
        return reference.causal_conv(qkv, self.w["conv"], past)

    def token(self, S, q, k, v, g, beta):
        """One token: S [H,K,W] -> (out [H,W], S)."""
        S = S * np.exp(g)[:, None, None]
        S = S + self.written(S, k, v, beta)
        return np.einsum("hk,hkw->hw", q, S), S

    def written(self, S, k, v, beta):
        error = v - np.einsum("hk,hkw->hw", k, S)
        return np.einsum("hk,hw->hkw", k, beta[:, None] * error)

    def passed_on(self, S):
        """The state as one chunk hands it to the next."""
        return S

    # -- the layer -------------------------------------------------------------------------

    def recurrent(self, q, k, v, g, beta, S):
        out = np.empty_like(v)
        for t in range(len(q)):
            out[t], S = self.token(S, q[t], k[t], v[t], g[t], beta[t])
        return out, S

    def chunked(self, q, k, v, g, beta, S):
        outs = []
        for a in range(0, len(q), CHUNK):
            cut = (x[a : a + CHUNK] for x in (q, k, v, g, beta))
            out, S = reference.delta_chunked(*cut, self.passed_on(S), CHUNK)
            outs.append(out)
        return np.concatenate(outs), S

    def forward(self, x, cache=None, way="recurrent"):
        c, w, T = self.config, self.w, len(x)
        Hk, Hv, K, W = (
            c.delta_n_key_heads,
            c.delta_n_value_heads,
            c.delta_key_dim,
            c.delta_value_dim,
        )
        channels = 2 * Hk * K + Hv * W
        past, S = cache or (
            np.zeros((c.delta_conv - 1, channels), x.dtype),
            np.zeros((Hv, K, W), x.dtype),
        )
        qkv, z, b, a = np.split(x @ w["qkvzba.weight"].T, np.cumsum([channels, Hv * W, Hv]), axis=1)
        qkv, past = self.convolve(qkv, past)
        q, k, v = np.split(qkv, [Hk * K, 2 * Hk * K], axis=1)
        q, k = (h.reshape(T, Hk, K) for h in (q, k))
        q, k = (np.repeat(h, Hv // Hk, axis=1) for h in (unit(q), self.length_one(k)))
        g = self.kept(-np.exp(w["A_log"]) * np.logaddexp(0, a + w["dt_bias"]))
        beta = self.repaired(1 / (1 + np.exp(-b)))
        rule = getattr(self, way)
        out, S = rule(q * K**-0.5, k, v.reshape(T, Hv, W), g, beta, S)
        out = self.gated(rms_norm(out, w["norm.weight"], c.norm_eps), z.reshape(T, Hv, W))
        return out.reshape(T, -1) @ w["out.weight"].T, (past, S)

    def oracle(self, x):
        """The same by labkit.mixers.GatedDeltaNet, in torch: no line of it is above."""
        cache = make_cache("static", self.torch, 1, len(x))
        with torch.inference_mode():
            out = self.torch(torch.from_numpy(x), Step.of([(0, 0, [0] * len(x))]), cache)
        return out.numpy()


class NeverFades(Layer):
    condition = "forget gate"
    switch = "off: all is kept, whatever the token says"

    def kept(self, g):
        return 0 * g


class AlwaysAll(Layer):
    condition = "step size"
    switch = "off: every error is repaired in full"

    def repaired(self, beta):
        return beta**0


class NoGate(Layer):
    condition = "output gate"
    switch = "off: all that is read goes out"

    def gated(self, out, z):
        return out


class Adds(Layer):
    condition = "delta rule"
    switch = "off: the value is added, not the error"

    def written(self, S, k, v, beta):
        return np.einsum("hk,hw->hkw", k, beta[:, None] * v)


class LongKeys(Layer):
    condition = "keys of length 1"
    switch = "off: of length 2"

    def length_one(self, k):
        return 2 * unit(k)


class NoConvolution(Layer):
    condition = "convolution"
    switch = "off: each token alone"

    def convolve(self, qkv, past):
        return silu(qkv), past


class StartsAgain(Layer):
    condition = "convolution"
    switch = "its past is not handed to the next step"

    def convolve(self, qkv, past):
        return super().convolve(qkv, 0 * past)


class FadesNew(Layer):
    condition = "order"
    switch = "fades after the write, not before"

    def token(self, S, q, k, v, g, beta):
        S = S + self.written(S, k, v, beta)
        S = S * np.exp(g)[:, None, None]
        return np.einsum("hk,hkw->hw", q, S), S


class ReadsFirst(Layer):
    condition = "order"
    switch = "reads before the write, not after"

    def token(self, S, q, k, v, g, beta):
        out = np.einsum("hk,hkw->hw", q, S)
        return out, super().token(S, q, k, v, g, beta)[1]


class ChunkForgets(Layer):
    condition = "chunks"
    switch = "a chunk begins with an empty state"

    def passed_on(self, S):
        return 0 * S


FAULTS = (
    NeverFades,
    AlwaysAll,
    NoGate,
    Adds,
    LongKeys,
    NoConvolution,
    StartsAgain,
    FadesNew,
    ReadsFirst,
    ChunkForgets,
)


# -- the tests ---------------------------------------------------------------------------


def tokens() -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.standard_normal((TOKENS, CONFIG.d_model)).astype("float32")


def stepped(made: Layer, way="recurrent") -> np.ndarray:
    """A prompt, one token, one, a chunk and the rest, each going on from the cache."""
    cache, parts = None, []
    for part in np.split(tokens(), PARTS):
        out, cache = made.forward(part, cache, way)
        parts.append(out)
    return np.concatenate(parts)


def ways_agree(made: Layer) -> bool:
    """Chunked equals recurrent."""
    chunked, recurrent = (made.forward(tokens(), way=way)[0] for way in ("chunked", "recurrent"))
    return near(chunked, recurrent)


def parts_are_whole(made: Layer) -> bool:
    """In parts equals all at once, token by token."""
    return near(stepped(made), made.forward(tokens())[0])


def first_as_oracle(made: Layer) -> bool:
    """The first token's output equals the oracle's."""
    return near(made.forward(tokens())[0][:1], made.oracle(tokens())[:1])


def all_as_oracle(made: Layer) -> bool:
    """Every token's output equals the oracle's."""
    return near(made.forward(tokens())[0], made.oracle(tokens()))


def near(a, b) -> bool:
    return off(a, b) < 1e-4


def off(a, b) -> float:
    """The largest difference, as a share of the largest number."""
    with np.errstate(invalid="ignore", over="ignore"):
        worst = np.abs(a - b).max() / np.abs(b).max()
    return float(worst)


TESTS = {
    "ways agree": ways_agree,
    "parts = whole": parts_are_whole,
    "token 0 = oracle": first_as_oracle,
    "all = oracle": all_as_oracle,
}


def symptom(made: Layer) -> str:
    """How far the layer is from the oracle, and from which token on."""
    right = made.oracle(tokens())
    ways = {
        "": made.forward(tokens())[0],
        " in parts": stepped(made),
        " in chunks": made.forward(tokens(), way="chunked")[0],
    }
    for how, got in ways.items():
        if not near(got, right):
            first = next(t for t in range(TOKENS) if not near(got[: t + 1], right[: t + 1]))
            return f"{off(got, right):.0%} off from token {first} on{how}"
    return "none"


def bench() -> list[dict]:
    """A row for each fault: what it breaks, how, what one sees, and the tests that fail."""
    return faults.bench([fault() for fault in FAULTS], TESTS, symptom)

"""What can go wrong in a latent layer, one fault at a time, and which test sees it.

`Layer` is MLA in NumPy as it should be, on the random weights of a torch layer that is its oracle.
Each other class breaks one condition of it, in the few lines that it overrides.
"""

import numpy as np
import torch

from labkit import presets, reference
from labkit.caches import make_cache
from labkit.reference.latent import EPS
from labkit.reference.layers import rms_norm, rope
from labkit.step import Step
from labkit_labs.common import faults, layer

# as DeepSeek does with a stretched context, the softmax is sharper than the sizes alone say
SHARPER = 1.6
CONFIG = presets["tiny-mla"].replace(query_scale=SHARPER / (16 + 8) ** 0.5)
TOKENS = 12
WAYS = (reference.absorbed, reference.reprojected)


def adjacent_rope(x, pos, theta):
    """RoPE on the pairs (0, 1), (2, 3), …, where `rope` turns (0, E/2), (1, E/2 + 1), …"""
    E = x.shape[-1]
    order = np.r_[0:E:2, 1:E:2]
    turned = np.empty_like(x)
    turned[..., order] = rope(x[..., order], pos, theta)
    return turned


class Layer:
    """One layer of latent attention: x [T,D] and a cache -> (out [T,D], the cache and what is new).

    The cache is one array [S,C+Er].
    """

    condition = "all as it should be"
    switch = ""
    config = CONFIG

    def __init__(self):
        self.torch = layer.make(self.config)
        self.w = {name: w.detach().numpy() for name, w in self.torch.state_dict().items()}

    # -- what a fault overrides ------------------------------------------------------------

    def norm(self, latent):
        return rms_norm(latent, self.w["kv_norm.weight"], EPS)

    def first(self, cache) -> int:
        """The position of the first new token."""
        return len(cache)

    def rotate(self, x, pos, way):
        return rope(x, pos, self.config.rope_theta)

    def gain(self, way) -> float:
        """What scores are multiplied with, beside 1 / sqrt(En + Er)."""
        return SHARPER

    def up(self):
        """[H,En+Ev,C]: a head's keys come first, then its values."""
        return self.w["kv_up"]

    def parts(self, cache, way):
        """Latents [S,C] and rotated keys [S,Er] of what is cached."""
        return np.split(cache, [self.config.kv_lora_rank], axis=1)

    # -- the layer -------------------------------------------------------------------------

    def forward(self, x, cache=None, way=reference.absorbed):
        c, w = self.config, self.w
        C, Er = c.kv_lora_rank, c.qk_rope_head_dim
        if cache is None:
            cache = np.empty((0, C + Er), x.dtype)
        pos = self.first(cache) + np.arange(len(x))
        q, new, k = np.split(x @ w["down.weight"].T, [-(C + Er), -Er], axis=1)
        q = q.reshape(len(x), c.n_heads, -1)
        q, q_rope = np.split(q, [c.qk_nope_head_dim], axis=2)
        k = self.rotate(k[:, None], pos, way)[:, 0]
        cache = np.concatenate([cache, np.concatenate([self.norm(new), k], axis=1)])
        latent, k_rope = self.parts(cache, way)
        gain = self.gain(way)
        S = len(cache)
        where = np.arange(S - len(x), S), np.arange(S)
        turned = self.rotate(q_rope, pos, way)
        out = way(q * gain, turned * gain, latent, k_rope, self.up(), *where)
        return out.reshape(len(x), -1) @ w["out.weight"].T, cache

    def oracle(self, x):
        """The same by labkit.mixers.MLA, in torch, which shares no line with the above."""
        cache = make_cache("static", self.torch, 1, len(x))
        with torch.inference_mode():
            out = self.torch(torch.from_numpy(x), Step.of([(0, 0, [0] * len(x))]), cache)
        return out.numpy()


class Scale(Layer):
    condition = "scale"
    switch = "absorbed scores over √(C + Er), its keys' length"

    def gain(self, way):
        c = self.config
        heads = c.qk_nope_head_dim + c.qk_rope_head_dim
        latents = c.kv_lora_rank + c.qk_rope_head_dim
        return SHARPER * ((heads / latents) ** 0.5 if way is reference.absorbed else 1)


class Blunt(Layer):
    condition = "scale"
    switch = "YaRN’s factor forgotten, both ways"

    def gain(self, way):
        return 1.0


class OnePairing(Layer):
    condition = "RoPE’s pairs"
    switch = "neighbours turned when absorbed, halves when not"

    def rotate(self, x, pos, way):
        turn = adjacent_rope if way is reference.absorbed else rope
        return turn(x, pos, self.config.rope_theta)


class BothPairings(Layer):
    condition = "RoPE’s pairs"
    switch = "neighbours turned, both ways"

    def rotate(self, x, pos, way):
        return adjacent_rope(x, pos, self.config.rope_theta)


class Restarts(Layer):
    condition = "positions"
    switch = "each step counts from 0 again"

    def first(self, cache):
        return 0


class Order(Layer):
    condition = "order of the parts"
    switch = "absorbed reads the rotated key first"

    def parts(self, cache, way):
        if way is not reference.absorbed:
            return super().parts(cache, way)
        k_rope, latent = np.split(cache, [self.config.qk_rope_head_dim], axis=1)
        return latent, k_rope


class ValuesFirst(Layer):
    condition = "order of the parts"
    switch = "up-projection read as values, then keys"

    def up(self):
        keys, values = np.split(self.w["kv_up"], [self.config.qk_nope_head_dim], axis=1)
        return np.concatenate([values, keys], axis=1)


class NoNorm(Layer):
    condition = "norm"
    switch = "latents cached without it"

    def norm(self, latent):
        return latent


FAULTS = (Scale, Blunt, OnePairing, BothPairings, Restarts, Order, ValuesFirst, NoNorm)


# -- the tests ---------------------------------------------------------------------------


def tokens() -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.standard_normal((TOKENS, CONFIG.d_model)).astype("float32")


def stepped(made: Layer) -> np.ndarray:
    """A prompt, then one, one, two and three tokens, through the cache."""
    cache, parts = None, []
    for part in np.split(tokens(), [5, 6, 7, 9]):
        out, cache = made.forward(part, cache)
        parts.append(out)
    return np.concatenate(parts)


def ways_agree(made: Layer) -> bool:
    """Absorbed equals re-projected."""
    absorbed, reprojected = (made.forward(tokens(), way=way)[0] for way in WAYS)
    return near(absorbed, reprojected)


def cached_is_whole(made: Layer) -> bool:
    """A prompt, then token by token, equals all at once."""
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
    return float(np.abs(a - b).max() / np.abs(b).max())


TESTS = {
    "ways agree": ways_agree,
    "cached = whole": cached_is_whole,
    "token 0 = oracle": first_as_oracle,
    "all = oracle": all_as_oracle,
}


def symptom(made: Layer) -> str:
    """How far the absorbed way is from the oracle, and from which token on."""
    right = made.oracle(tokens())
    whole = made.forward(tokens())[0]
    how, got = ("", whole) if not near(whole, right) else (" in decode", stepped(made))
    wrong = [t for t in range(TOKENS) if not near(got[: t + 1], right[: t + 1])]
    return f"{off(got, right):.0%} off from token {wrong[0]} on{how}" if wrong else "none"


def bench() -> list[dict]:
    """A row for each fault: what it breaks, how, what one sees, and the tests that fail."""
    return faults.bench([fault() for fault in FAULTS], TESTS, symptom)

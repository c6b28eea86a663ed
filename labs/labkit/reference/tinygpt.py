"""A whole language model in NumPy: the Llama layout with multi-head or
grouped-query attention.
"""

import numpy as np

from labkit.reference.attention import attention
from labkit.reference.layers import rms_norm, rope, swiglu


class Cache:
    """The keys and values of the tokens seen so far, for every layer.

    It belongs to one request, and is passed in and out.
    """

    def __init__(self, n_layers):
        self.keys: list = [None] * n_layers
        self.values: list = [None] * n_layers

    @property
    def length(self):
        return 0 if self.keys[-1] is None else len(self.keys[-1])

    def append(self, layer, k, v):
        """Add k, v [T,G,E] of new tokens; return all of the layer's keys and
        values.

        It grows by copying: simple, and O(S) a step.
        """
        if self.keys[layer] is not None:
            k = np.concatenate([self.keys[layer], k])
            v = np.concatenate([self.values[layer], v])
        self.keys[layer], self.values[layer] = k, v
        return k, v


class TinyGPT:
    """A decoder-only transformer.

    `weights` is a dict under labkit.GPT's parameter names, or None for random
    ones.
    """

    def __init__(self, config, weights=None, seed=0):
        self.config = config
        self.weights = weights or random_weights(config, seed)

    @classmethod
    def of(cls, model):
        """The NumPy twin of a torch labkit.GPT."""
        return cls(
            model.config,
            {
                name: w.detach().float().numpy()
                for name, w in model.state_dict().items()
            },
        )

    def forward(self, ids, cache=None, start=None):
        """Logits [T,V] for T new tokens.

        With a cache they follow what it holds, and are added to it. start:
        the first one's position, by default how many the cache holds.
        """
        c, w = self.config, self.weights
        if start is None:
            start = cache.length if cache else 0
        pos = np.arange(start, start + len(ids))
        x = w["embed.weight"][np.asarray(ids)]  # [T,D]
        if c.position == "learned":
            x = x + w["positions.weight"][pos]
        for i in range(c.n_layers):
            layer = {
                name.split(".", 2)[2]: a
                for name, a in w.items()
                if name.startswith(f"blocks.{i}.")
            }
            x = x + self.attend(
                rms_norm(x, layer["norm1.weight"], c.norm_eps),
                layer,
                i,
                pos,
                cache,
            )
            x = x + swiglu(
                rms_norm(x, layer["norm2.weight"], c.norm_eps),
                layer["ffn.gate_up.weight"],
                layer["ffn.down.weight"],
            )
        return rms_norm(x, w["norm.weight"], c.norm_eps) @ w["head.weight"].T

    def attend(self, x, layer, i, pos, cache):
        """x [T,D] -> [T,D]: the new tokens' queries over all keys so far, old
        ones from the cache.
        """
        c, T = self.config, len(x)
        H, G, E = c.n_heads, c.n_kv_heads, c.head_dim
        qkv = (x @ layer["mixer.qkv.weight"].T).reshape(T, H + 2 * G, E)
        q, k, v = np.split(qkv, [H, H + G], axis=1)
        if c.position == "rope":
            q, k = rope(q, pos, c.rope_theta), rope(k, pos, c.rope_theta)
        if cache is not None:
            k, v = cache.append(i, k, v)
        out = self.look(q, k, v, pos)
        return out.reshape(T, H * E) @ layer["mixer.out.weight"].T

    def look(self, q, k, v, pos):
        """The new queries, at `pos`, look at all keys: those of the cache
        stand right before the new ones.
        """
        kpos = np.arange(pos[-1] + 1 - len(k), pos[-1] + 1)
        # the mask's rows are the new queries only
        return attention(q, k, v, pos, kpos)


def random_weights(config, seed=0):
    """Gaussian matrices of a size that keeps activations near 1, from a fixed
    seed.
    """
    c, draw = config, np.random.default_rng(seed)
    matrix = lambda rows, columns: (
        draw.standard_normal((rows, columns)) * columns**-0.5 * 1.5
    ).astype(np.float32)
    w = {
        "embed.weight": draw.standard_normal(
            (c.vocab_size, c.d_model)
        ).astype(np.float32),
        "norm.weight": np.ones(c.d_model, np.float32),
    }
    if c.position == "learned":
        table = draw.standard_normal((c.max_context, c.d_model))
        w["positions.weight"] = table.astype(np.float32)
    for i in range(c.n_layers):
        w |= {
            f"blocks.{i}.norm1.weight": np.ones(c.d_model, np.float32),
            f"blocks.{i}.norm2.weight": np.ones(c.d_model, np.float32),
            f"blocks.{i}.mixer.qkv.weight": matrix(
                (c.n_heads + 2 * c.n_kv_heads) * c.head_dim, c.d_model
            ),
            f"blocks.{i}.mixer.out.weight": matrix(
                c.d_model, c.n_heads * c.head_dim
            ),
            f"blocks.{i}.ffn.gate_up.weight": matrix(2 * c.d_ff, c.d_model),
            f"blocks.{i}.ffn.down.weight": matrix(c.d_model, c.d_ff),
        }
    return w | {
        "head.weight": w["embed.weight"]
        if c.tie_embeddings
        else matrix(c.vocab_size, c.d_model)
    }

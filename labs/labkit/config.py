"""What a model is made of: explicit sizes, one layer type per layer, and the published models by name.

No size is inferred from another. `head_dim` in particular is *not* `d_model / n_heads`: in Qwen3-0.6B it is 128, not 64,
and a calculator that divides gets the cache wrong by half.
"""
from __future__ import annotations

import difflib
from dataclasses import KW_ONLY, dataclass, field, replace

LAYER_TYPES = ("full", "sliding")


class UnknownName(KeyError, ValueError):
    """A preset, lab or formula that does not exist; the message names the nearest one that does."""

    def __init__(self, kind: str, name: str, known):
        near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)
        self.message = f"no {kind} is called {name!r}; did you mean {near[0]!r}?" if near else f"no {kind} is called {name!r}"
        super().__init__(self.message)

    def __str__(self):
        return self.message


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a decoder-only transformer. The defaults describe a Llama: RMSNorm, SwiGLU, RoPE, no biases.

    Sizes are in elements. `d_model` D, `n_heads` H, `n_kv_heads` G, `head_dim` E, `d_ff` F, `vocab_size` V.
    Raises ValueError, in one sentence, for sizes that cannot be built.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    max_context: int
    _: KW_ONLY
    layer_types: tuple[str, ...] | None = None  # "full" or "sliding" per layer; None = all full
    window: int | None = None  # tokens a sliding layer sees, itself included
    tie_embeddings: bool = False  # one matrix is both embedding and head
    rope_theta: float = 10000.0
    rope_scaling: dict | None = field(default=None, hash=False)  # Llama-3's rule, {"rope_type": "llama3", ...}
    norm_eps: float = 1e-5
    eos: int | tuple[int, ...] | None = None
    position: str = "rope"  # "rope" | "learned" (GPT-2: one vector per position, added once)
    norm: str = "rms"  # "rms" | "layer" (GPT-2)
    ffn: str = "swiglu"  # "swiglu" | "gelu" (GPT-2)
    bias: bool = False  # a bias on every projection (GPT-2)
    qk_norm: bool = False  # RMSNorm on each query and key head (Qwen3)

    def __post_init__(self):
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "max_context"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise ValueError(f"{name} must be a whole number >= 1, not {getattr(self, name)!r}")
        H, G = self.n_heads, self.n_kv_heads
        if H % G:
            raise ValueError(f"{H} query heads can't share {G} key/value heads: {H} % {G} = {H % G}")
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(f"RoPE rotates pairs, so head_dim must be even, not {self.head_dim}")
        if len(self.types) != self.n_layers:
            raise ValueError(f"layer_types names {len(self.types)} layers, but n_layers is {self.n_layers}")
        for t in self.types:
            if t not in LAYER_TYPES:
                raise UnknownName("layer type", t, LAYER_TYPES)
        if "sliding" in self.types and (self.window is None or self.window < 1):
            raise ValueError(f"a sliding layer needs a window of at least 1 token, not {self.window}")

    @property
    def types(self) -> tuple[str, ...]:
        """The type of each layer, spelled out."""
        return tuple(self.layer_types or ("full",) * self.n_layers)

    @property
    def stop(self) -> tuple[int, ...]:
        """Token ids that end a reply."""
        return () if self.eos is None else (self.eos,) if isinstance(self.eos, int) else tuple(self.eos)

    def window_of(self, layer: int) -> int | None:
        """Tokens that layer `layer` may look back on, itself included; None = all."""
        return self.window if self.types[layer] == "sliding" else None

    def replace(self, **changes) -> ModelConfig:
        """A copy with some sizes changed, checked again."""
        return replace(self, **changes)


class Presets(dict):
    """Published models by name; an unknown name is answered with the nearest known one."""

    def __missing__(self, name):
        raise UnknownName("preset", name, self)


LLAMA3_ROPE = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}

presets = Presets({
    # sizes from each model's published config.json                 V       D   L   H   G    E      F  context
    "gpt2-124m": ModelConfig(50257, 768, 12, 12, 12, 64, 3072, 1024, tie_embeddings=True, eos=50256,
                             position="learned", norm="layer", ffn="gelu", bias=True),
    "smollm2-135m": ModelConfig(49152, 576, 30, 9, 3, 64, 1536, 8192, tie_embeddings=True, rope_theta=1e5, eos=2),
    "llama3.2-1b": ModelConfig(128256, 2048, 16, 32, 8, 64, 8192, 131072, tie_embeddings=True, rope_theta=5e5,
                               rope_scaling=LLAMA3_ROPE, eos=(128001, 128008, 128009)),
    "llama3-8b": ModelConfig(128256, 4096, 32, 32, 8, 128, 14336, 8192, rope_theta=5e5, eos=(128001, 128009)),
    "llama3-70b": ModelConfig(128256, 8192, 80, 64, 8, 128, 28672, 8192, rope_theta=5e5, eos=(128001, 128009)),
    "mistral-7b-v0.1": ModelConfig(32000, 4096, 32, 32, 8, 128, 14336, 32768, layer_types=("sliding",) * 32, window=4096, eos=2),
    "qwen3-0.6b": ModelConfig(151936, 1024, 28, 16, 8, 128, 3072, 40960, tie_embeddings=True, rope_theta=1e6,
                              norm_eps=1e-6, qk_norm=True, eos=(151645, 151643)),
    # ours: small enough to run in NumPy and in tests, with random weights from a fixed seed
    "tiny": ModelConfig(256, 64, 4, 4, 2, 16, 160, 512),
    "tiny-gpt2": ModelConfig(256, 64, 4, 4, 4, 16, 256, 512, tie_embeddings=True, position="learned", norm="layer", ffn="gelu", bias=True),
})

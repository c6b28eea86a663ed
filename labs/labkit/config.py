"""What a model is made of: explicit sizes, and one layer type per layer.

The published models are in `published`.

No size is inferred from another. `head_dim` in particular is *not* `d_model / n_heads`: in
Qwen3-0.6B it is 128, not 64, and a calculator that divides gets the cache wrong by half.
"""

from __future__ import annotations

import difflib
from dataclasses import KW_ONLY, dataclass, field, replace

LAYER_TYPES = ("full", "sliding", "mla", "delta")
CHOICES = {
    "position": ("rope", "learned"),
    "norm": ("rms", "layer"),
    "ffn": ("swiglu", "geglu", "gelu", "swiglu_clamped"),
    "router": ("softmax", "sigmoid"),
}
LISTED = 24  # names of what there is that fit into one sentence
ROPE_SCALINGS = {  # and what each needs
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "linear": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
}


class UnknownName(KeyError, ValueError):
    """A preset, lab or formula that does not exist; the message names the one that is near, if one
    is, or else those there are.
    """

    def __init__(self, kind: str, name: str, known):
        known = [str(one) for one in known]
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.65)
        many = "" if len(known) <= LISTED else f" and {len(known) - LISTED} more"
        if near:
            hint = f"did you mean {near[0]!r}?"
        else:
            hint = f"choose from {', '.join(known[:LISTED])}{many}"
        self.message = f"no {kind} is called {name!r}; {hint}"
        super().__init__(self.message)

    def __str__(self):
        return self.message


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a decoder-only transformer.

    The defaults describe a Llama: RMSNorm, SwiGLU, RoPE, no biases.

    Sizes are in elements. `d_model` D, `n_heads` H, `n_kv_heads` G, `head_dim` E, `d_ff` F,
    `vocab_size` V, `n_experts` X, `n_active_experts` A, `kv_lora_rank` C. A size that no layer uses
    is 0 (`d_ff` where every layer has experts). Raises ValueError, in one sentence, for sizes that
    cannot be built.
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
    # "full", "sliding", "mla" or "delta" per layer; None = all full
    layer_types: tuple[str, ...] | None = None
    window: int | None = None  # tokens a sliding layer sees, itself included
    tie_embeddings: bool = False  # one matrix is both embedding and head
    norm_eps: float = 1e-5
    eos: int | tuple[int, ...] | None = None
    # positions
    position: str = "rope"  # "rope" | "learned" (GPT-2: one vector per position, added once)
    rope_theta: float = 10000.0
    # sliding layers rotate by this base, unscaled (Gemma 3); None = like the others
    rope_local_theta: float | None = None
    # {"rope_type": "llama3" | "linear" | "yarn", "factor": ...}
    rope_scaling: dict | None = field(default=None, hash=False)
    partial_rotary: float = 1.0  # share of each head that is rotated (Qwen3-Next: 1/4)
    # the shell
    norm: str = "rms"  # "rms" | "layer" (GPT-2)
    post_norms: bool = False  # a norm after mixer and FFN too, before they are added (Gemma)
    embed_scale: float = 1.0  # Gemma: sqrt(D)
    ffn: str = "swiglu"  # "swiglu" | "geglu" (Gemma) | "gelu" (GPT-2) | "swiglu_clamped" (gpt-oss)
    bias: bool = False  # a bias on every projection (GPT-2)
    # attention
    attention_bias: bool = False  # a bias on q, k, v and output (gpt-oss)
    qk_norm: bool = False  # RMSNorm on each query and key head (Qwen3, Gemma 3)
    # scores are multiplied by it; None = 1 / sqrt(size of a query head)
    query_scale: float | None = None
    output_gate: bool = False  # each head's output times a sigmoid of x (Qwen3-Next)
    sinks: bool = False  # one learned logit per head that takes weight and gives nothing (gpt-oss)
    # MLA (DeepSeek-V2): a head of qk_nope + qk_rope dimensions for scores, v for values
    q_lora_rank: int | None = None  # None = queries of full rank
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    # mixture of experts
    n_experts: int = 0  # 0 = dense
    n_active_experts: int = 0
    n_shared_experts: int = 0  # always on; together one FFN of n_shared_experts * d_expert
    d_expert: int = 0
    n_dense_layers: int = 0  # first layers without experts
    router: str = "softmax"  # "softmax" | "sigmoid" (DeepSeek-V3)
    router_bias: bool = False  # a per-expert correction for choosing only (DeepSeek-V3)
    renormalise: bool = True  # the chosen weights sum to 1
    routed_scale: float = 1.0  # then times this
    n_expert_groups: int = 1  # experts are chosen from the best groups only (DeepSeek-V3)
    n_active_groups: int = 1
    expert_bias: bool = False  # a bias on router and experts (gpt-oss)
    shared_gate: bool = False  # the shared expert times a sigmoid of x (Qwen3-Next)
    # gated delta rule
    delta_n_key_heads: int = 0
    delta_n_value_heads: int = 0
    delta_key_dim: int = 0
    delta_value_dim: int = 0
    delta_conv: int = 4  # tokens that the short convolution sees, itself included

    def __post_init__(self):
        if self.layer_types is not None:
            # a list would not hash
            object.__setattr__(self, "layer_types", tuple(self.layer_types))
        check(self)
        if self.rope_scaling:
            _check_scaling(self.rope_scaling)

    @property
    def types(self) -> tuple[str, ...]:
        """The type of each layer, spelled out."""
        return ("full",) * self.n_layers if self.layer_types is None else tuple(self.layer_types)

    @property
    def stop(self) -> tuple[int, ...]:
        """Token ids that end a reply."""
        return (
            ()
            if self.eos is None
            else (self.eos,)
            if isinstance(self.eos, int)
            else tuple(self.eos)
        )

    @property
    def rope_dim(self) -> int:
        """Elements of each attention head that are rotated."""
        return int(self.head_dim * self.partial_rotary) if self.position == "rope" else 0

    def window_of(self, layer: int) -> int | None:
        """Tokens that layer `layer` may look back on, itself included; None = all."""
        return self.window if self.types[layer] == "sliding" else None

    def has_experts(self, layer: int) -> bool:
        return self.n_experts > 0 and layer >= self.n_dense_layers

    def rope_of(self, layer: int) -> tuple[float, dict | None]:
        """Base and scaling by which layer `layer` rotates."""
        if self.types[layer] == "sliding" and self.rope_local_theta is not None:
            return self.rope_local_theta, None
        return self.rope_theta, self.rope_scaling

    def replace(self, **changes) -> ModelConfig:
        """A copy with some sizes changed, checked again."""
        return replace(self, **changes)


def check(c: ModelConfig) -> None:
    """ValueError, in one sentence, for sizes that cannot be built. The browser runs it too."""
    for name, known in CHOICES.items():
        if getattr(c, name) not in known:
            raise UnknownName(name, getattr(c, name), known)
    _whole(c, "vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "max_context")
    if len(c.types) != c.n_layers:
        raise ValueError(f"layer_types names {len(c.types)} layers, but n_layers is {c.n_layers}")
    for kind in c.types:
        if kind not in LAYER_TYPES:
            raise UnknownName("layer type", kind, LAYER_TYPES)
    if not is_whole(c.n_dense_layers, 0) or c.n_dense_layers > c.n_layers:
        raise ValueError(f"n_dense_layers must be 0 to {c.n_layers}, not {c.n_dense_layers!r}")
    if c.n_experts == 0 or c.n_dense_layers > 0:
        _whole(c, "d_ff")
    if "full" in c.types or "sliding" in c.types:
        _check_attention(c)
    if "mla" in c.types:
        _check_mla(c)
    if "delta" in c.types:
        _whole(c, "delta_n_key_heads", "delta_n_value_heads", "delta_key_dim", "delta_value_dim")
        _whole(c, "delta_conv")
        _share(c.delta_n_value_heads, "delta value", c.delta_n_key_heads, "key")
    if c.n_experts != 0:
        _check_experts(c)


def is_whole(value, least: int = 1) -> bool:
    """A whole number from `least` up; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def whole(**numbers) -> None:
    """ValueError that names the first which is not a whole number >= 1."""
    for name, value in numbers.items():
        if not is_whole(value):
            raise ValueError(f"{name} must be a whole number >= 1, not {value!r}")


def _whole(c: ModelConfig, *names: str) -> None:
    for name in names:
        if not is_whole(getattr(c, name)):
            raise ValueError(f"{name} must be a whole number >= 1, not {getattr(c, name)!r}")


def _share(many: int, what: str, few: int, shared: str) -> None:
    if many % few != 0:
        raise ValueError(
            f"{many} {what} heads can't share {few} {shared} heads: {many} % {few} = {many % few}"
        )


def _check_attention(c: ModelConfig) -> None:
    _whole(c, "head_dim")
    _share(c.n_heads, "query", c.n_kv_heads, "key/value")
    if c.position == "rope" and (c.rope_dim % 2 != 0 or not 0 < c.rope_dim <= c.head_dim):
        raise ValueError(
            f"RoPE rotates pairs, so head_dim must be even, not {c.rope_dim}"
            if c.partial_rotary == 1
            else (
                f"RoPE rotates pairs within a head of {c.head_dim}: partial_rotary ="
                f" {c.partial_rotary} makes {c.rope_dim}"
            )
        )
    if ("sliding" in c.types or c.window is not None) and not is_whole(c.window):
        raise ValueError(f"a sliding layer needs a window of at least 1 token, not {c.window!r}")


def _check_mla(c: ModelConfig) -> None:
    _whole(c, "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    if c.q_lora_rank is not None:
        _whole(c, "q_lora_rank")
    if c.qk_rope_head_dim % 2 != 0:
        raise ValueError(
            f"RoPE rotates pairs, so qk_rope_head_dim must be even, not {c.qk_rope_head_dim}"
        )
    if c.position != "rope":
        raise ValueError(
            "an MLA layer carries positions in its rotated dimensions: position must be 'rope',"
            f" not {c.position!r}"
        )


def _check_experts(c: ModelConfig) -> None:
    _whole(c, "n_experts", "n_active_experts", "d_expert", "n_expert_groups", "n_active_groups")
    if c.n_active_experts > c.n_experts:
        raise ValueError(
            f"a token can't use {c.n_active_experts} of {c.n_experts} experts: n_active_experts"
            " must be <= n_experts"
        )
    if c.n_experts % c.n_expert_groups != 0 or c.n_active_groups > c.n_expert_groups:
        raise ValueError(
            f"{c.n_experts} experts can't form {c.n_expert_groups} equal groups of which"
            f" {c.n_active_groups} are active"
        )
    if c.n_active_experts > c.n_active_groups * (c.n_experts // c.n_expert_groups):
        raise ValueError(
            f"{c.n_active_groups} active groups of {c.n_experts // c.n_expert_groups} experts can't"
            f" offer {c.n_active_experts}"
        )
    if c.ffn == "gelu":
        raise ValueError(
            "experts are gated: ffn must be 'swiglu', 'geglu' or 'swiglu_clamped', not 'gelu'"
        )


def _check_scaling(scaling: dict) -> None:
    kind = isinstance(scaling, dict) and scaling.get("rope_type")
    if kind not in [*ROPE_SCALINGS]:
        raise ValueError(
            f"RoPE scaling is a dict whose rope_type is one of {', '.join(ROPE_SCALINGS)}, not"
            f" {scaling!r}"
        )
    if missing := [name for name in ROPE_SCALINGS[kind] if scaling.get(name) is None]:
        raise ValueError(f"RoPE scaling {kind!r} lacks {', '.join(missing)}")

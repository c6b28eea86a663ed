"""What a model holds, part by part: the one inventory that parameters, FLOPs and bytes read are
summed from.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.config import ModelConfig
from labkit.formulas import symbols as f


@dataclass(frozen=True)
class Part:
    """One kind of weights, summed over the layers that hold it, in elements.

    `matrices` are multiplied with every token that meets them; `vectors` are not (norms, biases,
    tables one looks a row up in).
    """

    layers: int = 0
    matrices: int = 0
    vectors: int = 0

    @property
    def elements(self) -> int:
        return self.matrices + self.vectors


def parts(config: ModelConfig) -> dict[str, Part]:
    """name -> Part, in the order a token meets them.

    A tied matrix stands once, as "embedding and head".
    """
    c, table = config, config.vocab_size * config.d_model
    held = [("embedding and head", table, 0) if c.tie_embeddings else ("embedding", 0, table)]
    if c.position == "learned":
        held.append(("positions", 0, c.max_context * c.d_model))
    for i, kind in enumerate(c.types):
        held.extend([_mixer(c, kind), *_ffn(c, c.has_experts(i))])
    norm = c.d_model * (2 if c.norm == "layer" else 1)
    held.extend([("norms", 0, norm * (4 if c.post_norms else 2))] * c.n_layers)
    held.append(("norms", 0, norm))
    if not c.tie_embeddings:
        held.append(("head", table, 0))
    total = {}
    for name, matrices, vectors in held:
        p = total.get(name, Part())
        total[name] = Part(p.layers + 1, p.matrices + matrices, p.vectors + vectors)
    total["norms"] = Part(c.n_layers, 0, total["norms"].vectors)
    return total


def _mixer(c: ModelConfig, kind: str) -> tuple[str, int, int]:
    """(name, matrices, vectors) of one layer's mixer."""
    D, H = c.d_model, c.n_heads
    if kind == "mla":
        C_q, E_n, E_r = c.q_lora_rank or 0, c.qk_nope_head_dim, c.qk_rope_head_dim
        full_rank = 0 if C_q else D * H * (E_n + E_r)  # one matrix makes the queries
        return (
            "latent attention",
            f.mla_weights(D, H, c.kv_lora_rank, C_q, E_n, E_r, c.v_head_dim) + full_rank,
            c.kv_lora_rank + C_q,
        )
    if kind == "delta":
        sizes = c.delta_n_key_heads, c.delta_n_value_heads, c.delta_key_dim, c.delta_value_dim
        return (
            "delta rule",
            f.delta_weights(D, *sizes, c.delta_conv),
            2 * c.delta_n_value_heads + c.delta_value_dim,
        )
    G, E = c.n_kv_heads, c.head_dim
    matrices = f.attention_weights(D, H, G, E) + (D * H * E if c.output_gate else 0)
    biases = (H + 2 * G) * E + D if c.bias or c.attention_bias else 0
    return "attention", matrices, biases + (2 * E if c.qk_norm else 0) + (H if c.sinks else 0)


def _ffn(c: ModelConfig, experts: bool) -> list[tuple[str, int, int]]:
    """[(name, matrices, vectors), …] of one layer's feed-forward part."""
    D, F, X = c.d_model, c.d_expert, c.n_experts
    if not experts:
        gated = c.ffn != "gelu"
        matrices = f.swiglu_weights(D, c.d_ff) if gated else f.gelu_weights(D, c.d_ff)
        return [("dense FFN", matrices, (c.d_ff * (2 if gated else 1) + D) if c.bias else 0)]
    # a bias for choosing only is a statistic, not a parameter
    held = [
        ("router", D * X, X if c.expert_bias else 0),
        ("routed experts", X * f.swiglu_weights(D, F), X * (2 * F + D) if c.expert_bias else 0),
    ]
    if c.n_shared_experts:
        held.append(
            (
                "shared experts",
                f.swiglu_weights(D, c.n_shared_experts * F) + (D if c.shared_gate else 0),
                0,
            )
        )
    return held

"""What a model costs, by arithmetic alone: parameters, FLOPs, bytes, cache, roofline.

Each formula stands once. `symbols` holds those of a model and `serving` those of drafts, bills,
links and fleets, in the course's alphabet, from which Python values, the page's LaTeX (`latex`),
the widgets and the browser's JavaScript (`javascript`) all come; the functions of `costs` sum them
over a model's layers. Any context is accepted, also one the model was not trained for. Units:
elements, FLOPs (2 per multiply-add), bytes, seconds, dollars.
"""

from labkit.formulas.costs import (  # isort: skip
    BITS,
    activation_bytes,
    active_parameters,
    attention_flops,
    bytes_of,
    cache_parts,
    decode_bytes,
    decode_flops,
    kv_cache_bytes,
    kv_cache_reserved_bytes,
    loop_flops,
    parameters,
    prefill_flops,
    read_parts,
    weight_bytes,
)
from labkit.formulas.parts import Part, parts
from labkit.formulas.roofline import Hardware, intensity, roofline_seconds
from labkit.formulas.serving import (
    agent_bill,
    agent_tokens,
    agent_tokens_reused,
    all_right,
    dollars_per_million,
    expert_parallel_bytes,
    format_bits,
    gpus_needed,
    pipeline_bubble,
    pipeline_parallel_bytes,
    prompt_bill,
    rate_distortion,
    receptive_field,
    speculation_speedup,
    tensor_parallel_bytes,
    tokens_per_check,
    transfer_seconds,
)
from labkit.formulas.symbols import experts_read
from labkit.formulas.typeset import latex

__all__ = [
    "BITS",
    "Hardware",
    "Part",
    "activation_bytes",
    "active_parameters",
    "agent_bill",
    "agent_tokens",
    "agent_tokens_reused",
    "all_right",
    "attention_flops",
    "bytes_of",
    "cache_parts",
    "decode_bytes",
    "decode_flops",
    "dollars_per_million",
    "expert_parallel_bytes",
    "experts_read",
    "format_bits",
    "gpus_needed",
    "intensity",
    "kv_cache_bytes",
    "kv_cache_reserved_bytes",
    "latex",
    "loop_flops",
    "parameters",
    "parts",
    "pipeline_bubble",
    "pipeline_parallel_bytes",
    "prefill_flops",
    "prompt_bill",
    "rate_distortion",
    "read_parts",
    "receptive_field",
    "roofline_seconds",
    "speculation_speedup",
    "tensor_parallel_bytes",
    "tokens_per_check",
    "transfer_seconds",
    "weight_bytes",
]

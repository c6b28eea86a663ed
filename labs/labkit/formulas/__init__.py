"""What a model costs, by arithmetic alone: parameters, FLOPs, bytes, cache, roofline.

Each formula stands once. `symbols` holds them in the course's alphabet, from which Python values,
the page's LaTeX (`latex`) and the widgets all come; the functions here sum them over a model's
layers. Any context is accepted, also one the model was not trained for. Units: elements, FLOPs (2
per multiply-add), bytes, seconds.
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
    loop_flops,
    parameters,
    prefill_flops,
    read_parts,
    weight_bytes,
)
from labkit.formulas.parts import Part, parts
from labkit.formulas.roofline import Hardware, intensity, roofline_seconds
from labkit.formulas.symbols import experts_read, latex

__all__ = [
    "BITS",
    "Hardware",
    "Part",
    "activation_bytes",
    "active_parameters",
    "attention_flops",
    "bytes_of",
    "cache_parts",
    "decode_bytes",
    "decode_flops",
    "experts_read",
    "intensity",
    "kv_cache_bytes",
    "latex",
    "loop_flops",
    "parameters",
    "parts",
    "prefill_flops",
    "read_parts",
    "roofline_seconds",
    "weight_bytes",
]

"""The course's models in NumPy, short enough to read in one sitting.

Nothing here is fast; everything here is the oracle.

Read in this order: `layers` (what a token does alone), `attention` (how
tokens see each other, and online softmax), `tinygpt` (the whole model, with
and without a cache), `decoding` (the two loops, and the logger that shows the
waste). Then what can be swapped in: `latent` (MLA), `delta` (a memory that
never grows), `experts` (a router and its experts). Apart from those:
`quantisers` (scale and zero point) and `formats` (FP8, NF4, MXFP4, NVFP4 as
lists of values).
"""

from labkit.reference.attention import (
    absorb,
    attention,
    may_look,
    merge,
    nothing_yet,
    online_attention,
    split_decode,
    tile_scores,
)
from labkit.reference.decoding import (
    cached_loop,
    key_fingerprints,
    naive_loop,
)
from labkit.reference.delta import (
    causal_conv,
    delta_chunked,
    delta_recurrent,
    gated_delta_net,
)
from labkit.reference.experts import expert_load, moe, route
from labkit.reference.formats import FORMATS, Format, nearest
from labkit.reference.latent import absorbed, mla, reprojected
from labkit.reference.layers import rms_norm, rope, silu, softmax, swiglu
from labkit.reference.quantisers import (
    Quantised,
    errors,
    int8_linear,
    quantise,
)
from labkit.reference.tinygpt import Cache, TinyGPT

__all__ = [
    "FORMATS",
    "Cache",
    "Format",
    "Quantised",
    "TinyGPT",
    "absorb",
    "absorbed",
    "attention",
    "cached_loop",
    "causal_conv",
    "delta_chunked",
    "delta_recurrent",
    "errors",
    "expert_load",
    "gated_delta_net",
    "int8_linear",
    "key_fingerprints",
    "may_look",
    "merge",
    "mla",
    "moe",
    "naive_loop",
    "nearest",
    "nothing_yet",
    "online_attention",
    "quantise",
    "reprojected",
    "rms_norm",
    "rope",
    "route",
    "silu",
    "softmax",
    "split_decode",
    "swiglu",
    "tile_scores",
]

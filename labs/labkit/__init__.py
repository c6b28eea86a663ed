"""labkit carries the course *Faster and Leaner Inference*: every number, figure and frame comes
from here.

One alphabet of sizes is used in every shape comment:

    N packed tokens of a step    R requests          T tokens of one request    S cached slots read
    D model width                H query heads       G key/value heads          E head size
    C latent size                X experts           A active experts           F feed-forward width
    V vocabulary

Start with `labkit.reference` (NumPy, short enough to read in one sitting), then see the same names
in torch: `model` is the shell, `mixers` and `ffn` its insides, `caches` what a decode remembers,
`decode` the loops. Importing labkit loads nothing heavy; each name below is fetched when it is
first used (PEP 562).
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {  # public name -> module that holds it
    "ModelConfig": "config",
    "presets": "published",
    "Step": "step",
    "GPT": "model",
    "Sampling": "sampling",
    "generate": "decode",
    "logits": "decode",
    "show": "source",
    "compare": "source",
    "Engine": "engine",
    "Event": "engine",
    "QueueFull": "engine",
    "Trace": "trace",
}
_MODULES = (
    "bench",
    "caches",
    "checks",
    "config",
    "decode",
    "engine",
    "ffn",
    "formulas",
    "mixers",
    "model",
    "moe",
    "ops",
    "palette",
    "plotting",
    "published",
    "quant",
    "reference",
    "results",
    "sampling",
    "source",
    "speculative",
    "step",
    "trace",
    "traces",
    "weights",
    "widgets",
)

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"labkit.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"labkit.{name}")
    raise AttributeError(f"labkit has no {name!r}")


def __dir__():
    return __all__

"""labkit carries the course *Faster and Leaner Inference*: every number, figure and frame comes
from here.

One alphabet of sizes is used in every shape comment:

    N packed tokens of a step    R requests          T tokens of one request    S cached slots read
    D model width                H query heads       G key/value heads          E head size
    C latent size                X experts           A active experts           F feed-forward width
    V vocabulary

One word for one thing:

    step        what one forward works on: packed tokens of requests, with their positions
    row         a request's place in a cache, its seat in a batch; in a table, a dict of numbers
    slot        the place of one token in a cache      block    so many slots, handed out at once
    item        what a cache keeps per token (a key and a value, a latent)
    mixer       the part of a layer that looks at other tokens; `ffn` is the part that does not
    captured    laid out once, then handed over whole  plan     the operations of a captured step
    draft       a guessed token                        proposer who guesses; the target checks
    lab         a file that measures one thing         result   what it measured, where, stored
    trace       what happened, step by step, recorded  view     how a player draws one kind of it
    corpus      the texts that quality is measured on  prompt   what a request begins with

Start with `labkit.reference` (NumPy, short enough to read in one sitting), then see the same names
in torch: `model` is the shell, `mixers` and `ffn` its insides, `caches` what a decode remembers,
`decode` the loops. Importing labkit loads nothing heavy; each name below is fetched when it is
first used (PEP 562).
"""

from importlib import import_module
from pkgutil import iter_modules

if __name__ != "labkit":  # labkit_labs.labkit would be a second package, with classes of its own
    raise ImportError(f"import labkit by its own name, not as {__name__}")

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
_MODULES = {module.name for module in iter_modules(__path__)} - {"cli"}

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"labkit.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"labkit.{name}")
    raise AttributeError(f"labkit has no {name!r}")


def __dir__():
    return __all__

"""Named GPUs, from `data/gpus.json`: what they hold, and their two ceilings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from labkit import formulas
from labkit.config import ModelConfig, UnknownName

USABLE = 0.9  # of a GPU's memory; the rest is for activations, the allocator and the driver


@dataclass(frozen=True)
class GPU:
    memory_bytes: float
    ceilings: formulas.Hardware

    def room(self, config: ModelConfig, dtype: str = "bf16") -> float:
        """Bytes left for caches once the weights are in; below 0 the weights don't fit."""
        return USABLE * self.memory_bytes - formulas.weight_bytes(config, dtype)

    def largest_batch(
        self, config: ModelConfig, context: int, dtype: str = "bf16", cache_dtype: str = "bf16"
    ) -> int:
        """Requests of `context` tokens whose caches fit beside the weights."""
        one = formulas.kv_cache_bytes(config, context, 1, cache_dtype)
        return max(0, int(self.room(config, dtype) // one))


def named(name: str) -> GPU:
    """A GPU by name; UnknownName, which says the nearest one, for any other."""
    known = json.loads((Path(__file__).parent / "data" / "gpus.json").read_text())["gpus"]
    if name not in known:
        raise UnknownName("GPU", name, known)
    entry = known[name]
    ceilings = formulas.Hardware(name, entry["flops_per_second"], entry["bytes_per_second"])
    return GPU(entry["memory_bytes"], ceilings)

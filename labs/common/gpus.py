"""Named GPUs, from `data/gpus.json`: what they hold, their two ceilings, and what an hour costs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from labkit import formulas
from labkit.config import ModelConfig, UnknownName

TABLE = Path(__file__).parent / "data" / "gpus.json"


@dataclass(frozen=True)
class GPU:
    memory_bytes: float
    ceilings: formulas.Hardware
    dollars_per_hour: float

    def room(self, config: ModelConfig, dtype: str = "bf16") -> float:
        """Bytes left for caches once the weights are in; below 0 the weights don't fit."""
        return formulas.room_bytes(config, self.memory_bytes, dtype)

    def largest_batch(
        self, config: ModelConfig, context: int, dtype: str = "bf16", cache_dtype: str = "bf16"
    ) -> int:
        """Requests of `context` tokens whose caches fit beside the weights."""
        return formulas.largest_batch(config, self.memory_bytes, context, dtype, cache_dtype)


def table() -> dict:
    """The whole table, its sources and dates included."""
    return json.loads(TABLE.read_text())


def named(name: str) -> GPU:
    """A GPU by name; UnknownName for any other."""
    known = table()["gpus"]
    if name not in known:
        raise UnknownName("GPU", name, known)
    entry = known[name]
    ceilings = formulas.Hardware(name, entry["flops_per_second"], entry["bytes_per_second"])
    return GPU(entry["memory_bytes"], ceilings, round(3600 * entry["dollars_per_second"], 3))

"""Dtypes by name, and whether a device is there."""

from __future__ import annotations

import torch

# what weights and caches may be held in; fewer bits have layouts of their own, in `quant`
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_device(device: str) -> None:
    """ValueError if this machine has no such device."""
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("this machine has no CUDA device that torch can use; choose --device cpu")

"""What `nvidia-smi` calls utilisation, and joules, beside the bandwidth that a step achieves.

GPU-Util is the share of time in which *some* kernel runs: an eager step can show 100 % of it at a
tenth of the bandwidth.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import torch

from labkit import formulas
from labkit.gpu import clock
from labkit.gpu.decode import dtype_of, ways_of
from labkit.published import presets

COLUMNS = {
    "model": "model",
    "batch": "batch",
    "way": "way",
    "utilisation": "GPU-Util|.0%",
    "share": "of the read|.1%",
    "watts": "watts|.0f",
    "joules_per_token": "joules a token|.3f",
}
ABSENT = "NVML is not here (pip install nvidia-ml-py), so nobody counts utilisation and joules"


class Meter:
    """What NVML says between two moments: `with metered(device) as meter: …`."""

    utilisation: float | None = None  # 0 … 1, the mean of what it said
    joules: float | None = None


@contextmanager
def metered(device: str):
    """A `Meter` that runs meanwhile; an empty one where there is no NVML."""
    meter = Meter()
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, or no driver: it has errors of its own
        yield meter
        return
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU") else f"GPU-{uuid}")
    seen = []
    over = threading.Event()

    def watch():
        while not over.wait(0.1):
            seen.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)

    thread = threading.Thread(target=watch, daemon=True)
    before = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # millijoules
    thread.start()
    try:
        yield meter
    finally:
        over.set()
        thread.join()
        meter.joules = (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before) / 1e3
        # the counter is that of the last sixth of a second or more: the first is from before
        meter.utilisation = sum(seen[2:]) / len(seen[2:]) if seen[2:] else None
        pynvml.nvmlShutdown()


@torch.inference_mode()
def measure(
    device: str = "cuda",
    *,
    preset: str = "llama3-8b",
    batches=(1, 64),
    context: int = 512,
    seconds: float = 5.0,
) -> list[dict]:
    """A row for each batch and way, each run over and over for so many seconds."""
    torch.manual_seed(0)
    config = presets[preset]
    model = clock.random_model(config, device)
    ceiling = max(clock.fastest_read(device).values())
    rows = []
    for batch in batches:
        caches = clock.filled_caches(model, "static", batch, context + 1)
        step = clock.a_step(model, batch, context - 1)
        for way, run, replay in ways_of(model, caches, batch, "static"):
            run(step)
            again = replay(step)
            with metered(device) as meter:
                calls, took = over_and_over(again, device, seconds)
            dtype = dtype_of(16, device)
            read = formulas.decode_bytes(config, context, batch, dtype) * calls
            row = {"model": preset, "batch": batch, "way": way, "share": read / took / ceiling}
            if meter.joules is None:
                row["note"] = ABSENT
            else:
                row["watts"] = meter.joules / took
                row["joules_per_token"] = meter.joules / (calls * batch)
            if meter.utilisation is not None:
                row["utilisation"] = meter.utilisation
            rows.append(row)
        del caches
    if any("note" in row for row in rows):
        print(ABSENT, flush=True)
    return rows


def over_and_over(fn, device: str, seconds: float) -> tuple[int, float]:
    """Calls, and the seconds that they took; waited for every eighth, so that none queue up."""
    calls = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(8):
            fn()
        calls += 8
        if clock.on_gpu(device):
            torch.cuda.synchronize()
    return calls, time.perf_counter() - start

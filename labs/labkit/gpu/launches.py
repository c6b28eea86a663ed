"""How many kernels a decode step launches, how long the GPU computes, and what a launch costs."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from labkit import bench
from labkit.gpu import clock
from labkit.gpu.decode import ways_of
from labkit.published import presets

COLUMNS = {
    "model": "model",
    "way": "way",
    "kernels": "kernels",
    "milliseconds": "ms|.3f",
    "busy_milliseconds": "computing, ms|.3f",
    "microseconds_per_kernel": "us a kernel|.2f",
}


@torch.inference_mode()
def measure(
    device: str = "cuda", *, preset: str = "smollm2-135m", context: int = 512, steps: int = 20
) -> list[dict]:
    """A row for each way of a step of one token."""
    torch.manual_seed(0)
    model = clock.random_model(presets[preset], device)
    caches = clock.filled_caches(model, "static", 1, context + 1)
    step = clock.a_step(model, 1, context - 1)
    rows = []
    for way, run, replay in ways_of(model, caches, 1, "static"):
        run(step)
        again = replay(step)
        seconds = clock.per_call(again, device, steps)
        kernels, busy = kernels_of(again, device)
        rows.append(
            {
                "model": preset,
                "way": way,
                "kernels": kernels,
                "milliseconds": seconds * 1e3,
                "busy_milliseconds": busy * 1e3,
                "microseconds_per_kernel": seconds / max(kernels, 1) * 1e6,
            }
        )
    return rows


def kernels_of(fn, device: str) -> tuple[int, float]:
    """How many kernels (on a CPU: operations) a call runs, and their seconds together."""
    gpu = clock.on_gpu(device)
    activity = ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        bench.timed(fn, device)
    kind = torch.autograd.DeviceType.CUDA if gpu else torch.autograd.DeviceType.CPU
    events = [e for e in seen.events() if e.device_type == kind and not e.cpu_children]
    # copies and clearings are no kernels
    events = [e for e in events if not e.name.startswith(("Memcpy", "Memset"))]
    micros = sum(e.device_time_total if gpu else e.cpu_time_total for e in events)
    return len(events), micros / 1e6

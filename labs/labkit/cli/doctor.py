"""`labkit doctor`: what this machine has, and which fast paths it takes."""

from __future__ import annotations

import json


def arguments(parser) -> None:
    parser.add_argument(
        "--quick", action="store_true", help="do not measure the machine's ceilings"
    )


def captured(device: str) -> dict[str, str]:
    """Which models' decode steps are handed over whole here, and why others are not: preset of each
    family -> "yes" or the reason.
    """
    from labkit import graphs
    from labkit.model import GPT
    from labkit.published import presets

    found = {}
    for name in (n for n in presets if n.startswith("tiny")):
        model = GPT(presets[name]).requires_grad_(False).to(device).pack()
        found[name] = graphs.why_not(model, model.caches("static", 1, 1)) or "yes"
    return found


def run(args) -> None:
    import torch

    from labkit import bench, linear, results
    from labkit.environment import environment, load_average
    from labkit.kernels import cuda
    from labkit.paths import cache_folder
    from labkit.weights import smol

    found = {
        **environment(args.device, load=load_average()),
        "cuda_available": torch.cuda.is_available(),
        "bf16_arithmetic": linear.has_bf16(),
        "packed_weights": linear.can_pack(torch.empty(1, 1)),
        "captured_steps": captured(args.device),
        "triton_kernels": cuda.missing(args.device) or "here",
        "results": str(results.folder().name),
    }
    kept = cache_folder() / "smollm2-135m"
    found["smollm2"] = (
        "in the local cache" if kept.exists() else "not here yet: it is fetched at first use"
    )
    try:
        smol.verify(kept, every=True)
    except (OSError, ValueError) as e:
        found["smollm2"] = f"{kept} is damaged, so delete it and it will be fetched again: {e}"
    if not args.quick:
        ceilings = bench.hardware("fp32", args.device)
        found |= {
            "fp32_flops_per_second": ceilings.flops_per_second,
            "bytes_per_second": ceilings.bytes_per_second,
        }
    if args.json:
        print(json.dumps(found))
        return
    for name, why in found.pop("captured_steps").items():
        found[f"captured: {name}"] = why
    for key, value in found.items():
        if key.endswith("_per_second"):
            value = f"{value / 1e9:,.1f} billion"
        print(f"{key.replace('_', ' '):24} {value}")

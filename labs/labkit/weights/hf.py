"""Read a transformers checkpoint: sizes by `hf_config`, tensors by the tables of `families`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from labkit.config import ModelConfig
from labkit.model import GPT
from labkit.weights.families import FAMILIES
from labkit.weights.hf_config import config_from_hf

# recomputed, or the tied head again
DERIVED = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "lm_head.weight")


def from_hf(source) -> GPT:
    """A GPT with the weights of a transformers model, or of a folder with `config.json` and
    safetensors files.

    Families: gpt2, llama, mistral, qwen3, gemma3 (text), gpt_oss, mixtral, qwen3_moe, deepseek_v3,
    qwen3_next. Raises ValueError naming every tensor that is missing, unexpected or mis-shaped, and
    for settings that labkit does not apply.
    """
    if isinstance(source, (str, Path)):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(source)
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{folder} has no config.json: give the folder of a transformers checkpoint"
            )
        try:
            file = folder / "config.json"
            config, tensors = dict(json.loads(file.read_text())), {}
            for file in sorted(folder.glob("*.safetensors")):
                tensors |= load_file(file)
        except (SafetensorError, ValueError, TypeError) as e:
            raise ValueError(f"{file} is damaged: {e}") from e
        tensors = stack_experts(tensors)
    else:
        config, tensors = source.config.to_dict(), source.state_dict()
    return load(config_from_hf(config), config["model_type"], tensors)


def stack_experts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files keep each expert's matrices apart; transformers' models, and ours, stack them: [X,2F,D]
    and [X,D,F].
    """
    out, experts = {}, {}
    for name, t in tensors.items():
        name = name.replace(".block_sparse_moe.", ".mlp.")  # Mixtral
        part = re.fullmatch(
            r"(.*\.experts)\.(\d+)\.(?:(gate_proj|w1)|(up_proj|w3)|(?:down_proj|w2))\.weight", name
        )
        if part is None:
            out[name] = t
        else:
            experts.setdefault(part[1], {}).setdefault(
                "gate" if part[3] else "up" if part[4] else "down", {}
            )[int(part[2])] = t
    for prefix, parts in experts.items():
        X = 1 + max(i for part in parts.values() for i in part)
        missing = [
            f"{n} of expert {i}"
            for n in ("gate", "up", "down")
            for i in range(X)
            if i not in parts.get(n, {})
        ]
        if missing:
            raise ValueError(f"{prefix} lacks {', '.join(missing[:8])}")
        out[f"{prefix}.gate_up_proj"] = torch.stack(
            [torch.cat([parts["gate"][i], parts["up"][i]]) for i in range(X)]
        )
        out[f"{prefix}.down_proj"] = torch.stack([parts["down"][i] for i in range(X)])
    return out


def load(config: ModelConfig, family: str, tensors: dict[str, Tensor]) -> GPT:
    """Fill a GPT from the family's tensors, by its table."""
    with torch.device("meta"):
        model = GPT(config)
    ours, used, wrong = {}, set(), []
    shapes = {name: list(p.shape) for name, p in model.state_dict().items()}
    for name, sources in FAMILIES[family](config).items():
        steps = [(s, None) if isinstance(s, str) else s for s in sources]
        names = list(dict.fromkeys(s for s, _ in steps))
        used.update(names)
        if missing := [s for s in names if s not in tensors]:
            wrong += [f"{s} is missing" for s in missing]
            continue
        try:
            parts = [
                tensors[s].detach() if change is None else change(tensors[s].detach())
                for s, change in steps
            ]
            ours[name] = (
                parts[0].clone(memory_format=torch.contiguous_format)
                if len(parts) == 1
                else torch.cat(parts)
            )
        except RuntimeError:  # a shape that can't even be rearranged
            wrong.append(
                f"{' + '.join(names)} has shape"
                f" {' + '.join(str(list(tensors[s].shape)) for s in names)}, which doesn't make"
                f" {shapes[name]}"
            )
            continue
        if list(ours[name].shape) != shapes[name]:
            wrong.append(
                f"{' + '.join(names)} has shape {list(ours[name].shape)}, expected {shapes[name]}"
            )
    wrong += [
        f"{name} is unexpected"
        for name in tensors
        if name not in used and not name.endswith(DERIVED)
    ]
    if wrong:
        raise ValueError(
            f"these tensors do not fit a {family} of these sizes:"
            f" {'; '.join(dict.fromkeys(wrong[:8]))}"
            + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        )
    if config.tie_embeddings:
        ours["head.weight"] = ours["embed.weight"]
    model.load_state_dict(ours, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    return model.eval()

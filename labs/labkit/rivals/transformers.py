"""transformers' models, with our weights."""

from __future__ import annotations

import time
from itertools import pairwise

from labkit.bench import LoopTimes


def transformers_twin(model):
    """transformers' own model with our weights. ValueError where transformers is not installed."""
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "a comparison with transformers needs it: pip install transformers"
        ) from None
    from labkit.weights.to_hf import ARCHITECTURES, family_of, hf_config, hf_tensors

    config = transformers.AutoConfig.for_model(**hf_config(model.config))
    architecture = getattr(transformers, ARCHITECTURES[family_of(model.config)])
    twin = architecture(config).to(model.dtype)
    twin.load_state_dict(hf_tensors(model), strict=False)
    twin.tie_weights()
    return twin.to(model.device).eval()


def time_transformers(
    twin, prompts: list[list[int]], new: int, compiled: bool = False
) -> LoopTimes:
    """What `bench.time_decode` measures, on transformers' `generate` with a static cache: greedy,
    a clock on every step. The prompts are equally long. compiled: as transformers compiles the
    decode step by itself, on a GPU.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    marks = []

    # asked after every step whether to stop, it notes the time instead
    class Clock(StoppingCriteria):
        def __call__(self, ids, scores, **_):
            ids[0, -1].item()  # waits for the device
            marks.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    ids = torch.tensor(prompts, device=twin.device)
    start = time.perf_counter()
    with torch.inference_mode():
        out = twin.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            cache_implementation="static",
            pad_token_id=0,
            disable_compile=not compiled,
            stopping_criteria=StoppingCriteriaList([Clock()]),
        )
    each = [b - a for a, b in pairwise(marks)]
    return LoopTimes(marks[0] - start, each, out[:, ids.shape[1] :].tolist())


def time_continuous(twin, prompts: list[list[int]], new: int) -> float:
    """Seconds in which transformers' continuous batching (`generate_batch`, paged attention)
    writes `new` tokens for each prompt, greedily.

    ValueError where this transformers has none, or it wrote less.
    """
    from transformers import GenerationConfig

    if not hasattr(twin, "generate_batch"):
        raise ValueError("this version of transformers has no generate_batch")
    # -1: nothing ends a reply early
    greedy = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0)
    start = time.perf_counter()
    out = twin.generate_batch(inputs=prompts, generation_config=greedy, progress_bar=False)
    seconds = time.perf_counter() - start
    written = [len(request.generated_tokens) for request in out.values()]
    if written != [new] * len(prompts):
        raise ValueError(f"generate_batch wrote {written[:8]} … tokens, not {new} for each prompt")
    return seconds

"""What each variant promises about time, on this machine: ratios of interleaved runs, with room to spare."""
import time

import pytest
import torch
import torch.nn.functional as F

import labkit
from labkit import ops
from labkit.caches import make_cache
from labkit.mixers import delta
from labkit.step import Step


def ratio(slow, fast, repeats=4):
    """How many times longer `slow` takes: best of interleaved runs, on one thread."""
    threads, best = torch.get_num_threads(), {slow: float("inf"), fast: float("inf")}
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(repeats):
                for f in best:
                    start = time.perf_counter()
                    f()
                    best[f] = min(best[f], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return best[slow] / best[fast]


def test_absorbing_is_20_times_faster_at_8000_tokens():
    v3 = labkit.presets["deepseek-v3"].replace(n_heads=8, d_model=256, q_lora_rank=None)  # the published head sizes
    layer, x = labkit.mixers.MLA(v3), torch.randn(1, 256)
    cache = make_cache("static", layer, 1, 8000)

    def decode(path):
        def f():
            layer.path = path
            layer(x, Step.of([(0, 7999, [1])]), cache)
        return f

    assert ratio(decode("reprojected"), decode("absorbed")) > 20  # 40 to 60 here


def test_chunks_are_5_times_faster_at_1024_tokens():
    q, k, v, g = (torch.randn(1, 1024, 4, 16) for _ in range(4))
    inputs = q, F.normalize(k, dim=-1), v, -g[..., 0].abs(), g[..., 1].sigmoid()
    state = torch.zeros(1, 4, 16, 16)
    assert ratio(lambda: delta.recurrent(*inputs, state), lambda: delta.chunked(*inputs, state)) > 5  # 12 to 18 here


def test_grouped_heads_are_3_times_faster_than_copied_keys():
    k, v, q, S = torch.randn(1, 8000, 4, 64), torch.randn(1, 8000, 4, 64), torch.randn(1, 16, 64), 8000
    step, kpos = Step.of([(0, S - 1, [1])]), torch.arange(S)[None]
    grouped = lambda: ops.attend(q, k, v, kpos, step, 0.125)
    copied = lambda: ops.attend(q, k.repeat_interleave(4, 2), v.repeat_interleave(4, 2), kpos, step, 0.125)
    assert (grouped() - copied()).abs().max() < 1e-5 and ratio(copied, grouped) > 3  # 20 here


@pytest.mark.parametrize("types", ["sliding", "delta"])
def test_a_token_costs_the_same_after_16000_as_after_1000(types):
    c = labkit.presets["tiny-delta" if types == "delta" else "tiny-swa"].replace(layer_types=(types,) * 4, max_context=16001, window=32)
    model = labkit.GPT(c).eval()
    caches = model.caches("ring", 1, 16001)

    def decode(at):
        def f():
            for cache in caches:
                cache.length = [at]  # as if so many tokens had been read
            model(Step.of([(0, at, [1])]), caches)
        return f

    assert sum(c.allocated_bytes for c in caches) < 100_000
    assert ratio(decode(16000), decode(1000), 30) < 1.2

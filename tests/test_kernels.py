"""Our kernels equal the torch code beside them; without a compiler nothing is lost but time."""

import random

import engines
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import labkit
from labkit import kernels
from labkit.caches import PagedCache, RingCache, StaticCache
from labkit.step import Step

# where there is one, C that it refuses is a failure
compiled = pytest.mark.skipif(not kernels.compiler(), reason="there is no C compiler here")


@compiled
@pytest.mark.parametrize(
    "name,flags",
    [
        *(("linear", f) for f in kernels.WEIGHTS.values()),
        *(("attention", f) for f in kernels.ATTENTION.values()),
    ],
)
def test_the_compiler_takes_them(name, flags):
    assert kernels.missing(name, *flags) == ""


def gap(a, b):
    return (a - b).abs().max().item()


@compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("d_in,out", [(1, 1), (7, 16), (64, 33), (96, 48), (576, 100)])
def test_linear(d_in, out, threads):
    """All numbers of rows up to a block and beyond, outputs that do not fill a panel, with and
    without bias, rows apart in memory.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        weight, bias = torch.randn(out, d_in), torch.randn(out)
        panels = kernels.to_panels(weight)
        assert torch.equal(kernels.from_panels(panels, out), weight)
        for rows in [*range(1, 27), 61, 130]:
            wide = torch.randn(rows, d_in + 3)
            for x in (wide[:, :d_in], wide[:, :d_in].contiguous(), torch.randn(d_in, rows).t()):
                for b in (None, bias):
                    got = kernels.linear(x, panels, b, out)
                    assert (
                        got.shape == (rows, out)
                        and gap(got, F.linear(x, weight, b)) < 1e-6 * d_in + 1e-5
                    )
            if rows < 8:
                for kind in (torch.float16, torch.int8):  # fewer bits, widened on the way
                    few, scale = (weight * 20).to(kind), torch.rand(out)
                    expected = F.linear(x, few.float()) * scale + bias
                    assert torch.equal(kernels.from_panels(kernels.to_panels(few), out), few)
                    assert (
                        gap(kernels.linear(x, kernels.to_panels(few), bias, out, scale), expected)
                        < 4e-5 * d_in
                    )
    finally:
        torch.set_num_threads(before)


def cache_of(kind, rows, G, E, dtype, window):
    if kind == "static":
        return StaticCache(rows, 90, ((G, E), (G, E)), dtype, window=window)
    if kind == "ring":
        return RingCache(rows, window + 29, ((G, E), (G, E)), dtype, window=window, longest_step=30)
    table = torch.randperm(rows * 18).view(rows, 18)
    return PagedCache(rows * 18, 5, table, ((G, E), (G, E)), dtype, window=window)


def exact(q, keys, values, first, scale, window, sinks):
    """One request: q [T,H,E] against all its keys and values [S,G,E], in fp64."""
    H, G = q.shape[1], keys.shape[1]
    k, v = (x.double().repeat_interleave(H // G, 1) for x in (keys, values))
    scores = torch.einsum("the,she->hts", q.double(), k) * scale
    at, to = torch.arange(first, first + len(q))[:, None], torch.arange(len(keys))
    hidden = (to > at) | (at - to >= (window or 10**9))
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(-1, len(q), 1)], -1)
    return torch.einsum("hts,she->the", scores.softmax(-1)[..., : len(keys)], v)


@compiled
@pytest.mark.parametrize("dtype,most", [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("H,G,E", [(9, 3, 64), (4, 4, 16), (6, 1, 32), (8, 2, 128)])
@pytest.mark.parametrize(
    "kind,window,sinks",
    [
        ("static", None, False),
        ("static", 6, True),
        ("paged", None, True),
        ("paged", 9, False),
        ("ring", 6, False),
    ],
)
def test_attention(kind, window, sinks, H, G, E, dtype, most):
    """Ragged steps of prompts, chunks, decodes and checks; a rejected draft is overwritten.

    Each as one request alone, in fp64.
    """
    rnd, rows = random.Random(0), 5
    torch.manual_seed(0)
    cache, lengths, done = cache_of(kind, rows, G, E, dtype, window), [0] * rows, 0
    keys = [torch.empty(0, G, E, dtype=dtype)] * rows
    values = [torch.empty(0, G, E, dtype=dtype)] * rows
    sink = torch.randn(H) if sinks else None
    for _ in range(12):
        live = [
            (r, n)
            for r in rnd.sample(range(rows), rnd.randint(1, rows))
            if (n := rnd.choice([1, 1, 1, 2, 5, 30])) + lengths[r] <= 88
        ]
        if not live:
            continue
        step = Step.of([(r, lengths[r], [0] * n) for r, n in live])
        N = len(step.ids)
        heads = torch.randn(N, H + G, E).to(dtype)  # queries are a view, as in the mixer
        q, k, v = heads[:, :H], heads[:, H:].contiguous(), torch.randn(N, G, E).to(dtype)
        cache.write(step, k, v)
        parts = torch.split(torch.arange(N), step.lengths)
        for (r, _), at in zip(live, parts):
            keys[r] = torch.cat([keys[r][: lengths[r]], k[at]])
            values[r] = torch.cat([values[r][: lengths[r]], v[at]])
        if any(step.first):
            assert kernels.can_attend(q, step, cache)
            got = kernels.attend(q, step, cache, 0.3, window, sink)
            for (r, _), at in zip(live, parts):
                assert (
                    gap(
                        got[at].double(),
                        exact(q[at], keys[r], values[r], lengths[r], 0.3, window, sink),
                    )
                    < most
                )
                done += 1
        for r, n in live:
            lengths[r] += n if kind == "ring" else rnd.randint(min(1, n), n)
    assert done > 10


@compiled
def test_the_engine_and_the_loops_use_them(monkeypatch):
    """Engine, checks of drafts and a cached decode attend in place; what they write is what torch's
    way writes.
    """
    prompts, used, attend = engines.prompts()[:8], [], kernels.attend

    def counted(q, step, cache, *rest):
        used.append(type(cache).__name__)
        return attend(q, step, cache, *rest)

    monkeypatch.setattr(kernels, "attend", counted)

    def serve():
        engine = labkit.Engine(
            engines.model(),
            max_batch=8,
            n_blocks=200,
            block_size=4,
            speculative=engines.Guess("full", 0),
            drafts=3,
        )
        ids = [engine.add(p, 20, stop=()) for p, _ in prompts]
        return [engine.run()[i] for i in ids], labkit.generate(
            engines.model(), [p for p, _ in prompts], 20, stop=()
        )

    ours = serve()
    assert {"BlockCache", "StaticCache"} <= set(used)
    monkeypatch.setattr(kernels, "can_attend", lambda *_: False)
    used.clear()
    assert serve() == ours == ([a[:20] for _, a in prompts],) * 2 and not used


def test_what_they_can_not_do_is_left_to_torch():
    step, cache = Step.of([(0, 3, [1])]), StaticCache(1, 8, ((2, 16), (2, 16)))
    q = torch.randn(1, 4, 16)
    assert kernels.can_attend(q, step, cache) == (not kernels.missing("attention"))
    assert not kernels.can_attend(q.double(), step, cache)
    assert not kernels.can_attend(q.clone().requires_grad_(), step, cache)
    assert not kernels.can_attend(q, Step.of([(0, 0, [1])]), cache)  # nothing before it
    assert not kernels.can_attend(q[..., :8], step, StaticCache(1, 8, ((2, 8), (2, 8))))
    assert not kernels.can_attend(q.to("meta"), step, cache)
    with FlopCounterMode(display=False):  # which sees torch's operations only
        assert not kernels.can_attend(q, step, cache)


@pytest.mark.parametrize("why", ["no C compiler", "refused", "LABKIT_KERNELS"])
def test_without_them_the_reason_is_told(why, monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    if why == "LABKIT_KERNELS":
        monkeypatch.setenv("LABKIT_KERNELS", "off")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
        if why == "refused":
            (tmp_path / "cc").write_text("#!/bin/sh\necho unknown processor >&2\nexit 1\n")
            (tmp_path / "cc").chmod(0o755)
    with pytest.raises(OSError, match=why):
        kernels.library.__wrapped__("linear")
    assert not list(tmp_path.rglob("*.so"))

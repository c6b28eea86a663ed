"""Our kernels equal the torch code beside them; without a compiler nothing is lost but time."""

import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import labkit
from labkit.caches import Cache, PagedCache, RingCache, StaticCache
from labkit.engine.storage import BlockCache, Int8Blocks
from labkit.kernels import attention, build, compiler, linear, lore
from labkit.ops import RMSNorm
from labkit.quant import Int8Cache
from labkit.step import Step
from tests import engines

# where there is one, C that it refuses is a failure
compiled = pytest.mark.skipif(not compiler(), reason="there is no C compiler here")


@pytest.fixture
def used(monkeypatch):
    """The kinds of cache that were attended to in place, one name a call."""
    kinds = []

    def watch(cls):
        make = cls.in_place

        def watched(self):
            kinds.append(type(self).__name__)
            return make(self)

        monkeypatch.setattr(cls, "in_place", watched)

    watch(StaticCache)
    watch(PagedCache)
    return kinds


@compiled
@pytest.mark.parametrize(
    "kernel,dtype", [(kernel, dtype) for kernel in (linear, attention) for dtype in kernel.FLAGS]
)
def test_the_compiler_takes_them(kernel, dtype):
    assert kernel.missing(dtype) == ""


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
        panels = linear.to_panels(weight)
        assert torch.equal(linear.from_panels(panels, out), weight)
        for rows in [*range(1, 27), 61, 130]:
            wide = torch.randn(rows, d_in + 3)
            for x in (wide[:, :d_in], wide[:, :d_in].contiguous(), torch.randn(d_in, rows).t()):
                for b in (None, bias):
                    got = linear.multiply(x, panels, b, out)
                    assert (
                        got.shape == (rows, out)
                        and gap(got, F.linear(x, weight, b)) < 1e-6 * d_in + 1e-5
                    )
            if rows < 8:
                for kind in (torch.float16, torch.int8):  # fewer bits, widened on the way
                    few, scale = (weight * 20).to(kind), torch.rand(out)
                    expected = F.linear(x, few.float()) * scale + bias
                    assert torch.equal(linear.from_panels(linear.to_panels(few), out), few)
                    assert (
                        gap(linear.multiply(x, linear.to_panels(few), bias, out, scale), expected)
                        < 4e-5 * d_in
                    )
    finally:
        torch.set_num_threads(before)


ROWS = 5


def cache_of(kind, G, E, dtype=torch.float32, window=None):
    """A cache of rows of 90 tokens; a ring takes steps of up to 30."""
    items = ((G, E), (G, E))
    table = torch.randperm(ROWS * 18, generator=torch.Generator().manual_seed(0)).view(ROWS, 18)
    if kind == "static":
        return StaticCache(ROWS, 90, items, dtype, window=window)
    if kind == "ring":
        return RingCache(ROWS, window + 29, items, dtype, window=window, longest_step=30)
    if kind == "paged":
        return PagedCache(ROWS * 18, 5, table, items, dtype, window=window)
    if kind == "int8":
        mixer = SimpleNamespace(items=items, window=window, recurrent=False)
        return Int8Cache("static", mixer, ROWS, 90, dtype=dtype)
    blocks = {"engine": BlockCache, "engine, int8": Int8Blocks}[kind]
    return blocks(ROWS * 18, 5, table + 1, items, dtype, window=window)


def ragged(rnd, lengths, steps=12):
    """Steps of prompts, chunks, decodes and checks; what is drawn next depends on `lengths`, which
    the caller counts up.
    """
    for _ in range(steps):
        live = [
            (r, n)
            for r in rnd.sample(range(ROWS), rnd.randint(1, ROWS))
            if (n := rnd.choice([1, 1, 1, 2, 5, 30])) + lengths[r] <= 88
        ]
        if live:
            yield live, Step.of([(r, lengths[r], [0] * n) for r, n in live])


def heads(N, H, G, E, dtype=torch.float32):
    """Queries, keys and values; the queries are a view, as in the mixer."""
    qk = torch.randn(N, H + G, E).to(dtype)
    return qk[:, :H], qk[:, H:].contiguous(), torch.randn(N, G, E).to(dtype)


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
def test_attention(kind, window, sinks, H, G, E, dtype, most, used):
    """Ragged steps; a rejected draft is overwritten.

    Each as one request alone, in fp64.
    """
    rnd, lengths = random.Random(0), [0] * ROWS
    torch.manual_seed(0)
    cache = cache_of(kind, G, E, dtype, window)
    keys = [torch.empty(0, G, E, dtype=dtype)] * ROWS
    values = [torch.empty(0, G, E, dtype=dtype)] * ROWS
    sink = torch.randn(H) if sinks else None
    for live, step in ragged(rnd, lengths):
        q, k, v = heads(len(step.ids), H, G, E, dtype)
        cache.write(step, k, v)
        got = cache.attend(q, step, 0.3, window, sink)
        for (r, n), at in zip(live, torch.split(torch.arange(len(q)), step.lengths)):
            keys[r] = torch.cat([keys[r][: lengths[r]], k[at]])
            values[r] = torch.cat([values[r][: lengths[r]], v[at]])
            want = exact(q[at], keys[r], values[r], lengths[r], 0.3, window, sink)
            assert gap(got[at].double(), want) < most
            lengths[r] += n if kind == "ring" else rnd.randint(min(1, n), n)
    assert len(used) > 8


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("kind", ["static", "ring", "paged", "engine", "int8", "engine, int8"])
def test_attendingin_place_is_reading_and_attending(kind, window, used):
    """Whatever the cache does, it is what torch makes of what `read` returns.

    Codes of 8 bits are always read.
    """
    if kind == "ring":
        window = 7
    rnd, lengths, steps = random.Random(1), [0] * ROWS, 0
    torch.manual_seed(1)
    cache = cache_of(kind, 3, 16, window=window)
    for live, step in ragged(rnd, lengths, 20):
        q, k, v = heads(len(step.ids), 6, 3, 16)
        cache.write(step, k, v)
        got = cache.attend(q, step, 0.3, window)
        assert gap(got, Cache.attend(cache, q, step, 0.3, window)) < 2e-5
        steps += any(step.first) or not lore.torch_attends_prompts_faster()
        for r, n in live:
            lengths[r] += n
    in_place = compiler() and "int8" not in kind
    assert len(used) == (steps if in_place else 0) and steps > 10


@compiled
def test_the_engine_and_the_loops_use_them(monkeypatch, used):
    """Engine, checks of drafts and a cached decode attend in place; what they write is what torch's
    way writes.
    """
    prompts = engines.prompts()[:8]

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
    monkeypatch.setattr(attention, "takes", lambda *_: False)
    used.clear()
    assert serve() == ours == ([a[:20] for _, a in prompts],) * 2 and not used


def test_what_they_can_not_do_is_left_to_torch(used, monkeypatch):
    step, cache = Step.of([(0, 3, [1])]), StaticCache(1, 8, ((2, 16), (2, 16)))
    q, (k, v) = torch.randn(1, 4, 16), cache.buffers
    assert attention.takes(q, k, v) == (not attention.missing())
    assert not attention.takes(q.double(), k, v)
    assert not attention.takes(q, k, v.bfloat16())
    assert not attention.takes(q.clone().requires_grad_(), k, v)
    assert not attention.takes(q[..., :8], k[..., :8], v[..., :8])
    assert not attention.takes(q.transpose(1, 2).contiguous().transpose(1, 2), k, v)
    assert not attention.takes(q.to("meta"), k.to("meta"), v.to("meta"))
    with FlopCounterMode(display=False):  # which sees torch's operations only
        assert not attention.takes(q, k, v)
    for faster in (True, False):  # at prompts with nothing before them
        monkeypatch.setattr(lore, "torch_attends_prompts_faster", lambda f=faster: f)
        cache.attend(q, Step.of([(0, 0, [1])]), 1.0)
        assert bool(used) == (not faster and not attention.missing())
    used.clear()
    cache.attend(q, step, 1.0)
    assert bool(used) == (not attention.missing())


def test_nothing_is_made_up_for_a_kernel():
    """A row is one block where there is no table, an 8-bit cache is what it says and no more, and
    a norm's constant is a number.
    """
    for kind in ("static", "ring"):
        cache = cache_of(kind, 2, 16, window=4)
        assert cache.in_place().table is None and cache.in_place().columns == 0
        assert not hasattr(cache, "table") and cache.in_place().block_size == cache.capacity
    assert cache_of("paged", 2, 16).in_place().columns == 18
    assert not hasattr(cache_of("int8", 2, 16), "buffers")
    assert RMSNorm(16, 1e-5).eps == 1e-5 and type(RMSNorm(16, 1e-5).eps) is float


@pytest.mark.parametrize("why", ["no C compiler", "refused", "LABKIT_KERNELS"])
def test_without_them_the_reason_is_told(why, monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("LABKIT_KERNELS", raising=False)
    if why == "LABKIT_KERNELS":
        monkeypatch.setenv("LABKIT_KERNELS", "off")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
        if why == "refused":
            (tmp_path / "cc").write_text("#!/bin/sh\necho unknown processor >&2\nexit 1\n")
            (tmp_path / "cc").chmod(0o755)
    with pytest.raises(OSError, match=why):
        build.library.__wrapped__("linear")
    assert not list(tmp_path.rglob("*.so"))

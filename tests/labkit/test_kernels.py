"""Our kernels equal the torch code beside them; without a compiler nothing is lost but time."""

import platform
import random
from types import SimpleNamespace

import numpy as np
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
from labkit.quant.linear import most_levels
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
    "kernel,kind", [(kernel, kind) for kernel in (linear, attention) for kind in kernel.FLAGS]
)
def test_the_compiler_takes_them(kernel, kind):
    assert kernel.missing(kind) == ""


@compiled
@pytest.mark.parametrize("march", ["x86-64", "x86-64-v4", "sapphirerapids"])
@pytest.mark.parametrize("kind", [torch.float16, "w8a8", "w4a8"])
def test_the_compiler_takes_them_for_other_processors(kind, march, monkeypatch, tmp_path):
    if platform.machine() != "x86_64":
        pytest.skip("these are x86's")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("LABKIT_MARCH", march)
    build.library.__wrapped__(*linear.FLAGS[kind])


def gap(a, b):
    return (a - b).abs().max().item()


@pytest.fixture(params=[1, 2])
def team(request):
    """So many threads; `threads` of conftest.py makes it undone."""
    torch.set_num_threads(request.param)


def call(layer: linear.InPanels, x, add=None):
    """The kernel as a plan calls it, with rows apart in memory and what is added; y where `add`
    was.
    """
    y = torch.full((len(x), layer.matrix.outputs), torch.nan) if add is None else add.clone()
    pointers = x.data_ptr(), x.stride(0), len(x), add is not None and y.data_ptr(), y.data_ptr()
    linear._alone(layer.kind)(layer.matrix, *pointers, torch.get_num_threads())
    return y


COUNTS = [*range(1, 28), 61, 130]  # of rows: up to a block and beyond


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("d_in,out", [(1, 1), (7, 16), (64, 33), (193, 48), (576, 100)])
def test_linear(d_in, out, dtype, team):
    """All numbers of rows, outputs that do not fill a panel, with and without bias and what is
    added, rows apart in memory.
    """
    torch.manual_seed(0)
    weight, bias = torch.randn(out, d_in).to(dtype), torch.randn(out)
    panels = linear.to_panels(weight)
    assert torch.equal(linear.from_panels(panels, out, d_in), weight)
    with_bias = linear.InPanels.of(dtype, weight.shape, panels, bias=bias)
    without = linear.InPanels.of(dtype, weight.shape, panels)
    for rows in COUNTS:
        wide = torch.randn(rows, d_in + 3)
        wide[:, d_in:] = torch.nan  # what is not x is not read
        add = torch.randn(rows, out)
        for x in (wide[:, :d_in], wide[:, :d_in].contiguous()):
            want = F.linear(x.double(), weight.double())
            most = 1e-6 * d_in + 1e-5
            assert gap(call(without, x), want) < most
            assert gap(call(with_bias, x), want + bias) < most
            assert gap(call(with_bias, x, add), want + bias + add) < most
    x = torch.randn(d_in, 9).t()
    assert gap(without.multiply(x), F.linear(x.double(), weight.double())) < most
    assert without.multiply(x.bfloat16()).dtype == torch.bfloat16


# -- whole numbers: weights of 8 and 4 bits ----------------------------------------------

WHOLE = [("w8", False), ("w8a8", False), *((k, m) for k in ("w4", "w4a8") for m in (False, True))]


class Whole:
    """Random codes and scales of a kind, as a kernel reads them; and the naive twin in NumPy, whose
    sums are of 64 bits.
    """

    def __init__(self, kind, minimum, out, d_in, seed=0):
        rnd = np.random.default_rng(seed)
        self.kind, self.four, self.shape = kind, "w4" in kind, (out, d_in)
        self.levels = 127 if "a8" in kind else 32767
        if kind == "w8":
            self.levels = most_levels(d_in)
        self.bias = rnd.standard_normal(out).astype(np.float32)
        if self.four:
            self.codes = rnd.integers(0, 16, self.shape, dtype=np.int16)
            self.scale = rnd.uniform(-1, 1, (out, d_in // 32)).astype(np.float16)
            self.minimum = -8 * self.scale
            if minimum:
                self.minimum = rnd.uniform(-9, 3, self.scale.shape).astype(np.float16)
        else:
            self.codes = rnd.integers(-127, 128, self.shape, dtype=np.int16)
            self.scale = rnd.uniform(0, 1, out).astype(np.float32)
        self.own_minimum = minimum

    def layer(self, bias=True):
        codes, scale = torch.tensor(self.codes), torch.tensor(self.scale)
        kept = {"bias": torch.tensor(self.bias) if bias else None}
        if self.four:
            panels = linear.to_nibbles(codes)
            assert np.array_equal(linear.from_nibbles(panels, *self.shape), self.codes)
            scale = linear.to_panels(scale, self.kind)
            if self.own_minimum:
                kept["minimum"] = linear.to_panels(torch.tensor(self.minimum), self.kind)
        else:
            panels = linear.to_panels(codes.to(torch.int8), self.kind)
            assert np.array_equal(linear.from_panels(panels, *self.shape), self.codes)
        return linear.InPanels.of(self.kind, self.shape, panels, scale=scale, **kept)

    def rounded(self, x):
        """x [M,K] -> whole numbers [M,groups,K/groups] and what one is worth [M,groups,1]."""
        x = x.reshape(len(x), -1, 32 if self.four else x.shape[1])
        worth = np.abs(x).max(2, keepdims=True) * np.float32(1 / self.levels)
        worth = np.maximum(worth, np.float32(1e-20))
        return np.rint(x * (np.float32(1) / worth)).astype(np.int64), worth

    def twin(self, x):
        """Without the bias: [M,N], fp32 for 8 bits, rounded where the kernel rounds."""
        numbers, worth = self.rounded(x)
        w = self.codes.astype(np.int64).reshape(len(self.codes), *numbers.shape[1:])
        sums = np.einsum("mgk,ngk->mng", numbers, w)
        assert np.abs(sums).max() < 2**31
        if not self.four:
            return sums[..., 0].astype(np.float32) * self.scale * worth[..., 0]
        lows = self.minimum.astype(float) * numbers.sum(2)[:, None]
        return ((sums * self.scale.astype(float) + lows) * worth[:, None, :, 0]).sum(2)


def spread(rows, d_in, seed=0):
    """Rows of very different sizes."""
    sizes = np.logspace(-3, 3, rows, dtype=np.float32)[:, None]
    return np.random.default_rng(seed).standard_normal((rows, d_in)).astype(np.float32) * sizes


@compiled
@pytest.mark.parametrize("kind,minimum", WHOLE)
@pytest.mark.parametrize("d_in,out", [(1, 1), (7, 16), (32, 33), (96, 48), (1536, 100)])
def test_whole_numbers(d_in, out, kind, minimum, team):
    """As the naive twin has it, with 8-bit weights bit by bit: all numbers of rows, sizes that fill
    neither panel nor word, bias, what is added, rows apart in memory.
    """
    if "w4" in kind and d_in % 32:
        pytest.skip("no groups of 32")
    whole = Whole(kind, minimum, out, d_in)
    layer, alone = whole.layer(), whole.layer(bias=False)
    for rows in COUNTS:
        wide = torch.full((rows, d_in + 3), torch.nan)
        wide[:, :d_in] = torch.tensor(spread(rows, d_in, rows))
        x, add = wide[:, :d_in], torch.randn(rows, out)
        want = whole.twin(x.numpy())
        if whole.four:
            # a group's two products, in fp32, and their sum
            size = np.abs(x.numpy()) @ np.abs(whole.codes).T.astype(float) + 9
            size = size * 16 * 2**-24 * (d_in // 32 + 2)
            assert (np.abs(call(alone, x).numpy() - want) <= size).all()
        else:
            size = np.abs(want) * 2**-22
            assert np.array_equal(call(alone, x).numpy(), want)
        want = want + whole.bias
        assert (np.abs(call(layer, x).numpy() - want) <= size + 1e-6).all()
        want = want + add.numpy()
        assert (np.abs(call(layer, x, add).numpy() - want) <= size + 2e-6).all()


@compiled
@pytest.mark.parametrize("kind", ["w4", "w4a8"])
def test_sums_of_a_group_are_exact(kind):
    """Bit by bit, where a row has one group that is not zero, and no minimum."""
    whole = Whole(kind, True, 48, 96)
    whole.scale[:], whole.minimum[:] = 1, 0
    for group in range(3):
        x = spread(9, 96)
        x.reshape(9, 3, 32)[:, [g for g in range(3) if g != group]] = 0
        numbers, worth = whole.rounded(x)
        sums = numbers[:, group] @ whole.codes.reshape(48, 3, 32)[:, group].T.astype(np.int64)
        want = sums.astype(np.float32) * worth[:, group]
        assert np.array_equal(call(whole.layer(bias=False), torch.tensor(x)).numpy(), want)


@compiled
@pytest.mark.parametrize("kind,minimum", WHOLE)
@pytest.mark.parametrize("sign", [1, -1])
def test_no_sum_overflows(kind, minimum, sign):
    """Every code and every activation is the largest there is."""
    whole = Whole(kind, minimum, 32, 1536)
    whole.codes[:] = 15 if whole.four else 127 * sign
    x = np.full((5, 1536), sign, np.float32)
    if whole.four:
        whole.scale[:], whole.minimum[:] = 1, 1 if minimum else -8
    assert np.allclose(call(whole.layer(bias=False), torch.tensor(x)), whole.twin(x), rtol=1e-5)


@compiled
@pytest.mark.parametrize("kind,minimum", WHOLE)
def test_a_row_does_not_see_the_others(kind, minimum, team):
    """Not by a bit, however many they are, and whatever is in them."""
    layer = Whole(kind, minimum, 48, 96).layer()
    x = torch.tensor(spread(130, 96))
    alone = torch.cat([call(layer, row[None]) for row in x])
    for rows in (2, 3, 4, 5, 8, 9, 27, 130):
        assert torch.equal(call(layer, x[:rows]), alone[:rows])
    x[2, 5], x[4, 6], x[6, 7], x[7], x[9] = 1e30, torch.inf, torch.nan, 0, 1e-30
    y = call(layer, x)
    others = [i for i in range(130) if i not in (2, 4, 6, 7, 9)]
    assert torch.equal(y[others], alone[others])
    assert y[[2, 7, 9]].isfinite().all() and not y[[4, 6]].isfinite().any()
    assert torch.equal(y[7], layer.tensors[2])  # zeros: the bias


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_layer_says_what_a_kernel_reads(dtype):
    """`matrix` is None before it is packed, and then all that a plan needs."""
    layer = labkit.linear.Linear(48, 80, bias=True).requires_grad_(False).to(dtype)
    x = torch.randn(5, 48).to(dtype)
    assert layer.matrix() is None
    want = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    layer.pack()
    if layer.matrix() is None:
        pytest.skip("this processor has another way")
    function = linear.in_panels(layer.matrix().kind)
    assert function is not None and layer.matrix().kind == dtype
    assert gap(layer(x), want) < {torch.float32: 1e-5}.get(dtype, 2e-2)
    assert gap(call(layer.matrix(), x.float()), want) < 1e-5
    assert torch.equal(layer.dense(), layer.state_dict()["weight"])


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

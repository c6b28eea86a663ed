"""A cache is an index map: tokens land where it says, rows never meet, and its bytes are the
formula's.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import labkit
from labkit.caches import Cache, PagedCache, RingCache, SlotCache, StaticCache
from labkit.dtypes import DTYPES
from labkit.engine.storage import BlockCache
from labkit.formulas import kv_cache_bytes
from labkit.step import Step


def step_of(*requests):
    return Step.of([(row, first, [0] * n) for row, first, n in requests])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_read_returns_what_was_written(data):
    """Any order of writes to any rows, static and paged: each request reads back its own tokens, in
    order.
    """
    rows, block = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    table = torch.randperm(rows * 6).view(rows, 6)  # blocks in no order at all
    caches = [
        StaticCache(rows, 6 * block, ((2, 3),)),
        PagedCache(rows * 6, block, table, ((2, 3),)),
    ]
    length = [0] * rows
    for _ in range(data.draw(st.integers(1, 6))):
        who = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, unique=True))
        n = {r: data.draw(st.integers(1, 6)) for r in who}
        n = {r: min(k, 6 * block - length[r]) for r, k in n.items() if length[r] < 6 * block}
        if not n:
            continue
        step = step_of(*((r, length[r], k) for r, k in n.items()))
        token = (step.token_rows * 1000 + step.pos).float()[:, None, None].expand(-1, 2, 3)
        for cache in caches:
            cache.write(step, token)
            items, kpos = cache.read(step)
            for i, r in enumerate(n):
                seen = kpos[i] >= 0
                assert kpos[i][seen].tolist() == list(range(length[r] + n[r]))
                assert items[i][seen][:, 0, 0].tolist() == [
                    r * 1000 + t for t in range(length[r] + n[r])
                ]
        for r, k in n.items():
            length[r] += k


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.data())
def test_every_cache_holds_what_a_window_may_see(window, longest, data):
    """Static, paged and ring: at each query, the visible positions are the last `window`, and each
    slot holds its own token.
    """
    rows = 2
    caches = [
        StaticCache(rows, 64, ((1,),), window=window),
        PagedCache(40, 4, torch.randperm(40)[:32].view(2, 16), ((1,),), window=window),
        RingCache(rows, window + longest - 1, ((1,),), window=window, longest_step=longest),
    ]
    length = [0] * rows
    for _ in range(data.draw(st.integers(1, 8))):
        row, n = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(1, longest))
        step = step_of((row, length[row], n))
        length[row] += n
        for cache in caches:
            cache.write(step, (step.pos + 1000 * row).float()[:, None])
            items, kpos = cache.read(step)
            for q in step.pos.tolist():
                seen = (kpos[0] >= 0) & (kpos[0] <= q) & (q - kpos[0] < window)
                assert sorted(kpos[0][seen].tolist()) == list(range(max(0, q + 1 - window), q + 1))
                assert (items[0, seen, 0] == kpos[0][seen] + 1000 * row).all()


@pytest.mark.parametrize("name", ["gpt2-124m", "smollm2-135m", "qwen3-0.6b"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_static_cache_holds_the_formulas_bytes(name, dtype):
    config = labkit.presets[name].replace(vocab_size=8, d_model=8, d_ff=8, max_context=64)
    model = labkit.GPT(config).to(DTYPES[dtype])
    assert sum(c.allocated_bytes for c in model.caches("static", 3, 50)) == kv_cache_bytes(
        config, 50, 3, dtype
    )
    # whole blocks of 16
    assert sum(c.allocated_bytes for c in model.caches("paged", 3, 50)) == kv_cache_bytes(
        config, 64, 3, dtype
    )
    assert sum(c.allocated_bytes for c in model.caches("none", 3, 50)) == 0


def test_static_read_of_neighbouring_rows_is_a_view():
    cache = StaticCache(4, 8, ((2, 3),))
    step = step_of((1, 0, 5), (2, 0, 3))
    cache.write(step, torch.ones(8, 2, 3))
    items, _ = cache.read(step)
    # row 1 begins at slot 8; nothing was copied
    assert items.data_ptr() == cache.buffers[0][:, 8:].data_ptr()


@pytest.mark.parametrize("kind", [StaticCache, PagedCache, BlockCache])
def test_16_bit_keys_are_read_in_few_lengths(kind):
    """oneDNN builds a kernel for every length of them; of fp32 no more is read than is needed."""
    table = torch.arange(63).view(1, 63)
    read = {torch.float32: set(), torch.bfloat16: set()}
    for dtype, lengths in read.items():
        items = ((1, 16),)
        cache = (
            StaticCache(1, 250, items, dtype)
            if kind is StaticCache
            else kind(63, 4, table, items, dtype)
        )
        for context in range(1, 250):
            item, kpos = cache.read(step_of((0, context - 1, 1)))
            assert int((kpos >= 0).sum()) == context and item.shape[1] == kpos.shape[1] >= context
            lengths.add(item.shape[1])
    assert len(read[torch.bfloat16]) == 4
    assert len(read[torch.float32]) == (249 if kind is StaticCache else 63)


def test_what_wraps_a_cache_sees_what_is_attended_to():
    """`write`, `read` and `allocated_bytes` are all that a wrapper passes on."""

    class Watched(Cache):
        def __init__(self, cache):
            self.cache = cache
            self.seen = []

        def write(self, step, *items):
            self.cache.write(step, *items)

        def read(self, step):
            *items, kpos = self.cache.read(step)
            self.seen.append((kpos >= 0).sum().item())
            return *items, kpos

    model, tokens = labkit.GPT(labkit.presets["tiny"]).eval(), list(range(1, 13))
    want = labkit.logits(model, tokens, [8, 1, 3], "static")
    caches = [Watched(c) for c in model.caches("static", 1, 12)]
    with torch.inference_mode():
        got = [model(Step.of([(0, a, tokens[a:b])]), caches) for a, b in ((0, 8), (8, 9), (9, 12))]
    assert (torch.cat(got) - want).abs().max() < 1e-5
    assert all(cache.seen == [8, 9, 12] for cache in caches)


@pytest.mark.parametrize(
    "cache", [StaticCache(2, 4, ((1, 1),)), PagedCache(4, 2, torch.arange(4).view(2, 2), ((1, 1),))]
)
def test_a_token_without_a_slot_is_refused(cache):
    with pytest.raises(ValueError, match="reaches 5 tokens, but a cache row holds 4"):
        cache.write(step_of((0, 3, 2)), torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match="rows are 0 to 1"):
        cache.write(step_of((2, 0, 1)), torch.zeros(1, 1, 1))
    assert not cache.buffers[0].any()


def test_unknown_kind_names_the_choices():
    with pytest.raises(
        ValueError, match="no cache is called 'rnig': choose none, static, paged or ring"
    ):
        labkit.GPT(labkit.presets["tiny"]).caches("rnig", 1, 4)


@pytest.mark.parametrize(
    "sizes", [dict(rows=0), dict(capacity=0), dict(block_size=0), dict(longest_step=0)]
)
def test_a_cache_of_nothing_is_refused(sizes):
    with pytest.raises(ValueError, match="at least one row and one token"):
        labkit.GPT(labkit.presets["tiny"]).caches("static", **(dict(rows=1, capacity=4) | sizes))


def test_a_step_that_does_not_fit_together_is_refused():
    long = torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="3 ids and 3 rows needs 3 positions and 4 boundaries"):
        Step(long, long, long, long)
    with pytest.raises(ValueError, match="at least one token"):
        Step.of([(0, 0, [])])


def test_what_a_step_is_told_is_what_it_would_read_back():
    told = step_of((3, 5, 1), (0, 2, 1), (1, 0, 4))
    found = Step(told.ids, told.pos, told.rows, told.cu)
    for step in (told, found):
        assert (step.row_list, step.first, step.lengths) == ([3, 0, 1], [5, 2, 0], [1, 1, 4])
        assert step.context == [6, 3, 4] and step.tokens == slice(0, 6)
        pair, one = step.parts
        assert (pair.row_list, pair.first, pair.T) == ([3, 0], [5, 2], 1)
        assert (one.row_list, one.context, one.tokens) == ([1], [4], slice(2, 6))
        again = step.by_parts(lambda part, step=step: step.pos[part.tokens])
        assert again.tolist() == [5, 2, 0, 1, 2, 3]


def test_what_is_made_once_is_made_for_each_tensor():
    """A mask is made once for the positions it is of, not for others that are as large."""
    step, made = step_of((0, 0, 2)), []
    make = lambda: made.append(len(made)) or len(made)
    a, b = torch.zeros(1, 2), torch.zeros(1, 2)
    assert [step.once(("mask", x, None), make) for x in (a, b, a, b)] == [1, 2, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_cache_takes_memory_as_it_fills(dtype):
    """Reserved is not taken: a cache for 48 long requests costs nothing before they come."""
    before = labkit.bench.resident_bytes()
    (buffer,) = SlotCache(2**20, [(3, 64)], dtype).buffers
    assert buffer.nbytes >= 192 * 2**20 and buffer.dtype == dtype and buffer.shape == (3, 2**20, 64)
    assert labkit.bench.resident_bytes() - before < 20e6
    buffer[1, 5] = 1
    assert buffer[1, 4:7].float().sum() == 64 and not buffer[2, -1].any()

"""A captured step's three ways write what the model writes.

They are run as they are, without a graph: under Triton's interpreter on a CPU, in fp32. Graphs are
tested in test_cuda, where there is a GPU.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

import labkit
from labkit.engine.storage import BlockCache, Int8Blocks
from labkit.graphs import ways
from labkit.graphs.cuda import CudaGraphs, NoRoom, room, sizes
from labkit.graphs.ways import Ways
from labkit.kernels import cuda
from labkit.linear import Linear
from labkit.quant import quantize
from labkit.quant.linear import KINDS
from labkit.step import Step
from tests import engines

GATE = 1e-5

# the interpreter takes milliseconds for each program of a launch
SMALL = labkit.ModelConfig(
    vocab_size=32,
    d_model=16,
    n_layers=2,
    n_heads=2,
    n_kv_heads=1,
    head_dim=16,
    d_ff=16,
    max_context=24,
)
GEMMA = {"post_norms": True, "ffn": "geglu", "embed_scale": 5.7, "qk_norm": True}
GPT2 = {"position": "learned", "norm": "layer", "ffn": "gelu", "bias": True, "n_kv_heads": 2}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
FUSED = {
    "grouped heads": {},
    "norms on heads": {"qk_norm": True},
    "window": {"layer_types": ("sliding", "full"), "window": 7},
    "partly rotated, yarn": {"partial_rotary": 0.5, "rope_scaling": YARN},
    "sinks, clamped": {"sinks": True, "ffn": "swiglu_clamped"},
}
SMALL_ONLY = {
    "Gemma": GEMMA,
    "GPT-2": GPT2,
    "gate on attention": {"output_gate": True},
    "bias": {"attention_bias": True},
}
LENGTHS = (20, 0, 6)  # what each row has read; a request without a text is padding
pytestmark = [
    # on a GPU the graphs are tested, in test_cuda: each size here is a kernel to compile there
    pytest.mark.skipif(not cuda.interpreted(), reason="for Triton's interpreter"),
    # of heads and requests that are none
    pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered"),
]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    from labkit.kernels.cuda import attention

    monkeypatch.setattr(attention, "PROGRAMS", 8)


def a_model(**more):
    torch.manual_seed(0)
    model = labkit.GPT(replace(SMALL, **more))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5 if p.dim() == 2 else 1.0).add_(0.1 if p.dim() == 1 else 0.0)
    return model


@torch.inference_mode()
def check(model, kind, way_names, gate=GATE):
    """Each way gives the model's own logits, and writes what it writes."""
    caches = model.caches(kind, 3, 24, block_size=4, longest_step=1)
    filled = [(r, n) for r, n in enumerate(LENGTHS) if n]
    # of noise: what was written by whom makes no difference
    for cache in caches:
        for buffer in cache.buffers:
            buffer.normal_()
    before = [[b.clone() for b in cache.buffers] for cache in caches]
    step = Step.of([(r, n, [r + 5]) for r, n in filled])
    want = model(step, caches, step.last)
    after = [[b.clone() for b in cache.buffers] for cache in caches]
    # the same by fixed tensors, with padding between
    ids = torch.tensor([5, 0, 7])
    rows = torch.tensor([0, 1, 2])
    pos = torch.tensor([LENGTHS[0], -1, LENGTHS[2]])
    made = Ways(model, caches, 3)
    for way in way_names:
        for cache, buffers in zip(caches, before):
            for buffer, old in zip(cache.buffers, buffers):
                buffer.copy_(old)
        got = made.step(way, ids, rows, pos)[[0, 2]]
        assert (got.float() - want.float()).norm() < gate * want.float().norm(), way
        for cache, buffers in zip(caches, after):
            for buffer, new in zip(cache.buffers, buffers):
                assert (buffer.float() - new.float()).abs().max() < 2 * gate, way
    return made


@pytest.mark.parametrize(
    "name,kind", [("grouped heads", "static"), *[(name, "paged") for name in FUSED]]
)
def test_all_three_ways(name, kind):
    made = check(a_model(**FUSED[name]), kind, ways.WAYS)
    assert not any(made.reasons.values())
    assert [made.fastest(rows) for rows in (1, 16, 17)] == ["fused", "fused", "small"]


@pytest.mark.parametrize("name", SMALL_ONLY)
def test_what_a_fused_product_can_not_do_is_left_to_the_layer(name):
    model = a_model(**SMALL_ONLY[name])
    made = check(model, "paged", ("small", "torch"))
    assert made.reasons["fused"] and not made.reasons["small"] and made.fastest(1) == "small"
    with pytest.raises(ValueError, match=r"can't go the way 'fused': .*layer 0|blocks\.0|RMSNorm"):
        made.step("fused", *[torch.zeros(1, dtype=torch.long)] * 3)


def test_rings():
    check(a_model(**FUSED["window"]), "ring", ways.WAYS)


def test_the_engine_s_blocks():
    model = a_model()
    table = torch.tensor([[3, 1], [2, 4]])
    caches = [BlockCache(4, 4, table, b.mixer.items, torch.float32) for b in model.blocks]
    assert ways.why_not(model, caches) == ""
    assert ways.longest(model, caches) == 8


def test_few_bits():
    """Packed for our kernels, the products are fused; by any other kernel the layer does them."""
    for kind in ("int8", "int4"):
        model = a_model(n_layers=1, d_model=128, head_dim=64, d_ff=128)
        for name, layer in [*model.named_modules()]:
            if isinstance(layer, Linear):
                parent, _, child = name.rpartition(".")
                few = KINDS[kind](layer, layer.dense(), kind, "triton")
                setattr(model.get_submodule(parent), child, few)
        assert model.head.kernel == "triton" and ways.matrix_of(model.head).bits == int(kind[3:])
        check(model, "static", ("fused",), gate=10 * GATE)
    plain = quantize(a_model(), "int8", kernel="plain")
    # rows are rounded to digits: a last bit may make another digit
    check(plain, "static", ("small", "torch"), gate=100 * GATE)
    assert "not our kernels'" in ways.why_not_fused(plain)


# -- what can't be captured ------------------------------------------------------------------------

CANT = {
    "delta": "layer 0 is recurrent",
    "latent": r"layer 0 attends to a latent \(MLA\)",
    "sinks, experts": "layer 0 has experts",
}


@pytest.mark.parametrize("name", CANT)
def test_what_can_not_be_captured_is_named(name):
    model = engines.model(name)
    caches = model.caches("static", 1, 8)
    with pytest.raises(ValueError, match=CANT[name]):
        CudaGraphs(model, caches, 1)
    with pytest.raises(ValueError, match=CANT[name]):
        Ways(model, caches, 1)


def test_caches_that_can_not_be_captured_are_named():
    model = engines.model()
    table = torch.zeros(1, 2, dtype=torch.long)
    codes = [Int8Blocks(4, 4, table, block.mixer.items, torch.float32) for block in model.blocks]
    assert "Int8Blocks, which keep codes" in CudaGraphs.why_not(model, codes)
    assert "NoCache, which has no slots" in CudaGraphs.why_not(model, model.caches("none", 1, 8))
    assert "as many caches, not 1" in CudaGraphs.why_not(model, codes[:1])


def test_a_cpu_captures_nothing():
    model = engines.model()
    assert CudaGraphs.why_not(model, model.caches("static", 1, 8)) == (
        "the model is on a cpu, and CUDA graphs are for GPUs"
    )


def test_without_triton_torch_does_it(monkeypatch):
    monkeypatch.setattr(cuda, "missing", lambda *_: "Triton is not installed")
    made = check(a_model(), "paged", ("torch",))
    assert made.reasons == dict.fromkeys(("fused", "small"), "Triton is not installed")
    assert made.fastest(1) == "torch"


def test_unknown_ways_are_refused():
    model = engines.model()
    made = Ways(model, model.caches("static", 1, 8), 1)
    with pytest.raises(ValueError, match="one of the ways fused, small, torch, not 'fast'"):
        made.step("fast", *[torch.zeros(1, dtype=torch.long)] * 3)


def test_batch_sizes_are_padded_to_powers_of_two():
    assert sizes(1) == [1] and sizes(2) == [1, 2] and sizes(6) == [1, 2, 4, 6]
    assert sizes(64) == [1, 2, 4, 8, 16, 32, 64]


def test_memory_that_runs_out_is_told_in_a_sentence(monkeypatch):
    """Also where the capture then ends badly, which hides the first error behind another."""
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**9, 80 * 10**9))

    def full():
        try:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("capture was invalidated")

    said = r"no room for a graph of 8 requests: 1\.0 of 80\.0 GB"
    with pytest.raises(NoRoom, match=said), room("a graph of 8 requests"):
        full()
    with pytest.raises(RuntimeError, match="something else"), room("a graph"):
        raise RuntimeError("something else")


# -- what a graph does around its replay -----------------------------------------------------------


class Again(CudaGraphs):
    """Captures nothing: what would be replayed is run again, on the same fixed tensors."""

    why_not = staticmethod(ways.why_not)

    def _capture(self, size):
        self.taken[size] = self.way or self.ways.fastest(size)
        fixed = (self.ids[:size], self.rows[:size], self.pos[:size])

        def replay():
            self.logits[size].copy_(self.ways.step(self.taken[size], *fixed))

        self.logits[size] = torch.zeros(size, self.ways.model.config.vocab_size)
        self.graphs[size] = SimpleNamespace(replay=replay)


@pytest.fixture
def no_pool(monkeypatch):
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)


@torch.inference_mode()
def test_requests_come_and_go(no_pool):
    """Any rows, any number of them, one after another: each step is what the model writes."""
    model = a_model(n_layers=1)
    caches = model.caches("paged", 5, 24, block_size=4)
    theirs = model.caches("paged", 5, 24, block_size=4)
    graphs = Again(model, caches, 5, "torch")
    length = [0] * 5
    for rows in ([0], [0, 1, 2], [4, 3, 2, 1, 0], [2], [3, 0, 1], [1, 3]):
        step = Step.of([(r, length[r], [r + length[r]]) for r in rows])
        got, want = graphs(step), model(step, theirs, step.last)
        assert (got.float() - want.float()).norm() < GATE * want.float().norm()
        # nobody who was in the last step lives on in the padding of this one
        size = next(n for n in graphs.sizes if n >= len(rows))
        assert (graphs.pos[len(rows) : size] == -1).all()
        for r in rows:
            length[r] += 1
    for mine, other in zip(caches, theirs):
        for a, b in zip(mine.buffers, other.buffers):
            assert (a.float() - b.float()).abs().max() < 2 * GATE
    assert graphs.taken == {1: "torch", 4: "torch", 5: "torch", 2: "torch"}


@torch.inference_mode()
def test_steps_that_it_refuses(no_pool):
    model = a_model(n_layers=1)
    graphs = Again(model, model.caches("static", 3, 10), 2)
    ok = Step.of([(2, 9, [1]), (0, 3, [1])])
    assert graphs.refuses(ok) == ""
    refused = {
        "one token of each request, and this one brings 2": [(0, 0, [1, 2])],
        "3 requests are more than the 2 captured for": [(r, 0, [1]) for r in range(3)],
        "a request reaches 11 tokens of 10 held": [(0, 10, [1])],
        "is none of the 3 that the caches have": [(3, 0, [1])],
    }
    for said, requests in refused.items():
        step = Step.of(requests)
        assert said in graphs.refuses(step)
        with pytest.raises(ValueError, match=said):
            graphs(step)
    assert not graphs.taken  # nothing was captured for them
    with pytest.raises(ValueError, match="at least one request, not 0"):
        Again(model, model.caches("static", 3, 10), 0)


def test_logits_are_the_caller_s(no_pool):
    model = a_model(n_layers=1)
    graphs = Again(model, model.caches("static", 1, 10), 1, "torch")
    first = graphs(Step.of([(0, 0, [1])]))
    kept = first.clone()
    graphs(Step.of([(0, 1, [2])]))
    assert torch.equal(first, kept)

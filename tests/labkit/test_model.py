"""labkit's model equals transformers', whichever way the tokens are fed."""

import pytest
import torch

import labkit
from labkit.kernels import compiler, linear, lore
from labkit.step import Step
from tests import oracles

GATE = 5e-5  # fp32; see oracles.gate


@pytest.fixture(scope="module", params=oracles.ORACLES)
def pair(request):
    theirs = oracles.build(request.param)
    return theirs, labkit.weights.from_hf(theirs), oracles.gate(request.param)


def gap(a, b):
    return (a - b).abs().max().item()


def test_full_forward_equals_transformers(pair):
    theirs, ours, gate = pair
    tokens = oracles.text(40)
    assert gap(labkit.logits(ours, tokens), oracles.expected(theirs, tokens)) < gate


@pytest.mark.parametrize("cache", ["none", "static", "paged", "ring"])
@pytest.mark.parametrize("chunks", [[1] * 40, [7, 1, 1, 20, 3, 8], [39, 1]])
def test_chunked_equals_transformers(pair, cache, chunks):
    theirs, ours, gate = pair
    tokens = oracles.text(40)
    assert gap(labkit.logits(ours, tokens, chunks, cache), oracles.expected(theirs, tokens)) < gate


@pytest.mark.parametrize("cache", ["static", "paged", "ring"])
def test_ragged_steps_equal_each_request_alone(pair, cache):
    """Prefill chunks, decodes and verify-sized steps in one forward; requests join late and sit in
    any row.
    """
    theirs, ours, gate = pair
    texts = {2: oracles.text(24, 1), 0: oracles.text(15, 2), 1: oracles.text(19, 3)}
    schedule = [
        {2: 7},
        {2: 1, 0: 5},
        {0: 4, 2: 4, 1: 6},
        {1: 5, 2: 1, 0: 1},
        *[{1: 1, 2: 1, 0: 1}] * 4,
        {2: 3, 1: 4},
        {2: 4, 0: 1},
    ]
    caches = ours.caches(cache, 3, 24, block_size=4, longest_step=7)
    done = dict.fromkeys(texts, 0)
    out = {r: [] for r in texts}
    for plan in schedule:
        step = Step.of([(r, done[r], texts[r][done[r] : done[r] + n]) for r, n in plan.items()])
        with torch.inference_mode():
            logits = ours(step, caches)
        for (r, n), part in zip(plan.items(), logits.split(list(plan.values()))):
            out[r].append(part)
            done[r] += n
    for r, parts in out.items():
        got = torch.cat(parts)
        assert gap(got, oracles.expected(theirs, texts[r][: done[r]])) < gate


def test_last_gives_the_rows_asked_for(pair):
    ours = pair[1]
    step = Step.of([(0, 0, oracles.text(9)), (1, 0, oracles.text(5, 2))])
    with torch.inference_mode():
        full = ours(step, ours.caches("none", 2, 9))
        some = ours(step, ours.caches("none", 2, 9), step.last)
    # the same sums over fewer rows: a matrix product may add them in another order
    assert gap(full[[8, 13]], some) < 64 * torch.finfo(torch.float32).eps


def test_rejected_drafts_are_overwritten():
    """Junk written ahead of a request is never seen: the next true tokens take its slots."""
    theirs = oracles.build("llama-gqa")
    ours, tokens = labkit.weights.from_hf(theirs), oracles.text(20)
    caches, out = ours.caches("paged", 1, 24, block_size=4), []
    with torch.inference_mode():
        for p, token in enumerate(tokens):
            out.append(ours(Step.of([(0, p, [token, *oracles.text(3, seed=100 + p)])]), caches)[:1])
    assert gap(torch.cat(out), oracles.expected(theirs, tokens)) < GATE


@pytest.mark.parametrize("own", [True, False] if compiler() else [False])
@pytest.mark.parametrize("name", ["llama-tied", "gemma3", "deepseek-moe", "qwen3-next"])
def test_packed_weights_change_rounding_only(name, own, monkeypatch):
    """In panels for our own kernel, or in oneDNN's blocks."""
    if not own:
        monkeypatch.setattr(linear, "missing", lambda *_: "switched off")
    ours = labkit.weights.from_hf(oracles.build(name))
    tokens, before = oracles.text(30), {k: v.clone() for k, v in ours.state_dict().items()}
    plain = labkit.logits(ours, tokens, [20, *[1] * 10], "static")
    ours.pack()
    for layer in (ours.blocks[0].mixer.out, ours.head):
        assert layer.packed and layer.weight.is_mkldnn == (not own)
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    assert gap(labkit.logits(ours, tokens, [20, *[1] * 10], "static"), plain) < oracles.gate(name)
    ours.unpack()
    assert (ours.head.weight is ours.embed.weight) == ours.config.tie_embeddings
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("rows", [1, 2, lore.FEW, lore.FEW + 1])
def test_blocks_multiply_many_rows_and_panels_beside_them_few(own, rows, monkeypatch):
    """As bf16 is multiplied where the processor can; here in fp32, for which all have blocks."""
    if own and linear.missing():
        pytest.skip(linear.missing())
    if not own:
        monkeypatch.setattr(lore, "missing", lambda *_: "switched off")
    layer = labkit.linear.Linear(48, 80, bias=True).requires_grad_(False)
    x, weight = torch.randn(rows, 48), layer.weight
    want = torch.nn.functional.linear(x, weight, layer.bias)
    layer.layout = lore.Blocks(weight)
    layer.weight = torch.nn.Parameter(layer.layout.lay(weight), requires_grad=False)
    taken = []
    if own:
        multiply = layer.layout.few.multiply
        layer.layout.few.multiply = lambda *a: taken.append(a) or multiply(*a)
    with torch.inference_mode():
        assert gap(layer(x), want) < 1e-5
    assert bool(taken) == (own and rows <= lore.FEW)
    assert (layer.matrix() is not None) == own and torch.equal(layer.dense(), weight)


@pytest.mark.parametrize("bf16", [False, True])
def test_layouts_go_by_what_the_processor_can(bf16, monkeypatch):
    monkeypatch.setattr(lore, "has_bf16", lambda: bf16)
    own = {d: not linear.missing(d) for d in (torch.float32, torch.bfloat16, torch.float16)}
    got = {d: labkit.linear.best_layout(torch.ones(4, 4, dtype=d)) for d in own}
    panels = {True: linear.Panels}
    assert got[torch.float32] is panels.get(own[torch.float32], lore.Blocks)
    assert got[torch.float16] is panels.get(own[torch.float16])
    assert got[torch.bfloat16] is (lore.Blocks if bf16 else panels.get(own[torch.bfloat16]))
    assert lore.faster_half() == ("bf16" if bf16 else "fp16") and lore.faster_half("cuda") == "bf16"


@pytest.mark.parametrize(
    "name", ["llama-gqa", "gemma3", "gpt-oss", "deepseek-dense", "qwen3-next-dense"]
)
@pytest.mark.parametrize("dtype,gate", [(torch.bfloat16, 0.5), (torch.float16, 0.06)])
def test_half_precision_stays_near(name, dtype, gate):
    theirs = oracles.build(name)
    ours, tokens = labkit.weights.from_hf(theirs).to(dtype), oracles.text(40)
    exact = oracles.expected(theirs, tokens)
    for cache in ("none", "static", "paged", "ring"):
        assert gap(labkit.logits(ours, tokens, [30, *[1] * 10], cache).float(), exact) < gate


@pytest.mark.parametrize(
    "name", ["tiny", "tiny-gpt2", "tiny-swa", "tiny-mla", "tiny-moe", "tiny-delta"]
)
def test_gradients_flow_through_the_packed_tokens(name):
    """The same shell trains, whatever is inside: every parameter gets a gradient."""
    model = labkit.GPT(labkit.presets[name])
    step = Step.of([(r, 0, oracles.text(12, r)) for r in range(3)])
    model(step, model.caches("none", 3, 12)).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())

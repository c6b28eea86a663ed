"""What the recorders of a window, a router and a state saw, counted again by other means."""

import numpy as np
import pytest
import torch

import labkit
from labkit import GPT, ModelConfig, Step, formulas, reference
from labkit.trace import Trace, record_routing, record_state, record_window
from labkit.traces import state, window

SMALL = ModelConfig(
    vocab_size=64,
    d_model=32,
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=48,
    max_context=64,
)
SLIDING = SMALL.replace(layer_types=("sliding",) * 3, window=5)
HYBRID = SMALL.replace(layer_types=("sliding", "full", "sliding"), window=5)
MOE = SMALL.replace(n_experts=8, n_active_experts=2, d_expert=16, n_dense_layers=1)
DELTA = SMALL.replace(
    layer_types=("full", "delta", "delta"),
    delta_n_key_heads=2,
    delta_n_value_heads=4,
    delta_key_dim=6,
    delta_value_dim=4,
)
TEXT = torch.randint(64, (23,), generator=torch.Generator().manual_seed(3)).tolist()
CHUNKS = [3, 1, 4, 2] + [1] * 13


def made(config: ModelConfig) -> GPT:
    torch.manual_seed(0)
    return GPT(config).eval()


# -- window ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, CHUNKS], ids=["one by one", "in chunks"])
@pytest.mark.parametrize("config", [SLIDING, HYBRID], ids=["sliding", "hybrid"])
def test_a_token_takes_slot_t_mod_cap_and_overwrites_the_token_a_round_before(config, chunks):
    trace = record_window(made(config), TEXT, chunks)
    cap, W = trace.meta["slots"], trace.meta["window"]
    assert cap == W + max(chunks or [1]) - 1 == W + trace.meta["longest_step"] - 1
    newest = {}
    for step in trace.steps:
        assert step.written == [t % cap for t in step.fed]
        assert step.lost == [t - cap for t in step.fed if t >= cap]
        newest |= {t % cap: t for t in step.fed}
        assert step.held == [newest.get(slot, -1) for slot in range(cap)]
        assert step.seen == [t for t in range(len(TEXT)) if 0 <= step.fed[-1] - t < W]
        assert set(step.seen) <= set(step.held), "what a query sees must still be there"
    assert [t for step in trace.steps for t in step.fed] == list(range(len(TEXT)))


@pytest.mark.parametrize("config", [SLIDING, HYBRID], ids=["sliding", "hybrid"])
def test_layers_reach_as_far_back_as_a_gradient_does(config):
    """The embedding of every token that the last one hears of moves it, and no other's does."""
    model = made(config)
    reach = record_window(model, TEXT, CHUNKS).steps[-1].reach
    step = Step.of([(0, 0, TEXT)])
    embedded = model.embed(step.ids).detach().requires_grad_()
    x = embedded
    for layer, (block, cache) in enumerate(zip(model.blocks, model.caches("none", 1, 1))):
        x = block(x, step, cache)
        (moves,) = torch.autograd.grad(x[-1].sum(), embedded, retain_graph=True)
        heard = moves.abs().sum(1).nonzero().flatten().tolist()
        assert heard == list(range(reach[layer], len(TEXT))), f"after {layer + 1} layers"


def test_sliding_layers_alone_reach_what_the_formula_says():
    steps = record_window(made(SLIDING), TEXT).steps
    for step in steps:
        last = step.fed[-1]
        for layers, first in enumerate(step.reach, 1):
            assert last - first + 1 == min(last + 1, formulas.receptive_field(layers, 5))
    assert record_window(made(HYBRID), TEXT).steps[-1].reach == [18, 0, 0]


@pytest.mark.parametrize("config", [SLIDING, HYBRID, DELTA], ids=["sliding", "hybrid", "delta"])
def test_a_watched_ring_gives_what_the_ring_gives(config):
    """To the last bit: the same kernels run."""
    config = config.replace(layer_types=("sliding", *config.types[1:]), window=5)
    model = made(config)
    plain, caches = (model.caches("ring", 1, len(TEXT), longest_step=4) for _ in range(2))
    watched = [
        cache if block.mixer.recurrent else window.Watched(cache, block.mixer.window)
        for block, cache in zip(model.blocks, caches)
    ]
    at = 0
    for n in CHUNKS:
        step = [(0, at, TEXT[at : at + n])]
        with torch.inference_mode():
            assert torch.equal(model(Step.of(step), watched), model(Step.of(step), plain))
        at += n
    record_window(model, TEXT, CHUNKS)  # and a recurrent layer in between is no obstacle


def test_a_window_trace_says_what_a_slot_costs_and_which_words_were_read(tmp_path):
    trace = record_window(made(SLIDING), TEXT[:9], decode=lambda ids: f"<{ids[0]}>")
    assert trace.meta["words"] == [f"<{id}>" for id in TEXT[:9]]
    assert trace.meta["token_bytes"] == 2 * 2 * 8 * 4  # keys and values, heads, size, bytes
    assert Trace.load(trace.save(tmp_path / "t.trace.json")) == trace


@pytest.mark.parametrize(
    "config, tokens, chunks, message",
    [
        (SMALL, TEXT, None, "no layer keeps a ring that 23 tokens in steps of up to 1 would fill"),
        (SLIDING, TEXT[:5], None, "no layer keeps a ring that 5 tokens"),
        (SLIDING, TEXT, [23], "no layer keeps a ring .* longer than window"),
        (SLIDING, [], None, "the prompt is empty"),
        (SLIDING, TEXT, [3, 3], "must be at least 1 each and sum to the 23 tokens, not 6"),
        (SLIDING, TEXT, [0, 23], "must be at least 1 each"),
    ],
)
def test_a_window_that_cannot_be_recorded(config, tokens, chunks, message):
    with pytest.raises(ValueError, match=message):
        record_window(made(config), tokens, chunks)


# -- routing ---------------------------------------------------------------------------------------


def routed(model, batches=((TEXT[:12]), (TEXT[12:15]), (TEXT[15:16])), **options):
    """One request, fed in these batches."""
    at = 0
    steps = []
    for ids in batches:
        steps.append(Step.of([(0, at, ids)]))
        at += len(ids)
    return record_routing(model, steps, model.caches("static", 1, 32), **options)


@pytest.mark.parametrize("layer", [1, 2])
def test_experts_and_weights_are_those_of_the_reference(layer):
    model = made(MOE)
    seen = []
    hook = model.blocks[layer].ffn.register_forward_hook(lambda _, x, __: seen.append(x[0]))
    trace = routed(model, layer=layer)
    hook.remove()
    router = model.blocks[layer].ffn.router.score.weight.detach().numpy()
    experts, weights = reference.route(torch.cat(seen).numpy(), router, 2)
    assert [step.experts for step in trace.steps] == experts.tolist()
    assert np.allclose([step.weights for step in trace.steps], weights, atol=6e-4)


def test_load_union_and_bytes_are_counted_forward_by_forward():
    trace = routed(made(MOE))
    expert = 3 * 32 * 16 * 4  # gate, up and down, in fp32
    assert trace.meta["expert_bytes"] == expert and trace.meta["layer"] == 1
    read = 0
    for forward, size in enumerate((12, 3, 1)):
        own = [step for step in trace.steps if step.forward == forward]
        assert len(own) == size
        for n, step in enumerate(own, 1):
            chosen = [expert for s in own[:n] for expert in s.experts]
            assert step.load == np.bincount(chosen, minlength=8).tolist()
            assert step.touched == len(set(chosen))
            assert step.read_bytes == (read + step.touched) * expert
        read += own[-1].touched
    assert trace.steps[-1].touched == 2 < trace.steps[11].touched


def test_a_watched_router_gives_what_it_gives_and_is_left_as_it_was():
    model = made(MOE)
    step = Step.of([(0, 0, TEXT)])
    outputs = []
    hook = model.register_forward_hook(lambda _, __, out: outputs.append(out))
    record_routing(model, [step], model.caches("static", 1, 32))
    hook.remove()
    with torch.inference_mode():
        assert torch.equal(outputs[0], model(step, model.caches("static", 1, 32)))
    assert not any(m._forward_hooks for m in model.modules())


def test_shared_experts_are_named_and_not_counted(tmp_path):
    shared = made(MOE.replace(n_shared_experts=2))
    trace = routed(shared, decode=lambda ids: chr(97 + ids[0] % 26))
    assert trace.meta["shared_bytes"] == 2 * trace.meta["expert_bytes"]
    assert trace.steps[0].token == chr(97 + TEXT[0] % 26) and trace.steps[0].touched == 2
    assert Trace.load(trace.save(tmp_path / "t.trace.json")) == trace


@pytest.mark.parametrize(
    "config, options, message",
    [
        (SMALL, {}, "no layer of this model has experts"),
        (MOE, {"layer": 0}, r"layer 0 routes no tokens; layers with experts: \[1, 2\]"),
        (MOE, {"batches": ()}, "there is nothing to route: give at least one step"),
    ],
)
def test_routing_that_cannot_be_recorded(config, options, message):
    with pytest.raises(ValueError, match=message):
        routed(made(config), **options)


# -- state -----------------------------------------------------------------------------------------


def numbers(steps, name):
    return np.array([getattr(step, name) for step in steps])


@pytest.mark.parametrize("layer, head", [(None, 0), (1, 3)])
def test_the_memory_is_the_references_token_by_token(layer, head):
    steps = record_state(made(DELTA), TEXT, layer=layer, head=head, digits=9).steps
    k, v, gate, beta = (numbers(steps, name) for name in ("key", "value", "gate", "beta"))
    assert np.allclose(np.linalg.norm(k, axis=1), 1, atol=1e-5) and k.shape == (23, 6)
    for n, step in enumerate(steps, 1):
        given = k[:n, None], v[:n, None], np.log(gate[:n, None]), beta[:n, None]
        _, memory = reference.delta_recurrent(k[:n, None], *given)
        assert np.allclose(step.state, memory[0], atol=1e-5)
        _, old = reference.delta_recurrent(*(x[: n - 1] for x in (k[:, None], *given)))
        told = step.key @ (step.gate * old[0])
        assert np.allclose(step.before, told, atol=1e-5)
        assert np.allclose(step.after, step.key @ memory[0], atol=1e-5)
        size = np.linalg.norm(step.value)
        assert step.error == pytest.approx(np.linalg.norm(step.value - told) / size, abs=1e-4)
        # with a key of length 1 a write leaves exactly what beta does not repair
        assert step.left == pytest.approx((1 - step.beta) * step.error, abs=1e-4)


def test_the_plain_memory_only_adds():
    steps = record_state(made(DELTA), TEXT, digits=9).steps
    k, v = numbers(steps, "key"), numbers(steps, "value")
    written = numbers(steps, "beta")[:, None] * v
    for n, step in enumerate(steps):
        assert np.allclose(
            step.plain, np.einsum("tk,tv->kv", k[: n + 1], written[: n + 1]), atol=1e-5
        )
        size = np.linalg.norm(v[n])
        for told, m in ((step.plain_error, n), (step.plain_left, n + 1)):
            answer = k[n] @ np.einsum("tk,tv->kv", k[:m], written[:m])
            assert told == pytest.approx(np.linalg.norm(v[n] - answer) / size, abs=1e-4)


def test_a_watched_state_gives_what_it_gives_and_is_left_as_it_was():
    model = made(DELTA)
    outputs = []
    hook = model.register_forward_hook(lambda _, __, out: outputs.append(out))
    trace = record_state(model, TEXT)
    hook.remove()
    with torch.inference_mode():
        told = labkit.logits(model, TEXT, [1] * len(TEXT), "static")
    assert torch.equal(torch.cat(outputs), told)
    assert [step.next for step in trace.steps] == list(map(str, told.argmax(1).tolist()))
    assert not any(m._forward_hooks for m in model.modules())
    assert isinstance(trace.steps[0], state.StateStep)


def test_a_state_is_as_large_after_one_token_as_after_many(tmp_path):
    trace, longer = (record_state(made(DELTA), TEXT[:n]) for n in (3, 20))
    bits = formulas.symbols.delta_state_bits(2, 4, 6, 4, DELTA.delta_conv, 32)
    assert trace.meta["state_bytes"] == longer.meta["state_bytes"] == bits / 8
    assert trace.meta["cache_bytes_per_token"] == (2 * 6 + 4 * 4) * 4
    assert Trace.load(trace.save(tmp_path / "t.trace.json")) == trace


@pytest.mark.parametrize(
    "config, options, message",
    [
        (SMALL, {}, "no layer of this model has a delta rule"),
        (DELTA, {"layer": 0}, r"layer 0 has no delta rule: choose from \[1, 2\]"),
        (DELTA, {"head": 4}, "layer 2 has heads 0 to 3, and no head 4"),
        (DELTA, {"tokens": []}, "the prompt is empty"),
        (DELTA, {"tokens": [64]}, "64"),
    ],
)
def test_a_state_that_cannot_be_recorded(config, options, message):
    with pytest.raises(ValueError, match=message):
        record_state(made(config), **{"tokens": TEXT, **options})

"""Chapter 06: what its labs compare is comparable, and what the page says breaks does break."""

import copy
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from animations.scenes.ch06_moe import RoutingABatch
from animations.stage.audit import inspect
from animations.stage.mobjects import LOOKS
from labkit import formulas, presets, reference, results, traces
from labkit.lab import labs
from labkit.moe import MoE
from labkit.trace import RoutingStep, Trace
from labkit_labs.ch06_moe import balance, dense, real
from labkit_labs.common import character, gpus, novels
from tests.cases import quick_rows, report

PAGE = Path(__file__).parents[2] / "book" / "chapters" / "06_moe.md"
QWEN = presets["qwen3-30b-a3b"]


def test_no_expert_is_worth_it_is_a_stop():
    rows = copy.deepcopy(quick_rows("CH06-DENSE"))
    for r in rows:
        r["multiple"] = 0.5
    assert "routing costs more than the experts save" in labs()["CH06-DENSE"].stops(rows)
    for r in rows:
        r |= {"device": "cuda", "multiple": 2.0, "median": 1.0}
    assert "gathering two experts is not 1.5 times" in labs()["CH06-DENSE"].stops(rows)


# -- what is compared is matched -----------------------------------------------------------


def held(block) -> int:
    return sum(p.numel() for p in block.ffn.parameters())


@pytest.mark.parametrize("config", [dense.MOE, real.shape(16)], ids=["small", "real"])
def test_the_dense_layers_are_matched_and_the_executions_share_their_experts(config):
    blocks = dense.layers(config, "cpu", torch.float32)
    router = config.n_experts * config.d_model
    loop = blocks[dense.LOOP]
    assert held(blocks[dense.CAPACITY]) == held(loop) - router
    share = config.n_active_experts / config.n_experts
    assert held(blocks[dense.ACTIVE]) == share * (held(loop) - router)
    for name, block in blocks.items():
        sizes = dense.sizes_of(name, config, touched=3)
        assert sizes["held"] == held(block)
        if name in dense.EXECUTIONS:
            assert block.ffn.execution == name.removeprefix("MoE, ")
            assert block.ffn.down is loop.ffn.down
            one = 3 * config.d_model * config.d_expert
            assert sizes["read"] == 3 * one + router


def test_the_real_size_is_the_models():
    config = real.shape(real.LAB.sizes["full"]["experts"])
    assert config.n_experts == QWEN.n_experts
    for size in ("d_model", "d_expert", "n_active_experts", "n_heads", "n_kv_heads"):
        assert getattr(config, size) == getattr(QWEN, size)


# -- balance -------------------------------------------------------------------------------


def test_the_correction_goes_up_where_an_expert_got_less_than_its_part():
    load = torch.tensor([6, 2, 4, 4])
    assert balance.moved(torch.zeros(4), load, 0.5).tolist() == [-0.5, 0.5, 0, 0]
    space = {"np": np}
    exec(cell("def moved"), space)
    assert np.allclose(
        space["moved"](np.zeros(4), load.numpy()), balance.moved(torch.zeros(4), load)
    )


def test_the_auxiliary_loss_is_one_where_all_is_even_and_more_where_the_favoured_are_chosen():
    even = balance.balance_loss(torch.ones(5, 4), torch.full((4,), 10.0))
    lopsided = torch.tensor([[4.0, 1, 1, 1]]).repeat(5, 1)
    favoured = balance.balance_loss(lopsided, torch.tensor([20.0, 0, 0, 0]))
    others = balance.balance_loss(lopsided, torch.tensor([0.0, 20, 0, 0]))
    assert even.item() == pytest.approx(1) and others < 1 < favoured


def test_the_auxiliary_loss_pulls_on_the_scores():
    scores = torch.tensor([[0.8, 0.2], [0.7, 0.3]], requires_grad=True)
    balance.balance_loss(scores, torch.tensor([2, 0])).backward()
    assert (scores.grad[:, 0] > 0).all() and (scores.grad[:, 1] < 0).all()


@pytest.fixture(scope="module")
def corrected():
    """A model of a few steps, with corrections large enough to choose by."""
    text = torch.tensor(character.encode(novels.split()[0][:5000]))
    model = balance.trained(text, balance.BIAS, 2, 0)
    generator = torch.Generator().manual_seed(3)
    for router in balance.routers(model):
        router.correction = torch.rand(router.correction.shape, generator=generator) - 0.5
    return model


def test_the_published_fault_changes_weights_and_no_choice(corrected):
    x = torch.randn(20, balance.CONFIG.d_model, generator=torch.Generator().manual_seed(1))
    router = balance.routers(corrected)[0]
    faulty = balance.routers(balance.weighing(copy.deepcopy(corrected)))[0]
    with torch.no_grad():
        (experts, weights), (same, others) = router(x), faulty(x)
    assert torch.equal(experts, same) and not torch.allclose(weights, others, atol=1e-2)
    assert torch.allclose(others.sum(1), torch.ones(20))


def test_a_correction_taken_out_is_a_router_without_one(corrected):
    x = torch.randn(20, balance.CONFIG.d_model, generator=torch.Generator().manual_seed(1))
    plain = balance.routers(balance.out(copy.deepcopy(corrected)))[0]
    with torch.no_grad():
        experts, _ = plain(x)
        scores = plain.score(x)
    assert torch.equal(experts, scores.topk(balance.CONFIG.n_active_experts).indices)
    assert not torch.equal(experts, balance.routers(corrected)[0](x)[0])


def test_a_training_that_was_done_is_not_done_again(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    sizes = {"steps": 1, "seeds": 1, "characters": 400}
    first = balance.run("cpu", **sizes)
    kept = sorted(tmp_path.glob("pieces/ch06-balance-*.json"))
    assert len(kept) == len(balance.TRAINED)
    monkeypatch.setattr(balance, "trained", lambda *_: pytest.fail("trained again"))
    assert balance.run("cpu", **sizes) == first
    kept[0].unlink()
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        balance.run("cpu", **sizes)


# -- what the page derives -----------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 32, 256])
def test_the_pages_step_is_the_floor_of_the_formulas(batch):
    """W_0 + w X (1 - (1 - A/X)^B) + B S c over beta; B f over pi is never more than that takes."""
    S, card = 1000, gpus.named("H200").ceilings
    X, A = QWEN.n_experts, QWEN.n_active_experts
    parts = formulas.read_parts(QWEN, batch)
    w = 2 * QWEN.n_layers * 3 * QWEN.d_model * QWEN.d_expert
    W0 = sum(size for name, size in parts.items() if name != "routed experts")
    read = W0 + w * X * (1 - (1 - A / X) ** batch) + batch * formulas.kv_cache_bytes(QWEN, S)
    assert read == pytest.approx(formulas.decode_bytes(QWEN, S, batch), rel=1e-6)
    floor = formulas.tpot_floor(QWEN, S, batch, card)
    assert read / card.bytes_per_second == pytest.approx(floor, rel=1e-6)
    f = 2 * (formulas.active_parameters(QWEN) - QWEN.vocab_size * QWEN.d_model)
    of_attention = formulas.attention_flops(QWEN, 1, S)
    assert formulas.decode_flops(QWEN, S) == pytest.approx(f + of_attention, rel=1e-3)
    assert batch * f / card.flops_per_second < floor


def test_the_pages_twins_are_one_request_apart_and_meet_when_all_is_read():
    twin = lambda n: QWEN.replace(n_experts=0, d_ff=n * QWEN.d_expert)
    assert (twin(128).d_ff, twin(8).d_ff) == (98304, 6144)
    read = lambda c, b: formulas.decode_bytes(c, 1000, b)
    assert read(QWEN, 1) == pytest.approx(read(twin(8), 1), rel=0.01)
    assert read(QWEN, 256) == pytest.approx(read(twin(128), 256), rel=0.01)
    assert 0.85 < read(QWEN, 32) / read(twin(128), 32) < 0.92


# -- what the page writes out --------------------------------------------------------------


def cell(words: str) -> str:
    """The page's code cell that holds these words, without its tags."""
    cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (found,) = [c for c in cells if words in c]
    return re.sub(r"^:tags:.*\n", "", found)


def test_the_pages_bug_passes_the_sizes_of_its_author(capsys):
    """A square expert cannot say which way it lies."""
    exec(cell("stored.shape[2] == d_in"), {"np": np, "reference": reference})
    said = [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["True", "True", "False"]
    assert presets["gpt-oss-20b"].d_model == presets["gpt-oss-20b"].d_expert == 2880


def test_the_pages_three_ways_are_one_and_the_models_own():
    space = {"np": np, "reference": reference}
    exec(cell("def gathered"), space)
    exec(cell("def grouped"), space)
    torch.manual_seed(0)
    moe = MoE(dense.MOE.replace(d_model=16, n_experts=8, d_expert=12), "loop")
    x = torch.randn(7, 16)
    with torch.no_grad():
        experts, weights = moe.router(x)
        want = moe(x).numpy()
    given = (
        *(t.numpy() for t in (x, experts, weights)),
        *(p.detach().numpy() for p in (moe.gate_up, moe.down)),
    )
    assert np.allclose(space["grouped"](*given), want, atol=1e-5)
    assert np.allclose(space["gathered"](*given), want, atol=1e-5)
    assert np.allclose(reference.moe(*given), want, atol=1e-5)
    assert not np.allclose(space["grouped"](*given, put_back=False), want, atol=1e-3)


def test_a_single_token_does_not_see_that_answers_are_left_sorted(capsys):
    space = {"np": np, "reference": reference}
    exec(cell("def gathered"), space)
    exec(cell("def grouped"), space)
    exec(cell("for tokens in (1, 6)"), space)
    assert capsys.readouterr().out.splitlines() == [
        "1 tokens: put back True, not True",
        "6 tokens: put back True, not False",
    ]


def test_the_pages_test_of_a_correction_sees_the_fault(capsys):
    draw = np.random.default_rng(0)
    space = {
        "np": np, "reference": reference, "draw": draw, "A": 2, "X": 8, "D": 16,
        "router": draw.standard_normal((8, 16)),
    }  # fmt: skip
    exec(cell("def weighs"), space)
    assert capsys.readouterr().out.splitlines() == ["right True", "wrong False"]


def test_the_page_counts_what_a_token_of_deepseek_sends():
    c = presets["deepseek-v3"]
    layers = sum(map(c.has_experts, range(c.n_layers)))
    assert (c.d_model, c.n_active_experts, layers) == (7168, 8, 58)
    sent = 2 * 58 * 8 * 7168 * 2 * 7 / 8
    assert math.isclose(formulas.expert_parallel_bytes(1, 7168, 8, 58, 16, 8), sent)


def test_the_snippet_in_the_wild_warns_of_nothing():
    """With warnings as errors, on the transformers that is installed."""
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(cell("Qwen3MoeConfig("), {"torch": torch})


# -- what the clip shows -------------------------------------------------------------------


def look_of(cell) -> str:
    return next(k for k, (fill, *_) in LOOKS.items() if cell.get_fill_color() == fill)


def test_the_clip_shows_the_choices_of_its_trace():
    seen, made = report(RoutingABatch).texts, report(RoutingABatch).scene
    trace = traces.stored("ch06/routing_characters")
    last = trace.steps[-1]
    assert [chip.token for chip in made.chips] == [step.token for step in trace.steps]
    assert {f"{w:.2f}" for step in trace.steps for w in step.weights} <= seen
    assert (made.used.value, made.read.value) == (trace.meta["active"], last.touched)
    assert len(made.experts) == made.used.full == made.read.full == trace.meta["experts"]
    assert [look_of(e.box) for e in made.experts] == [
        "stored" if load else "done" for load in last.load
    ]


def test_the_clip_reads_what_a_batch_touches_and_says_that_a_token_uses_no_more():
    """The second bar runs through the union; the first never moves."""

    class Watched(RoutingABatch):
        def leave(self, i):
            counts.append((i, self.used.value, self.read.value))
            super().leave(i)

    counts = []
    inspect(Watched)
    steps = traces.stored("ch06/routing_characters").steps
    assert counts == [(i, 2, step.touched) for i, step in enumerate(steps)]
    assert counts[-1][2] == len({e for step in steps for e in step.experts}) == 7


def test_the_clips_large_layer_touches_what_was_measured():
    made = report(RoutingABatch).scene
    said = {m.name: m.sentence for m in made.moments}
    for kind, many in zip(("independent", "alike"), made.many):
        measured = results.row("ch06/union", model="qwen3-30b-a3b", tokens_are=kind, batch=32)[
            "touched"
        ]
        lit = [look_of(cell) for cell in many.cells]
        assert (
            len(lit) == QWEN.n_experts and lit.count("done") == QWEN.n_experts - many.number.value
        )
        assert many.number.value == round(measured) and f"read {measured:.0f}" in said[kind]
        assert lit.count("active") == (QWEN.n_active_experts if kind == "independent" else 0)
        # the words of its `alt`
        assert measured / QWEN.n_experts > 0.8 if kind == "independent" else measured < 64
    assert many.touched[1] == QWEN.n_active_experts


def routed(folder, tokens: str, experts: int, active: int):
    """A trace of a router that sends token i to i, i + 1, …, and the stored unions beside it."""
    load, steps = [0] * experts, []
    for i, token in enumerate(tokens):
        chosen = [(i + a) % experts for a in range(active)]
        for e in chosen:
            load[e] += 1
        touched = sum(map(bool, load))
        weights = [round(1 / active, 3)] * active
        steps.append(RoutingStep(0, token, chosen, weights, list(load), touched, touched))
    meta = {"experts": experts, "active": active, "layer": 0, "expert_bytes": 1, "shared_bytes": 0}
    path = folder / "ch06/routing_characters.trace.json"
    Trace("routing", "a test", meta, steps).save(path)
    for name in ("machines.json", *(p.name for p in results.folder().glob("ch06/union.*"))):
        place = folder if name == "machines.json" else folder / "ch06"
        source = results.folder() / place.relative_to(folder) / name
        (place / name).write_text(source.read_text())


def test_the_clip_follows_another_trace(tmp_path, monkeypatch):
    routed(tmp_path, "a\nb ", experts=7, active=3)
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    other = inspect(RoutingABatch)
    assert other.findings == []
    assert (other.scene.used.value, other.scene.read.value) == (3, 6)
    assert {"of 7 experts", "0.33", "↵", "␣", "4 tokens, 7 experts"} <= other.texts


@pytest.mark.parametrize(
    ("tokens", "experts", "active"),
    [("ab", 4, 2), ("thirteen char", 4, 2), ("abc", 9, 2), ("abc", 4, 1), ("abc", 4, 4)],
)
def test_a_trace_that_the_clip_has_no_room_for_is_refused(
    tokens, experts, active, tmp_path, monkeypatch
):
    routed(tmp_path, tokens, experts, active)
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=f"not {len(tokens)} that use {active} of {experts}"):
        inspect(RoutingABatch)

"""Chapter 03: what its labs compare is comparable, and what the page says breaks does break."""

import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import labkit
from animations.scenes.ch03_gqa import HeadGrouping
from animations.stage import audit
from animations.stage.mobjects import Cell
from labkit import bench, formulas, presets, reference
from labkit_labs.ch03_gqa import heads, orders, pool, text

TINY = presets["tiny"]
PAGE = Path(__file__).parents[2] / "book" / "chapters" / "03_gqa.md"
TEXT = list(b"the cat sat")


# -- the ways of attending -----------------------------------------------------------------


@pytest.mark.parametrize("way", [heads.NEW, heads.KEPT])
def test_expanding_is_grouping_with_copies(way):
    ways, held = heads.attention(8, 40, "cpu")
    assert torch.allclose(ways["grouped"](), ways[way](), atol=1e-5)
    assert held == 2 * 40 * 8 * 128 * 4


def test_memory_that_is_kept_is_written_again():
    """A second step over the same cache gives the same numbers."""
    ways, _ = heads.attention(8, 40, "cpu")
    first = ways[heads.KEPT]()
    assert torch.equal(ways[heads.KEPT](), first)


def test_each_way_is_timed_right_after_a_run_of_itself(monkeypatch):
    calls = []

    def timed(fn, device):
        calls.append("clock")
        return 2.5, fn()

    monkeypatch.setattr(bench, "timed", timed)
    second = heads.warm(lambda: calls.append("run"), "cpu")
    assert second() == 2.5 and calls == ["run", "clock", "run"]


def test_all_ways_are_charged_the_bytes_they_move():
    """A copy is written, then read; the FLOPs are those of all query heads in every way."""
    rows = heads.run("cpu", contexts=[64], repeats=1)
    kept = {(r["variant"], r["way"]): r for r in rows}
    mha = kept["MHA", "grouped"]["cache_bytes"]
    for (variant, way), r in kept.items():
        share = {"MHA": 1, "GQA": 1 / 4, "MQA": 1 / 32}[variant]
        assert r["bytes"] == mha * (share + (0 if way == "grouped" else 2))
    assert len({r["flops"] for r in rows}) == 1 and len(rows) == 7


# -- the order of heads --------------------------------------------------------------------


def logits(model) -> np.ndarray:
    return model.forward(TEXT)


def apart(a, b) -> float:
    return float(np.abs(logits(a) - logits(b)).max())


@pytest.mark.parametrize("H,G", [(4, 4), (4, 2), (4, 1), (6, 3)])
def test_tied_heads_are_grouped_attention_and_cards_are_not(H, G):
    """But for one key head, and for as many as queries: there the orders are the same."""
    gqa = reference.TinyGPT(TINY.replace(n_heads=H, n_kv_heads=G))
    right = orders.untied(gqa, lambda k: np.repeat(k, H // G, axis=0))
    cards = orders.untied(gqa, lambda k: np.tile(k, (H // G, 1, 1)))
    assert apart(gqa, right) < 1e-4
    assert (apart(gqa, cards) < 1e-4) == (G in (1, H))


@pytest.mark.parametrize("H,G", [(4, 2), (6, 3), (6, 2)])
def test_dealt_heads_are_what_cards_compute(H, G):
    """The torch model with moved query heads is the NumPy twin whose keys lie like cards."""
    torch.manual_seed(0)
    model = labkit.GPT(TINY.replace(n_heads=H, n_kv_heads=G)).eval()
    dealt = orders.dealt(model)
    twin = reference.TinyGPT.of(model)
    cards = orders.untied(twin, lambda k: np.tile(k, (H // G, 1, 1)))
    got = labkit.logits(dealt, TEXT).numpy()
    assert np.allclose(got, logits(cards), atol=1e-3)
    assert not np.allclose(got, logits(twin), atol=1e-1)


@pytest.mark.parametrize("G", [1, 4])
def test_dealing_changes_nothing_where_there_is_no_order(G):
    torch.manual_seed(0)
    model = labkit.GPT(TINY.replace(n_kv_heads=G)).eval()
    got, want = labkit.logits(orders.dealt(model), TEXT), labkit.logits(model, TEXT)
    assert torch.allclose(got, want, atol=1e-5)


def test_a_turned_head_is_the_same_model_with_another_average():
    twins = orders.twins(reference.TinyGPT(TINY))
    R = np.linalg.qr(np.random.default_rng(0).standard_normal((16, 16)))[0]
    turned = orders.turned(twins, R)
    assert apart(twins, orders.pooled(twins)) < 1e-4  # the control: nothing to lose
    assert apart(twins, turned) < 1e-4
    assert apart(twins, orders.pooled(turned)) > 1


# -- pooling -------------------------------------------------------------------------------


def test_pooling_averages_heads_and_changes_nothing_where_they_are_alike():
    torch.manual_seed(0)
    model, tokens = labkit.GPT(TINY.replace(n_kv_heads=4)).eval(), list(range(20))
    E, H = TINY.head_dim, TINY.n_heads
    key = "blocks.1.mixer.qkv.weight"
    old = model.state_dict()[key].unflatten(0, (-1, E))
    new = pool.pool(model, 2).state_dict()[key].unflatten(0, (-1, E))
    assert torch.equal(new[:H], old[:H])
    assert torch.allclose(new[H], (old[H] + old[H + 1]) / 2)
    assert torch.allclose(new[-1], (old[-2] + old[-1]) / 2)
    first = pool.pool(model, 2, pool.FIRST).state_dict()[key].unflatten(0, (-1, E))
    assert torch.equal(first[H:], old[H::2])
    with torch.no_grad():
        for block in model.blocks:
            rows = block.mixer.qkv.weight.view(-1, E, TINY.d_model)
            rows[H : H + 4] = rows[H : H + 1].clone()
            rows[H + 4 :] = rows[H + 4 : H + 5].clone()
    for how in (pool.AVERAGED, pool.FIRST):
        assert torch.allclose(
            labkit.logits(pool.pool(model, 1, how), tokens),
            labkit.logits(model, tokens),
            atol=1e-5,
        )
    with pytest.raises(ValueError, match="4 key/value heads can't be averaged into 3"):
        pool.pool(model, 3)


# -- designs that are trained --------------------------------------------------------------


def test_designs_differ_in_heads_and_not_in_weights():
    made = text.designs()
    assert [c.n_kv_heads for c in made.values()] == [8, 2, 1]
    weights = [formulas.parameters(c) for c in made.values()]
    assert max(weights) <= 1.01 * min(weights)
    bytes = [formulas.kv_cache_bytes(c, 1) for c in made.values()]
    assert bytes == [bytes[0], bytes[0] / 4, bytes[0] / 8]


def test_training_depends_on_its_seed_alone():
    from labkit_labs.common import novels

    some = novels.split()[0][:5000]
    config = text.designs()["MQA"]
    first, again, other = (text.trained(config, some, 1, seed) for seed in (0, 0, 1))
    weight = lambda model: model.state_dict()["embed.weight"]
    assert torch.equal(weight(first), weight(again))
    assert not torch.equal(weight(first), weight(other))


# -- what the page writes out ----------------------------------------------------------------


def cell(words: str) -> str:
    """The page's code cell that holds these words, without its tags."""
    cells = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (found,) = [c for c in cells if words in c]
    return re.sub(r"^:tags:.*\n", "", found)


def test_the_pages_bug_passes_the_tests_of_its_author(capsys):
    """MHA and MQA cannot tell the orders apart: two key heads and four queries do."""
    exec(cell("np.tile(k, (1, H"), {"np": np, "reference": reference})
    said = [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["True", "True", "False"]


def test_the_pages_share_of_bytes_is_the_labs():
    """What its lines on copies count, in megabytes, is what the lab charges."""
    mha, gqa = (
        formulas.kv_cache_bytes(heads.LLAMA.replace(n_kv_heads=G), 8000, 1, "fp32") / 32
        for G in (32, 8)
    )
    assert (mha, gqa) == (262.144e6, 65.536e6)
    assert math.isclose(mha / (gqa + 2 * mha), 0.444, abs_tol=1e-3)


def test_the_snippet_in_the_wild_warns_of_nothing():
    """With warnings as errors, on the transformers that is installed."""
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(cell("repeat_kv"), {"torch": torch})


# -- the clip ------------------------------------------------------------------------------


def test_the_clip_shows_as_many_key_heads_as_it_says():
    """Heads that have moved into one are gone, and do not stay behind."""
    shown = []

    class Watched(HeadGrouping):
        def read(self, group):
            super().read(group)
            cells = [m for top in self.mobjects for m in top.get_family() if isinstance(m, Cell)]
            shown.append((self.kv_heads, len(cells)))

    audit.inspect(Watched)
    assert shown == [(8, 2 * 8), (1, 2 * 1), (8, 2 * 8)]

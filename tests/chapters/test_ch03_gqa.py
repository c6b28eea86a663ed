"""Chapter 03: what its labs compare is comparable."""

import pytest
import torch

import labkit
from labkit import presets
from labkit_labs.ch03_gqa import heads, pool

TINY = presets["tiny"]


def test_expanding_is_grouping_with_copies():
    ways, held = heads.attention(8, 40, "cpu")
    assert (
        torch.allclose(ways["grouped"](), ways["expanded"](), atol=1e-5)
        and held == 2 * 40 * 8 * 128 * 4
    )


def test_pooling_averages_heads_and_changes_nothing_where_they_are_alike():
    torch.manual_seed(0)
    model, tokens = labkit.GPT(TINY.replace(n_kv_heads=4)).eval(), list(range(20))
    E, H = TINY.head_dim, TINY.n_heads
    pooled = pool.pool(model, 2)
    key = "blocks.1.mixer.qkv.weight"
    old = model.state_dict()[key].unflatten(0, (-1, E))
    new = pooled.state_dict()[key].unflatten(0, (-1, E))
    assert (
        torch.equal(new[:H], old[:H])
        and torch.allclose(new[H], (old[H] + old[H + 1]) / 2)
        and torch.allclose(new[-1], (old[-2] + old[-1]) / 2)
    )
    with torch.no_grad():
        for block in model.blocks:
            heads = block.mixer.qkv.weight.view(-1, E, TINY.d_model)
            heads[H : H + 4] = heads[H : H + 1].clone()
            heads[H + 4 :] = heads[H + 4 : H + 5].clone()
    assert torch.allclose(
        labkit.logits(pool.pool(model, 1), tokens), labkit.logits(model, tokens), atol=1e-5
    )
    with pytest.raises(ValueError, match="4 key/value heads can't be averaged into 3"):
        pool.pool(model, 3)

"""Chapter 04: the two paths cost what the formulas say."""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from labkit import presets
from labkit_labs.ch04_mla import absorbed
from labkit_labs.common import layer
from tests.cases import quick_rows


@pytest.mark.parametrize("path", ["absorbed", "reprojected"])
def test_the_costs_of_both_latent_paths_are_those_that_torch_counts(path):
    mixer, config = layer.make(presets["tiny-mla"]), presets["tiny-mla"]
    mixer.path = path
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer.decoder(mixer, 50)()
    projections = 2 * (mixer.down.weight.numel() + mixer.out.weight.numel())
    assert counter.get_total_flops() == projections + absorbed.costs(config, 50)[path]


def test_a_latent_layer_keeps_576_numbers_a_token():
    row = quick_rows("CH04-ABSORBED")[0]
    assert row["latent_bytes"] == row["context"] * (512 + 64) * 4
    assert row["v3_bytes"] == row["context"] * (512 + 64) * 61 * 2 and row[
        "v3_saving"
    ] == pytest.approx(128 * (128 + 64 + 128) / 576)

"""Chapter 01: the components of the count add up."""

import pytest

from labkit_labs.ch01_where_the_work_goes import flops


@pytest.mark.parametrize("name", flops.MODELS)
def test_components_add_up_to_the_formula(name):
    row = flops.by_component(name, 5000)
    assert row["flops"] == row["formula"] and sum(
        row[f"share_{part}"] for part in ("projections", "attention", "ffn", "head")
    ) == pytest.approx(1)

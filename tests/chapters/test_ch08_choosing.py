"""Chapter 08: tricks are caught, designs fail for the reason given."""

import pytest
import torch

import labkit
from labkit import formulas
from labkit.lab import labs
from labkit_labs.ch08_choosing import fair, pretraining, shell
from tests.cases import quick_rows


@pytest.mark.parametrize("trick", fair.TRICKS)
def test_each_trick_is_caught_by_its_own_check_and_by_no_other(trick):
    setup = fair.Setup(prompt=24)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        _, theirs, ours = fair.compare(*fair.rig(setup, setup, trick), "cpu", 1)
        assert [name for name in fair.CHECKS if fair.check(name, theirs, ours)] == [trick]
        assert torch.get_num_threads() == 3  # it gives back what it took
    finally:
        torch.set_num_threads(before)


def test_one_shell_counts_the_lines_that_differ():
    rows = {r["variant"]: r for r in quick_rows("CH08-SHELL")}
    assert [rows[v]["mixer_lines"] for v in ("GQA", "MQA", "SWA", "MoE")] == [0] * 4
    assert rows["MLA"]["mixer_lines"] > 20 and rows["MoE"]["ffn_lines"] > 20
    assert (
        rows["GQA"]["bytes_a_token"] * 4 == rows["MHA"]["bytes_a_token"]
        and rows["SWA"]["bytes_a_further_token"] == 0
    )
    assert shell.differing(labkit.ffn.SwiGLU, labkit.ffn.SwiGLU) == 0


def test_a_design_fails_for_the_reason_given():
    meets = lambda **target: {r["design"]: r for r in pretraining.run(**target)}
    rows = meets(gpu="H100", context=32768, users=16, tokens_per_second=30.0)
    assert rows["MHA, G = 32"]["why_not"] == "fits 3 users" and rows["GQA, G = 4"]["meets"]
    assert rows["GQA 8, 32 experts, 4 active"]["why_not"] == "its weights don't fit"
    # bound by bytes
    seconds = formulas.decode_bytes(pretraining.BASE, 32768, 16) / 3.35e12
    assert rows["GQA, G = 8"]["reaches"] == pytest.approx(1 / seconds)
    assert meets(users=4, tokens_per_second=1e4)["MQA, G = 1"]["why_not"].startswith("reads ")
    with pytest.raises(ValueError, match="must be above 0"):
        meets(users=0)


def test_a_target_that_no_design_meets_is_a_stop():
    rows = pretraining.run(gpu="L4", context=131072, users=64)
    assert "change the target before you train" in labs()["CH08-PRETRAINING"].go(rows)

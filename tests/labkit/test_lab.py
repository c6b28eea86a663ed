"""A lab is asked for, set and judged by one class."""

import json
import re
from dataclasses import replace

import pytest

from labkit import paths
from labkit.cli import main
from labkit.lab import labs


def test_a_gpu_is_asked_for_the_right_answer_and_not_for_the_speed_of_a_model_this_small():
    def slow(rows):
        return None if rows[0]["multiple"] > 2 else "too slow"

    def wrong(rows):
        return None if rows[0]["gap"] < 1e-4 else "wrong"

    lab = replace(labs()["CH03-HEADS"], go=wrong, pays=slow)
    assert lab.stops([{"gap": 0.0, "multiple": 1.0}]) == "too slow"
    assert lab.stops([{"gap": 0.0, "multiple": 1.0}], "cuda") is None
    assert lab.stops([{"gap": 1.0, "multiple": 9.0}], "cuda") == "wrong"


def test_a_setting_changes_the_question(capsys):
    main(["lab", "CH03-SAVINGS", "--quick", "--set", "gpu=L4", "--set", "dtype=int8", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["gpu"] == "L4" and rows[0]["bytes_per_token"] == 2 * 32 * 32 * 128


@pytest.mark.parametrize(
    "args,message",
    [
        (
            ["CH08-PRETRAINING", "--set", "gpus=L4"],
            (
                "CH08-PRETRAINING has no setting 'gpus': choose from gpu, context, users,"
                " tokens_per_second"
            ),
        ),
        (["CH08-PRETRAINING", "--set", "users=many"], "users is a number such as 16, not 'many'"),
        (["CH08-PRETRAINING", "--set", "users=0"], "must be above 0"),
        (["CH08-PRETRAINING", "--set", "gpu=H10"], "no GPU is called 'H10'; did you mean 'H100'?"),
        (["CH03-SAVINGS", "--set", "model=deepseek-v3"], "no key/value heads to take away"),
        (["CH06-UNION", "--set", "x=1"], "it takes none"),
        (["CH08-PRETRAINING", "--store", "--set", "users=2"], "leave out --set or --store"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_2(capsys, args, message):
    with pytest.raises(SystemExit, match="2"):
        main(["lab", *args])
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_no_lab_forks_a_process_that_may_have_computed():
    """The child would wait for torch's threads for ever (pytorch#17199)."""
    for path in paths.labs().rglob("*.py"):
        text = path.read_text()
        assert "os.fork(" not in text, path.name
        for call in re.findall(r"\b(?:ProcessPoolExecutor|multiprocessing\.Pool)\((.*)\)", text):
            assert "mp_context=" in call, f"{path.name}: {call}"
        assert '"fork"' not in text, path.name

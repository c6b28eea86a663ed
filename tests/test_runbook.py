"""The runbook: labs in the order in which each rests on the one before, and a stop that stops."""

import json
from dataclasses import replace

import pytest

from labkit import cli, results
from labkit.cli import lab as lab_command
from labkit.cli.lab import Lab, in_order, labs


def a_lab(id: str, needs: str, rows=None, go=None, chapter="01") -> Lab:
    return Lab(
        id,
        f"title of {id}",
        chapter,
        "An objective.",
        needs,
        "A notice.",
        {"x": "x"},
        lambda device, quick: rows or [{"x": 1}],
        go=go,
    )


def use(monkeypatch, *made: Lab) -> None:
    monkeypatch.setattr(lab_command, "labs", lambda: {lab.id: lab for lab in made})


def run(capsys, *args):
    try:
        cli.main(["runbook", *args])
        code = 0
    except SystemExit as e:
        code = e.code
    out = capsys.readouterr()
    return code, out.out, out.err


def broken(device, quick):
    raise ValueError("the two loops wrote different tokens")


CHAIN = (
    a_lab("A", "nothing"),
    a_lab("B", "A", go=lambda rows: None),
    a_lab("C", "B", go=lambda rows: f"x is {rows[0]['x']}: look at x"),
    a_lab("D", "C"),
)


LAST = ["CH08-SHELL", "CH08-ORDER", "CH08-PRETRAINING"]


def test_every_lab_comes_after_the_one_it_needs():
    order = [lab.id for lab in in_order()]
    assert sorted(order) == sorted(labs()) and order[0] == "CH01-FLOPS"
    for lab in in_order():
        assert lab.needs == "nothing" or order.index(lab.needs) < order.index(lab.id)
    decks = [f"CH4B-LAB-{i:02}" for i in range(1, 10)]
    assert [id for id in order if id in decks] == decks and [
        id for id in order if id in LAST
    ] == LAST


def test_needs_decide_before_chapters(monkeypatch):
    use(
        monkeypatch,
        a_lab("A", "Z"),
        a_lab("B", "nothing", chapter="02"),
        a_lab("Z", "B", chapter="03"),
    )
    assert [lab.id for lab in in_order()] == ["B", "Z", "A"]


def test_a_need_that_nobody_meets_is_refused(monkeypatch):
    use(monkeypatch, a_lab("A", "nothing"), a_lab("B", "C"), a_lab("C", "B"))
    with pytest.raises(ValueError, match="B needs C; C needs B: that can't be put in order"):
        in_order()


def test_a_stop_ends_the_run_with_exit_1_and_says_where_to_go_on(capsys, monkeypatch):
    use(monkeypatch, *CHAIN)
    code, out, _ = run(capsys)
    assert code == 1 and "stop: x is 1: look at x" in out and "title of D" not in out
    assert "3 of 4 labs" in out and "labkit runbook --from C" in out


def test_keep_going_runs_all_whatever_happens_and_still_ends_with_exit_1(
    capsys, monkeypatch, tmp_path
):
    """A GPU that is lent for minutes: what fails there fails alone."""

    def out_of_memory(device, quick):
        raise RuntimeError("CUDA out of memory")

    use(
        monkeypatch,
        *CHAIN[:3],
        Lab("D", "title of D", "01", "O.", "C", "N.", {}, out_of_memory),
        a_lab("E", "D"),
    )
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    code, out, _ = run(capsys, "--keep-going", "--store")
    assert (
        code == 1
        and "stop: CUDA out of memory" in out
        and "5 of 5 labs" in out
        and "Look at what C, D says" in out
    )
    assert sorted(p.name.split(".")[0] for p in tmp_path.iterdir()) == ["a", "b", "e"]


def test_from_begins_there(capsys, monkeypatch):
    use(monkeypatch, *CHAIN)
    code, out, _ = run(capsys, "--from", "d")
    assert code == 0 and "1 of 1 labs" in out and "All say go." in out and "title of A" not in out


def test_a_lab_that_breaks_is_a_stop(capsys, monkeypatch):
    use(
        monkeypatch,
        a_lab("A", "nothing"),
        Lab("B", "b", "01", "O.", "A", "N.", {}, broken),
        a_lab("C", "B"),
    )
    code, out, _ = run(capsys, "--json")
    summary = json.loads(out)
    assert code == 1 and summary["stopped"] == "B"
    assert [r["checkpoint"] for r in summary["rows"]] == [
        "go",
        "stop: the two loops wrote different tokens",
    ]


def test_what_said_go_is_stored_and_what_said_stop_is_not(capsys, monkeypatch, tmp_path):
    use(monkeypatch, *CHAIN)
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    run(capsys, "--store")
    assert sorted(p.name.split(".")[0] for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    "args,message",
    [
        (["--from", "CH4B-LAB-99"], "no lab is called 'CH4B-LAB-99'"),
        (["--quick", "--store"], "too small to be stored"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(capsys, args, message):
    code, out, err = run(capsys, *args)
    assert code == 2 and message in err and err.count("\n") == 1 and not out


def test_a_real_lab_runs(capsys, monkeypatch):
    use(monkeypatch, replace(labs()["CH03-SAVINGS"], needs="nothing"))
    code, out, _ = run(capsys, "--quick")
    assert code == 0 and "1 of 1 labs" in out and "All say go." in out

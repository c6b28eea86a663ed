"""The runbook: labs in the order in which each rests on the one before, and a stop that stops."""

import json
from dataclasses import replace

import pytest

from labkit import cli, dtypes, results
from labkit import lab as house
from labkit.lab import Lab, in_order, labs


def a_lab(id: str, needs: str = "", run=None, go=None, chapter="01") -> Lab:
    return Lab(
        title=f"title of {id}",
        objective="An objective.",
        asks="A question?",
        notice="A notice.",
        columns={"x": "x"},
        run=run or (lambda device: [{"x": 1}]),
        go=go,
        needs=(needs,) if needs else (),
        id=id,
        chapter=chapter,
    )


def use(monkeypatch, *made: Lab) -> None:
    monkeypatch.setattr(house, "labs", lambda: {lab.id: lab for lab in made})


def run(capsys, *args):
    try:
        cli.main(["runbook", *args])
        code = 0
    except SystemExit as e:
        code = e.code
    out = capsys.readouterr()
    return code, out.out, out.err


def broken(device):
    raise ValueError("the two loops wrote different tokens")


CHAIN = (
    a_lab("CH01-A"),
    a_lab("CH01-B", "CH01-A", go=lambda rows: None),
    a_lab("CH01-C", "CH01-B", go=lambda rows: f"x is {rows[0]['x']}: look at x"),
    a_lab("CH01-D", "CH01-C"),
)


def test_labs_run_by_chapter_in_the_order_that_each_folder_states():
    order = [lab.id for lab in in_order()]
    assert order == list(labs()) and order[0] == "CH00-NEIGHBOURS"
    for lab in in_order():
        assert all(order.index(need) < order.index(lab.id) for need in lab.needs)


def test_needs_decide_before_chapters(monkeypatch):
    use(
        monkeypatch,
        a_lab("CH01-A", "CH01-Z"),
        a_lab("CH01-B", "", chapter="02"),
        a_lab("CH01-Z", "CH01-B", chapter="03"),
    )
    assert [lab.id for lab in in_order()] == ["CH01-B", "CH01-Z", "CH01-A"]


def test_a_need_that_nobody_meets_is_refused(monkeypatch):
    use(monkeypatch, a_lab("CH01-A"), a_lab("CH01-B", "CH01-C"), a_lab("CH01-C", "CH01-B"))
    with pytest.raises(
        ValueError, match="CH01-B needs CH01-C; CH01-C needs CH01-B: that can't be put in order"
    ):
        in_order()


def test_a_stop_ends_the_run_with_exit_1_and_says_where_to_go_on(capsys, monkeypatch):
    use(monkeypatch, *CHAIN)
    code, out, _ = run(capsys)
    assert code == 1 and "stop: x is 1: look at x" in out and "title of CH01-D" not in out
    assert "3 of 4 labs" in out and "labkit runbook --from CH01-C" in out


def test_keep_going_runs_all_whatever_happens_and_still_ends_with_exit_1(
    capsys, monkeypatch, tmp_path
):
    """A GPU that is lent for minutes: what fails there fails alone."""

    def out_of_memory(device):
        raise RuntimeError("CUDA out of memory")

    use(
        monkeypatch,
        *CHAIN[:3],
        a_lab("CH01-D", "CH01-C", out_of_memory),
        a_lab("CH01-E", "CH01-D"),
    )
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    code, out, _ = run(capsys, "--keep-going", "--store")
    assert (
        code == 1
        and "stop: CUDA out of memory" in out
        and "5 of 5 labs" in out
        and "Look at what CH01-C, CH01-D says" in out
    )
    assert sorted(p.name.split(".")[0] for p in tmp_path.rglob("*.json")) == ["a", "b", "e"]


def test_from_begins_there(capsys, monkeypatch):
    use(monkeypatch, *CHAIN)
    code, out, _ = run(capsys, "--from", "ch01-d")
    assert (
        code == 0 and "1 of 1 labs" in out and "All say go." in out and "title of CH01-A" not in out
    )


def test_a_lab_that_breaks_is_a_stop(capsys, monkeypatch):
    use(
        monkeypatch,
        a_lab("CH01-A"),
        a_lab("CH01-B", "CH01-A", broken),
        a_lab("CH01-C", "CH01-B"),
    )
    code, out, _ = run(capsys, "--json")
    summary = json.loads(out)
    assert code == 1 and summary["stopped"] == "CH01-B"
    assert [r["checkpoint"] for r in summary["rows"]] == [
        "go",
        "stop: the two loops wrote different tokens",
    ]


def test_what_said_go_is_stored_and_what_said_stop_is_not(capsys, monkeypatch, tmp_path):
    use(monkeypatch, *CHAIN)
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    run(capsys, "--store")
    assert sorted(p.name.split(".")[0] for p in tmp_path.rglob("*.json")) == ["a", "b"]


def test_what_is_stored_says_how_loaded_the_machine_was_and_the_labs_own_threads(
    capsys, monkeypatch, tmp_path
):
    use(monkeypatch, replace(a_lab("CH01-A"), threads=3))
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    monkeypatch.setattr("labkit.cli.lab.load_average", lambda: 0.75)
    run(capsys, "--store")
    env = json.loads(next(tmp_path.rglob("*.json")).read_text())["env"]
    assert (env["load"], env["threads"]) == (0.75, 3)


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
    use(monkeypatch, labs()["CH03-SAVINGS"])
    code, out, _ = run(capsys, "--quick")
    assert code == 0 and "1 of 1 labs" in out and "All say go." in out


def test_what_runs_on_the_cpu_alone_is_not_run_where_a_gpu_is_lent(capsys, monkeypatch):
    def name(device):
        return [{"x": device}]

    own = replace(a_lab("CH01-B", run=name), cpu_only=True)
    assert own.measure("cuda")[0]["x"] == "cpu"
    use(monkeypatch, a_lab("CH01-A", run=name), own)
    monkeypatch.setattr(dtypes, "check_device", lambda device: None)
    code, out, _ = run(capsys, "--device", "cuda")
    assert code == 0 and "1 of 1 labs" in out and "title of CH01-B" not in out

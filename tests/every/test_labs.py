"""Each lab gives the columns it promises; its checkpoint stops at a result that should stop it."""

import copy
import json

import pytest

from labkit import results, traces
from labkit.lab import labs
from labkit.tables import table
from tests.cases import LabCase, lab_cases, quick_rows, reads_well

LABS, CASES = labs(), lab_cases()
DOCTORED = [(id, *doctor) for id, case in CASES.items() for doctor in case.doctored]


def marked(id: str, *values):
    marks = [pytest.mark.smollm2] if CASES[id].real else []
    return pytest.param(id, *values, marks=marks, id="-".join([id, *values[-1:]]))


each_lab = pytest.mark.parametrize("id", [marked(id) for id in LABS])


def calm(id: str) -> list[dict]:
    """The rows that a checkpoint is tried on: only a doctor's change counts."""
    case: LabCase = CASES[id]
    rows = copy.deepcopy(case.rows or quick_rows(id))
    for where, change in case.calm:
        for row in rows:
            if where.items() <= row.items():
                row.update({k: v for k, v in change.items() if row.get(k) is not None})
    return rows


@each_lab
def test_a_quick_run_gives_what_the_lab_promises(id):
    lab, rows = LABS[id], quick_rows(id)
    optional = {"over_transformers"}  # where transformers is installed
    assert {key for key in lab.columns if not any(key in row for row in rows)} <= optional
    assert json.loads(json.dumps(rows)) == rows
    assert len(table(rows, lab.columns).splitlines()) >= len(rows) + 2
    assert reads_well(lab.noticed(rows))
    if lab.plot:
        chart = lab.plot(rows)
        assert len(chart.alt) > 30 and chart._repr_html_().count("<svg") == 2
    if CASES[id].steady:
        assert lab.stops(rows) is None


@each_lab
def test_what_a_lab_records_is_stored_under_its_chapter(id):
    for name, trace in quick_rows(id).traces.items():
        assert traces.stored(f"ch{LABS[id].chapter}/{name}").kind == trace.kind


@pytest.mark.parametrize("id", LABS)
def test_a_lab_says_what_it_is_for_and_asks_a_question_at_its_checkpoint(id):
    lab = LABS[id]
    assert lab.asks.endswith("?") and (lab.go or lab.pays)
    assert lab.objective.endswith(".") and lab.minutes >= 0


@each_lab
def test_a_checkpoint_says_go_on_a_calm_result(id):
    assert LABS[id].stops(calm(id)) is None


@pytest.mark.parametrize("id,where,change,words", [marked(*case) for case in DOCTORED])
def test_a_checkpoint_stops_at_a_doctored_result(id, where, change, words):
    rows = calm(id)
    next(r for r in rows if where.items() <= r.items()).update(change)
    reason = LABS[id].stops(rows)
    assert reason is not None and words in reason and "\n" not in reason


@pytest.mark.parametrize("id", LABS)
def test_every_checkpoint_has_been_seen_to_stop(id):
    assert CASES[id].doctored or LABS[id].go in {LABS[d[0]].go for d in DOCTORED}


def documents() -> list:
    """Every stored result of a lab, whatever machine it is from."""
    # CH08-ORDER lists the labs of the day
    names = {id: lab.result for id, lab in LABS.items() if id != "CH08-ORDER"}
    return [
        pytest.param(id, path, id=path.name)
        for id, name in names.items()
        for path in sorted(results.folder().glob(f"{name}.*.json"))
    ]


@pytest.mark.parametrize("id,path", documents())
def test_what_is_stored_passes_its_labs_checkpoint(id, path):
    """What a real model's quality comes out at is asked of the rows that were measured."""
    document = json.loads(path.read_text())
    device = "cuda" if "gpu" in document["env"] else "cpu"
    assert LABS[id].on(device) == device, "it is filed under a GPU, and ran on a CPU"
    assert LABS[id].stops(document["rows"], device) is None

"""What a lab says to notice: a sentence for every result that is stored, and no number in it that
its rows don't say.
"""

import json
import re
from contextlib import suppress

import pytest

from labkit import results
from labkit.lab import labs
from tests.cases import reads_well

LABS = labs()
# a share, a decimal, or so many times: what is measured. Whole numbers are settings, or arithmetic
MEASURED = re.compile(r"\d[\d,]*\.\d+%?|\d[\d,]*%|\d[\d,]*(?= times)")


def documents(lab) -> list:
    paths = sorted(results.folder().glob(f"{lab.result}.*.json"))
    return [path for path in paths if not path.name.endswith(".trace.json")]


EVERY = [(id, path) for id, lab in LABS.items() for path in documents(lab)]
each_document = pytest.mark.parametrize(
    "id,path",
    EVERY,
    ids=[f"{id}-{path.name.split('.')[1]}" for id, path in EVERY],
)


def doctored(rows: list[dict]):
    """These rows again and again, each time with one number changed."""
    for i, row in enumerate(rows):
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                for other in (value / 3, value * 3 or 1):
                    yield [*rows[:i], row | {key: type(value)(other)}, *rows[i + 1 :]]


def told(notice, rows: list[dict]):
    """What the notice says of each doctored result that still has the rows it looks for."""
    for changed in doctored(rows):
        with suppress(ValueError):
            yield notice(changed)


def by_hand(notice, rows: list[dict]) -> list[str]:
    """The measured numbers of a notice that stay as they are, whichever number of a row changes."""
    said = MEASURED.findall(notice(rows))
    stay = set(range(len(said)))
    for text in told(notice, rows):
        now = MEASURED.findall(text)
        if len(now) == len(said):
            stay -= {i for i in stay if now[i] != said[i]}
    return [said[i] for i in sorted(stay)]


def test_a_gap_in_a_sentence_is_found():
    said = "At 8,000 tokens 41% of the bytes are cache, and a token takes 1.89 times as long."
    assert reads_well(said)
    broken = [
        said[:-1],
        said.lower(),
        said.replace("41%", "{share:.0%}"),
        said.replace("1.89", "nan"),
    ]
    assert not any(map(reads_well, [*broken, said.replace("41%", ""), said.replace(" a ", "\n")]))


def test_a_number_by_hand_is_found():
    rows = [{"share": 0.5, "n": 4}, {"share": 0.25, "n": 8}]
    assert (
        by_hand(lambda rows: f"It is {rows[0]['share']:.0%} of {rows[1]['n']} times.", rows) == []
    )
    assert by_hand(lambda rows: f"It is {rows[0]['share']:.0%}, and not 25%.", rows) == ["25%"]
    assert by_hand(lambda rows: "It is 1.5 times as fast, with 8 bits.", rows) == ["1.5"]


@each_document
def test_what_to_notice_is_said_of_every_stored_result(id, path):
    lab = LABS[id]
    rows = json.loads(path.read_text())["rows"]
    assert reads_well(lab.noticed(rows))
    assert by_hand(lab.noticed, rows) == []
    if callable(lab.notice):
        assert any(text != lab.notice(rows) for text in told(lab.notice, rows))


def test_every_lab_with_a_stored_result_is_looked_at():
    assert {id for id, _ in EVERY} == {id for id, lab in LABS.items() if documents(lab)}
    assert len(EVERY) > 60

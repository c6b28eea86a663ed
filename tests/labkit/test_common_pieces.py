"""What a long lab has finished is kept, and is another's once arguments or code are others."""

import pytest

from labkit_labs.common import pieces

DONE = []


def work(n: int) -> dict:
    if n == 3:
        raise KeyboardInterrupt
    DONE.append(n)
    return {"n": n, "half": n / 2}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    DONE.clear()
    return tmp_path


def test_a_stop_half_way_loses_only_what_was_not_finished(folder):
    jobs = {"a": (1,), "b": (2,), "c": (3,)}
    with pytest.raises(KeyboardInterrupt):
        pieces.each("some", work, jobs)
    assert len(list(folder.rglob("*.json"))) == 2 and not list(folder.rglob("*.part"))
    # the third is another one now, and the first two are not worked out again
    assert pieces.each("some", work, jobs | {"c": (4,)}) == {
        "a": {"n": 1, "half": 0.5},
        "b": {"n": 2, "half": 1.0},
        "c": {"n": 4, "half": 2.0},
    }
    assert DONE == [1, 2, 4]


def test_other_code_makes_other_pieces(monkeypatch):
    pieces.each("some", work, {"a": (1,)})
    monkeypatch.setattr(pieces, "code_of", lambda work: "other")
    pieces.each("some", work, {"a": (1,)})
    assert DONE == [1, 1]


def test_it_says_where_they_are_and_how_it_goes_on(folder, monkeypatch, capsys):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    pieces.each("some", work, {"a": (1,)})
    pieces.each("some", work, {"a": (1,), "b": (2,)})
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert "0 of 1 pieces" in first and "1 of 2 pieces" in second
    assert str(folder) in second and "the same command goes on" in second

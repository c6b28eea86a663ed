"""Rows: as a table, picked, and in a sentence."""

import pytest

from labkit.tables import listed, only, series, span, where

ROWS = [
    {"kind": "ring", "context": 1, "seconds": 2.0},
    {"kind": "full", "context": 1, "seconds": 3.0},
    {"kind": "ring", "context": 2, "seconds": 4.0},
]


def test_rows_are_picked_by_their_values():
    assert where(ROWS, kind="ring") == [ROWS[0], ROWS[2]] and where(ROWS, none=1) == []
    assert only(ROWS, kind="ring", context=2) == ROWS[2]
    with pytest.raises(ValueError, match="2 rows have {'kind': 'ring'}; exactly one must"):
        only(ROWS, kind="ring")


def test_a_series_keeps_the_order_of_the_rows():
    assert series(ROWS, "kind", "seconds", 10) == {"ring": [20, 40], "full": [30]}


def test_numbers_and_words_read_as_a_sentence():
    assert span([2.41, 1.3, 2]) == "1.30 to 2.41" and span([0.304, 0.296], ".0%") == "30%"
    assert listed(["a", "b", "c"]) == "a, b and c" and listed([1]) == "1"

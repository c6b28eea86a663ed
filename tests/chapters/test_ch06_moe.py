"""Chapter 06: when experts are not worth it, its checkpoint says so."""

import copy

from labkit.lab import labs
from tests.cases import quick_rows


def test_no_expert_is_worth_it_is_a_stop():
    rows = copy.deepcopy(quick_rows("CH06-DENSE"))
    for r in rows:
        r["multiple"] = 0.5
    assert "routing costs more than the experts save" in labs()["CH06-DENSE"].stops(rows)
    for r in rows:
        r |= {"device": "cuda", "multiple": 2.0, "median": 1.0}
    assert "gathering two experts is not 1.5 times" in labs()["CH06-DENSE"].stops(rows)

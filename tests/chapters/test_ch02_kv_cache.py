"""Chapter 02: what its page, its player and its clips show is one run."""

import re
from pathlib import Path

import numpy as np
import pytest

from labkit import traces
from labkit_labs.ch02_kv_cache import flash

PAGES = Path(__file__).parents[2] / "book" / "chapters"


def same(a, b) -> bool:
    """Two plain values are equal, numbers up to the last digits of float64."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == pytest.approx(b, rel=1e-12) if isinstance(a, float) else a == b


def test_the_stored_online_softmax_is_what_the_code_does_today():
    stored = traces.stored("ch02/online_softmax")
    assert same(stored.to_dict(), flash.small_example().to_dict())


def test_the_page_computes_on_the_numbers_that_its_player_shows():
    """Its cell draws q, k, v itself: the same draw, and so the same statistics at the end."""
    (page,) = [p for p in PAGES.glob("02*.md") if "ch02/online_softmax" in p.read_text()]
    (draw,) = re.findall(
        r"^q, k, v = (np\.random\.default_rng.*?)(?: #.*)?$", page.read_text(), re.M
    )
    q, k, _ = eval(draw, {"np": np})
    stored = traces.stored("ch02/online_softmax")
    assert (*q.shape, stored.meta["tile"]) == (stored.meta["T"], stored.meta["E"], 4)
    scores = np.where(np.tri(len(q), dtype=bool), q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    last = [s for s in stored.steps if not s.skipped][-1]
    rows = scores[slice(*last.query_tile)]
    assert last.top == pytest.approx(rows.max(axis=1).tolist())
    assert last.total == pytest.approx(np.exp(rows - rows.max(axis=1)[:, None]).sum(1).tolist())
    assert any(s.change < 1 for s in stored.steps[1:] if s.key_tile[0])  # something to repair

"""Chapter 07: more training is given to what has something left to learn."""

from labkit_labs.ch07_deltanet import longer, train


def test_only_the_small_state_is_trained_on(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    rows = train.run("cpu", lengths=[1, 2], seeds=1)
    assert [(r["variant"], r["steps"]) for r in rows] == [
        ("MHA", 1),
        ("DeltaNet wide", 1),
        ("DeltaNet", 1),
        ("DeltaNet", 2),
    ]
    # untrained they guess, once in 32 rightly
    assert all(r["recall"] < 0.1 for r in rows) and train.go(rows) is None
    assert max(r["parameters"] for r in rows) < 1.01 * min(r["parameters"] for r in rows)


def test_a_training_repeats():
    assert longer.learn("DeltaNet", 0, 2) == longer.learn("DeltaNet", 0, 2)

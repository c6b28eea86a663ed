"""What the tests of every chapter need to know about chapter 02."""

import numpy as np

from tests.cases import LabCase, stored

LABS = {
    "loops": LabCase(
        real=True,
        steady=True,
        doctored=[
            ({"step": 3}, {"cached_computed": 8}, "in step 3 the cached loop computes 8 keys"),
        ],
    ),
    "flash": LabCase(
        doctored=[
            ({"kind": "fused"}, {"gap": 0.1}, "differ by 1.0e-01"),
            ({"kind": "fused"}, {"context": 256, "gap": float("nan")}, "differ by nan"),
        ]
    ),
    "cached": LabCase(
        calm=[({}, {"tokens_per_second": 1.0, "prefill_tokens_per_second": 10.0})],
        real=True,
        doctored=[
            (
                {"context": 128},
                {"prefill_tokens_per_second": 1.0, "tokens_per_second": 2.0},
                "prefill is no faster",
            ),
        ],
    ),
    "loses": LabCase(
        real=True,
        doctored=[
            ({"context": 512}, {"cache_share": 0.5, "multiple": 1.0}, "50% of the bytes are cache"),
        ],
    ),
    "baseline": LabCase(
        calm=[({"variant": "cached"}, {"multiple": 10.0})],
        real=True,
        doctored=[
            ({"variant": "cached"}, {"multiple": 1.1}, "1.1 times as fast"),
        ],
    ),
    "character": LabCase(
        # two samples and a page of text decide nothing
        rows=stored("ch02/character"),
        doctored=[
            ({"model": "8 bits"}, {"bits": 3.0}, "train it longer"),
            ({"model": "as trained"}, {"bits": 1.0}, "8 bits cost"),
            ({"model": "8 bits"}, {"drawn_words": 0.5}, "worth showing"),
            ({"context": 256}, {"multiple": 2.0}, "a factor of only 2.0"),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    return [
        ("02.1", 12, "a cache that works"),
        ("02.1", 8, "needs no append"),
        ("02.1", 11, "count the prompt's keys"),
        ("02.1", "nine", "whole number"),
        ("02.2", lambda T, past: np.ones((T, T), bool), "hides the cache"),
        ("02.2", lambda T, past: np.tri(past + T, dtype=bool), "queries that are not there"),
        ("02.2", lambda T, past: np.tri(T, past + T, dtype=bool), "shift the triangle"),
        ("02.2", lambda T, past: np.ones((T, past + T), bool), "may look at keys 0 to"),
        ("02.2", lambda T, past: right["02.2"](T, past).astype(int), "dtype"),
        ("02.3", lambda make, a, b: True, "one cache for all requests"),
        (
            "02.3",
            lambda make, a, b: len({*map(str, map(make().reply, (a, b)))}) == 1,
            "calls a good",
        ),
        ("02.3", lambda make, a, b: asked_twice(make(), b), "seen before"),
        ("02.3", lambda make, a, b: make().reply(b) == make().reply(b), "one cache for all"),
        (
            "02.4",
            lambda c, t, b, s: right["02.4"](c, t, b, s) * c.n_heads // c.n_kv_heads,
            "query heads",
        ),
        ("02.4", lambda c, t, b, s: right["02.4"](c, t, b, s) // 2, "half of it"),
        (
            "02.4",
            lambda c, t, b, s: 2 * c.n_layers * c.n_kv_heads * (c.d_model // c.n_heads) * t * b * s,
            "head_dim",
        ),
        ("02.4", lambda c, t, b, s: right["02.4"](c, t, 1, s), "batch"),
        ("02.5", lambda c, b: right["02.5"](c, b) + 1, "not the first"),
        ("02.5", lambda c, b: right["02.5"](c, b) - 1, "still lighter"),
        ("02.5", lambda c, b: right["02.5"](c, b) + 0.5, "whole number"),
        ("02.7", lambda a, b: (max(a[0], b[0]), a[1] + b[1], a[2] + b[2]), "scaled by exp"),
        ("02.7", lambda a, b: (a[0], a[1]), "three things"),
        ("02.7", lambda a, b: (a[0] + b[0], a[1] + b[1], a[2] + b[2]), "larger of the two"),
        ("02.6", lambda T, tile: (-(-T // tile)) ** 2, "whole square"),
        ("02.6", lambda T, tile: right["02.6"](T, tile) - -(-T // tile), "leaves the diagonal out"),
        ("02.6", lambda T, tile: (T // tile) * (T // tile + 1) // 2, "round up"),
    ]


def asked_twice(server, prompt) -> bool:
    return server.reply(prompt) == server.reply(prompt)

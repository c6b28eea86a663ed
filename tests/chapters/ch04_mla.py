"""What the tests of every chapter need to know about chapter 04."""

import numpy as np

from tests.cases import LabCase

LABS = {
    "absorbed": LabCase(
        calm=[({}, {"multiple": 1.0, "iqr": 0.0}), ({"path": "absorbed"}, {"multiple": 30.0})],
        doctored=[
            ({"path": "absorbed"}, {"gap": 0.1}, "order of latent and RoPE part"),
            (
                {"path": "absorbed"},
                {"context": 8000, "multiple": 19.0},
                "where at least 20 is usual",
            ),
        ],
    ),
    "crossover": LabCase(
        calm=[
            ({}, {"ratio": 0.8, "iqr": 0.0}),
            ({"new": 1}, {"ratio": 30.0, "measured": 120.0}),
        ],
        doctored=[
            ({"new": 16, "way": "kept heads"}, {"gap": 0.1}, "order of the parts"),
            ({"new": 16, "way": "absorbed"}, {"gap": float("nan")}, "differs from absorbed by nan"),
            ({"new": 128, "way": "re-projected"}, {"flops": 1}, "not what the formula says"),
            (
                {"new": 1, "way": "absorbed"},
                {"context": 2048, "flops": 75497472, "ratio": 2.0},
                "only 2.0 times",
            ),
            (
                {"new": 128, "way": "absorbed"},
                {"new": 512, "flops": 11274289152, "ratio": 1.2},
                "it should lose from 128 on",
            ),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    size = lambda c: c.qk_nope_head_dim + c.v_head_dim
    one = lambda c: (
        (2 * c.kv_lora_rank + c.qk_rope_head_dim) / (c.kv_lora_rank + c.qk_rope_head_dim)
    )

    def expanded(q, q_rope, latent, k_rope, up):
        keys = latent @ up.T
        return (keys @ q + k_rope @ q_rope) / (len(q) + len(q_rope)) ** 0.5

    def scores(q, q_rope, latent, k_rope, up, scale, rope=1):
        return (latent @ (up.T @ q) + rope * (k_rope @ q_rope)) / scale**0.5

    return [
        ("04.1", lambda c, t, b: c.n_layers * c.kv_lora_rank * t * b, "latents alone"),
        ("04.1", lambda c, t, b: 2 * right["04.1"](c, t, b), "stores everything twice"),
        ("04.1", lambda c, t, b: c.n_heads * right["04.1"](c, t, b), "each head its own"),
        ("04.1", lambda c, t, b: right["04.1"](c, t, b) // c.n_layers, "one layer of"),
        (
            "04.1",
            lambda c, t, b: c.n_layers * c.n_heads * (size(c) + c.qk_rope_head_dim) * t * b,
            "Nothing of a head",
        ),
        (
            "04.1",
            lambda c, t, b: c.n_layers * (c.kv_lora_rank + c.n_heads * c.qk_rope_head_dim) * t * b,
            "One serves all heads",
        ),
        ("04.2", expanded, "a key of 6 numbers was made"),
        (
            "04.2",
            lambda q, r, lat, k, up: scores(q, r, lat, k, up, lat.shape[1] + len(r)),
            "the length of what is compared",
        ),
        (
            "04.2",
            lambda q, r, lat, k, up: scores(q, r, lat, k, up, len(q) + len(r), 0),
            "nothing of positions",
        ),
        ("04.2", lambda q, r, lat, k, up: scores(q, r, lat, k, up, 1), "not scaled yet"),
        ("04.2", lambda q, r, lat, k, up: scores(q, r, lat, k, up, len(q)), "query is longer"),
        (
            "04.2",
            lambda q, r, lat, k, up: scores(
                q, r, lat, k, up, len(q) + len(r), (len(q) + len(r)) ** 0.5
            ),
            "only one of two parts",
        ),
        ("04.2", lambda q, r, lat, k, up: lat @ lat.T, "one score a token"),
        ("04.3", lambda c, S: 171 if size(c) == 256 else 0, "endless context"),
        ("04.3", lambda c, S: right["04.3"](c, S) - 1, "round the other way"),
        (
            "04.3",
            lambda c, S: -(-c.kv_lora_rank * size(c) // (c.kv_lora_rank - size(c) or 1)),
            "met twice",
        ),
        ("04.3", lambda c, S: right["04.3"](c, S) + 0.5, "tokens come whole"),
        ("04.4", lambda c, f, b: int(f / b / one(c)), "is for one head"),
        ("04.4", lambda c, f, b: int(f / b), "one FLOP a byte"),
        ("04.4", lambda c, f, b: int(f / b / c.n_heads), "meets a latent once"),
        ("04.4", lambda c, f, b: right["04.4"](c, f, b) + 1, "rounded up"),
        ("04.4", lambda c, f, b: int(f / b / one(c) / c.n_heads / 2), "bf16 has two"),
        ("04.4", lambda c, f, b: f / b / one(c) / c.n_heads, "tokens come whole"),
        ("04.5", lambda w: w, "as before"),
        ("04.5", lambda w: w[np.argsort(np.r_[0 : len(w) : 2, 1 : len(w) : 2])], "the way back"),
        ("04.5", lambda w: w[::-1], "scores are off"),
        ("04.5", lambda w: w[: len(w) // 2], "keep the shape"),
    ]

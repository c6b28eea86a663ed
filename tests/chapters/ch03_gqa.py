"""What the tests of every chapter need to know about chapter 03."""

import numpy as np

from labkit import formulas
from labkit_labs.ch03_gqa import checks
from tests.cases import LabCase, stored

LABS = {
    "savings": LabCase(
        steady=True,
        doctored=[
            ({"kv_heads": 8}, {"held": 1}, "a cache took 1 bytes"),
            ({"kv_heads": 8}, {"multiple": 32.0}, "query heads were counted"),
        ],
    ),
    "heads": LabCase(
        calm=[({}, {"over_expanded": 9.0})],
        doctored=[
            ({"variant": "GQA"}, {"gap": 0.01}, "which query head reads which key head"),
            (
                {"variant": "GQA", "way": "grouped"},
                {"context": 8000, "over_expanded": 3.9},
                "where 4 is usual",
            ),
        ],
    ),
    "pool": LabCase(
        real=True,
        rows=stored("ch03/pool"),
        doctored=[
            ({"kv_heads": 3}, {"score": 50.0, "before": 45.0}, "order of rows in qkv"),
            ({"kv_heads": 1}, {"score": 45.0, "before": 45.0}, "pooled at all"),
            ({"kv_heads": 1}, {"cache_bytes": 7}, "look at the model that was built"),
        ],
    ),
    "text": LabCase(
        rows=stored("ch03/text"),  # two steps teach nobody to read
        doctored=[
            ({"variant": "MQA"}, {"parameters": 400_000}, "quality is bought with weights"),
            ({"variant": "GQA"}, {"bits": 4.5}, "train it longer"),
            ({"variant": "MHA"}, {"bits": float("nan")}, "train it longer"),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    heads = np.arange(2.0)[None, :, None]
    return [
        ("03.1", lambda h, H, G: h % G, "like cards"),
        ("03.1", lambda h, H, G: h // G, "groups of"),
        ("03.1", lambda h, H, G: h / (H // G), "whole one"),
        ("03.1", lambda h, H, G: h // (H // G) + 1, "count from 0"),
        ("03.5", lambda expand: True, "nothing to mix up"),
        ("03.5", lambda expand: expand(heads, 2)[0, :, 0].tolist() == [0, 1], "like cards"),
        ("03.5", lambda expand: len(set(expand(heads, 4)[0, :2, 0])) == 1, "nothing to mix up"),
        (
            "03.5",
            lambda expand: len(set(expand(heads, 4)[0, :2, 0])) == 1 and expand(heads, 4).any(),
            "one by one",
        ),
        ("03.5", lambda expand: expand(heads, 4)[0, :, 0].tolist() == [0, 1, 0, 1], "right order"),
        ("03.2", copied_out, "let the axes do it"),
        ("03.2", lambda q, k, v: dealt_out(q, k, v), "like cards"),
        ("03.2", lambda q, k, v: 2 * right["03.2"](q, k, v), "root of E"),
        ("03.2", lambda q, k, v: right["03.2"](q, k, v)[None], "fold the two"),
        ("03.4", lambda qkv, H, G, to: pooled_with_queries(qkv, H, G, to), "stay as many"),
        ("03.4", pooled_like_cards, "neighbours are pooled"),
        ("03.4", lambda qkv, H, G, to: 2 * right["03.4"](qkv, H, G, to), "queries changed"),
        ("03.4", lambda qkv, H, G, to: qkv, "expected"),
        ("03.3", lambda c, memory, context, users: 1, "so do more"),
        ("03.3", lambda c, memory, context, users: c.n_kv_heads, "not all of them fit"),
        ("03.3", any_number, "shared evenly"),
        ("03.3", lambda *given: max(1, right["03.3"](*given)), "not all of them fit"),
    ]


def copied_out(q, k, v):
    """Right, and as heavy as MHA."""
    H = len(q)
    k, v = checks.neighbours(k, H), checks.neighbours(v, H)
    return softmaxed(np.einsum("he,she->hs", q, k) / np.sqrt(q.shape[1]), v)


def dealt_out(q, k, v):
    H = len(q)
    k, v = checks.cards(k, H), checks.cards(v, H)
    return softmaxed(np.einsum("he,she->hs", q, k) / np.sqrt(q.shape[1]), v)


def softmaxed(scores, v):
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hs,she->he", p / p.sum(-1, keepdims=True), v)


def pooled_with_queries(qkv, H, G, to):
    """The queries too become `to` heads."""
    heads = qkv.reshape(H + 2 * G, -1, qkv.shape[1])
    parts = [heads[:H].reshape(to, H // to, *heads.shape[1:])]
    parts += [
        part.reshape(to, G // to, *heads.shape[1:]) for part in (heads[H : H + G], heads[-G:])
    ]
    return np.concatenate([part.mean(1) for part in parts]).reshape(-1, qkv.shape[1])


def pooled_like_cards(qkv, H, G, to):
    heads = qkv.reshape(H + 2 * G, -1, qkv.shape[1])
    groups = heads[H:].reshape(2, G // to, to, *heads.shape[1:]).mean(1)
    return np.concatenate([heads[:H], *groups]).reshape(-1, qkv.shape[1])


def any_number(config, memory, context, users):
    """The most heads that fit, whether or not they divide."""
    fits = lambda G: (
        formulas.kv_cache_bytes(config.replace(n_kv_heads=1), context, users) * G
        <= 0.9 * memory - formulas.weight_bytes(config)
    )
    return max((G for G in range(1, config.n_heads + 1) if fits(G)), default=0)

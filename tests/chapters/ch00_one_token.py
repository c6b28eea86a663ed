"""What the tests of every chapter need to know about chapter 00."""

import numpy as np

from labkit import reference
from tests.cases import LabCase, stored

LABS = {
    "neighbours": LabCase(
        real=True,
        steady=True,
        doctored=[
            (
                {"what": "direction", "table": "SmolLM2", "of": "female", "asked": "female"},
                {"cosine": 0.1},
                "a pair's order",
            ),
            (
                {"what": "direction", "table": "SmolLM2", "of": "female", "asked": "more than one"},
                {"cosine": 0.4},
                "two directions",
            ),
            (
                {"what": "direction", "table": "shuffled", "of": "female", "asked": "female"},
                {"cosine": 0.4},
                "in the shuffled table",
            ),
        ],
    ),
    "attention": LabCase(
        real=True,
        rows=stored("ch00/attention"),
        doctored=[
            ({"what": "model"}, {"over_half_reordered": 20}, "not the place"),
            ({"what": "model"}, {"second_over_half": 100}, "read by query"),
            ({"what": "model"}, {"from_it_reordered": 0.95}, "were moved"),
            ({"what": "model"}, {"from_was": 0.4}, "tells the two apart"),
            ({"what": "the cat sat", "layer": 3}, {"weights": [[[0.5]]]}, "sum to 0.500"),
        ],
    ),
    "sentence": LabCase(
        real=True,
        steady=True,
        doctored=[({"what": "token"}, {"share": 0.9}, "of the same head")],
    ),
    "parallel": LabCase(
        calm=[({"way": "in sequence"}, {"times_slower": 10.0})],
        real=True,
        doctored=[
            ({"way": "in sequence"}, {"gap": 0.5}, "which logits score which token"),
            ({"way": "in sequence, cached"}, {"gap": float("nan")}, "differs by nan"),
            ({"way": "in parallel, no mask"}, {"gap": 1e-6}, "whether it is off"),
            ({"way": "in sequence"}, {"times_slower": 1.1}, "a pass for each position"),
        ],
    ),
    "sampled": LabCase(
        real=True,
        # a few short texts decide nothing
        rows=stored("ch00/sampled"),
        doctored=[
            ({"what": "draws", "setting": "top-p 0.9"}, {"gap": 0.01}, "order of the filters"),
            ({"what": "draws", "setting": "top-k 40"}, {"p_value": 1e-9}, "look at the draw"),
            (
                {"what": "draws", "setting": "temperature 1"},
                {"p_value_control": 0.3},
                "too weak",
            ),
            ({"what": "texts", "setting": "greedy"}, {"repeats": 0.0}, "go on for long enough"),
        ],
    ),
    "loop": LabCase(
        calm=[
            ({"cache": False}, {"milliseconds": 1000.0}),
            ({"cache": True}, {"milliseconds": 100.0}),
        ],
        real=True,
        doctored=[
            ({"way": "all in 32 bits"}, {"gap": 1.0}, "logits differ"),
            ({"way": "all in 32 bits"}, {"bits": 64}, "takes all others along"),
            ({"context": 12, "cache": True}, {"milliseconds": 5000.0}, "feeds one token"),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    softmax, length = reference.softmax, np.linalg.norm
    return [
        ("00.1", lambda a, b: a @ b, "grows with the lengths"),
        ("00.1", lambda a, b: a @ b / length(a), "one length"),
        ("00.1", lambda a, b: abs(right["00.1"](a, b)), "the sign"),
        ("00.1", lambda a, b: a * b / (length(a) * length(b)), "adds its products up"),
        ("00.2", lambda q, k, v: softmax(k @ q / len(k) ** 0.5) @ v, "the number of keys"),
        ("00.2", lambda q, k, v: softmax(k @ q / len(q) ** 0.5), "are the weights"),
        ("00.2", lambda q, k, v: k @ q / len(q) ** 0.5 @ v, "are no shares"),
        ("00.2", lambda q, k, v: softmax(k @ q) @ v, "not scaled"),
        ("00.2", lambda q, k, v: softmax(k @ q / len(q)) @ v, "scaled too much"),
        ("00.2", overflowing, "overflow"),
        ("00.3", lambda x, w, b, eps: reference.rms_norm(x, w, eps) + b, "mean is still in it"),
        ("00.3", over_tokens, "last axis"),
        ("00.3", lambda x, w, b, eps: right["00.3"](x, w, 0 * b, eps), "shift is missing"),
        ("00.3", less_one, "divided by n"),
        ("00.4", lambda logits, ids: right["00.4"](logits, ids).mean(), "of each position"),
        (
            "00.4",
            lambda logits, ids: -np.log(softmax(logits)[np.arange(len(ids)), ids]),
            "nothing predicts the first",
        ),
        (
            "00.4",
            lambda logits, ids: -np.log(softmax(logits)[np.arange(1, len(ids)), ids[1:]]),
            "its own token",
        ),
        ("00.4", lambda logits, ids: -np.log(softmax(logits)[:-1, ids[1:]]), "make 25"),
        ("00.4", lambda logits, ids: -logits[np.arange(len(ids) - 1), ids[1:]], "softmax"),
        ("00.4", lambda logits, ids: -right["00.4"](logits, ids), "the sign"),
        ("00.5", without_the_crossing, "crosses it"),
        ("00.5", in_falling_order, "where its token stood"),
        ("00.5", one_too_many, "2 reach p already"),
        ("00.5", in_their_order, "wherever they stand"),
        ("00.5", lambda p, limit: np.where(right["00.5"](p, limit) > 0, p, 0), "sums to"),
        ("00.5", lambda p, limit: p, "reach p already"),
    ]


def overflowing(q, k, v):
    with np.errstate(all="ignore"):
        e = np.exp(k @ q / len(q) ** 0.5)
        return e / e.sum() @ v


def over_tokens(x, weight, bias, eps):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + eps) * weight + bias


def less_one(x, weight, bias, eps):
    middle = x - x.mean(-1, keepdims=True)
    return middle / np.sqrt(x.var(-1, keepdims=True, ddof=1) + eps) * weight + bias


def without_the_crossing(p, limit):
    order = np.argsort(-p)
    keep = np.cumsum(p[order]) <= limit
    keep[0] = True
    kept = np.zeros_like(p)
    kept[order[keep]] = p[order[keep]]
    return kept / kept.sum()


def in_falling_order(p, limit):
    p = np.sort(p)[::-1]
    return in_their_order(p, limit)


def one_too_many(p, limit):
    order = np.argsort(-p)
    keep = order[np.cumsum(p[order]) - p[order] <= limit]
    kept = np.zeros_like(p)
    kept[keep] = p[keep]
    return kept / kept.sum()


def in_their_order(p, limit):
    kept = np.where(np.cumsum(p) - p < limit, p, 0)
    return kept / kept.sum()

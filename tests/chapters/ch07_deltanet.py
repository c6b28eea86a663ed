"""What the tests of every chapter need to know about chapter 07."""

import numpy as np

from tests.cases import LabCase, stored

LABS = {
    "state": LabCase(
        calm=[
            ({}, {"over_recurrent": 9.0}),
            ({"kind": "delta"}, {"multiple": 1.0, "iqr": 0.0}),
            ({"kind": "full"}, {"multiple": 1.0, "iqr": 0.0}),
        ],
        doctored=[
            ({"kind": "delta"}, {"multiple": 9.0}, "a state has no length"),
            ({"kind": "chunked"}, {"gap": 0.1}, "what a chunk passes on"),
            (
                {"what": "prefill, small", "kind": "chunked"},
                {"tokens": 1024, "over_recurrent": 4.9},
                "where 5 is usual",
            ),
        ],
    ),
    "memory": LabCase(
        rows=stored("ch07/memory"),  # a model must have learned to write
        doctored=[
            ({"told": 2, "memory": "delta rule"}, {"error": 9.0}, "must be the value less the"),
        ],
    ),
    "train": LabCase(
        rows=[
            {"variant": "MHA", "steps": 1000, "recall": 1.0, "recall_min": 1.0}
            | {"parameters": 102_720, "ranked": True},
            {"variant": "DeltaNet wide", "steps": 1000, "recall": 1.0, "recall_min": 0.9}
            | {"parameters": 102_852, "ranked": True},
            {"variant": "DeltaNet", "steps": 1000, "recall": 0.8, "recall_min": 0.5}
            | {"parameters": 102_768, "ranked": True},
            {"variant": "DeltaNet", "steps": 3000, "recall": 0.9, "recall_min": 0.8}
            | {"parameters": 102_768, "ranked": True},
        ],
        doctored=[
            ({"variant": "DeltaNet wide"}, {"parameters": 90_000}, "match them"),
            ({"variant": "MHA"}, {"recall_min": 0.5}, "before you judge a state"),
            ({"variant": "DeltaNet", "steps": 3000}, {"recall": 0.1}, "must not unlearn"),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""

    def added(S, k, v, kept, beta):
        return kept * S + beta * np.outer(k, v)

    def asked_first(S, k, v, kept, beta):
        return kept * S + beta * np.outer(k, v - k @ S)

    def fades_last(S, k, v, kept, beta):
        return kept * (S + beta * np.outer(k, v - k @ S))

    def in_place(S, k, v, kept, beta):
        S *= kept
        S += beta * np.outer(k, v - k @ S)
        return S

    def silu(x):
        return x / (1 + np.exp(-x))

    def mixed(x, kernel, past, order=slice(None), curve=silu):
        seen = np.concatenate([past, x[None]])
        return curve((seen[order] * kernel.T).sum(axis=0)), seen[1:]

    def solved(keys, V, beta, S, L, asked=1.0, sized=True):
        b = beta[:, None]
        G = keys @ keys.T * (b if sized else 1)
        return np.linalg.solve(np.eye(len(keys)) + L(G), b * (V - asked * keys @ S))

    def tokens(c, size, key_heads=False, n=None, matrix=4, whole=2):
        keys = c.delta_n_key_heads * c.delta_key_dim
        values = c.delta_n_value_heads * c.delta_value_dim
        heads = c.delta_n_key_heads if key_heads else c.delta_n_value_heads
        state = matrix * heads * c.delta_key_dim * c.delta_value_dim
        state += (c.delta_conv - 1 if n is None else n) * (2 * keys + values) * size
        return state // (whole * c.n_kv_heads * c.head_dim * size) + 1

    def checked(memory, drafts):
        saved, said = memory.snapshot(), memory.read(drafts)
        count = 1
        while count < len(drafts) and drafts[count] == said[count - 1]:
            count += 1
        return saved, said, count

    def kept_all(memory, drafts):
        return checked(memory, drafts)[2]

    def no_replay(memory, drafts):
        saved, _, count = checked(memory, drafts)
        if count < len(drafts):
            memory.restore(saved)
        return count

    def any_match(memory, drafts):
        saved, said, _ = checked(memory, drafts)
        count = 1 + sum(a == b for a, b in zip(drafts[1:], said))
        memory.restore(saved)
        memory.read(drafts[:count])
        return count

    def too_late(memory, drafts):
        count = checked(memory, drafts)[2]
        memory.restore(memory.snapshot())
        memory.read(drafts[:count])
        return count

    def always_again(memory, drafts):
        saved, _, count = checked(memory, drafts)
        memory.restore(saved)
        memory.read(drafts[:count])
        return count

    def one_by_one(memory, drafts):
        count = 1
        while memory.read([drafts[count - 1]]) == drafts[count : count + 1]:
            count += 1
        return count

    return [
        ("07.1", added, "whatever the memory says already"),
        ("07.1", asked_first, "has not faded yet"),
        ("07.1", fades_last, "fades at once"),
        ("07.1", lambda S, k, v, kept, beta: right["07.1"](S, k, v, kept, 1), "whole error"),
        ("07.1", lambda S, k, v, kept, beta: right["07.1"](S, k, v, 1, beta), "nothing fades"),
        ("07.1", lambda S, k, v, kept, beta: right["07.1"](S, k, v, kept, -beta), "error grows"),
        ("07.1", in_place, "that came in has changed"),
        ("07.2", lambda x, w, past: (mixed(x, w, past)[0], past), "no token before it"),
        ("07.2", lambda x, w, past: mixed(x, w, past, slice(None, None, -1)), "read backwards"),
        ("07.2", lambda x, w, past: mixed(x, w, past, curve=lambda y: y), "curve behind it"),
        (
            "07.2",
            lambda x, w, past: (mixed(x, w, past)[0], np.concatenate([past, x[None]])),
            "the past has 3 tokens",
        ),
        (
            "07.2",
            lambda x, w, past: (mixed(x, w, past)[0], mixed(x, w, past)[1][::-1]),
            "oldest of them first",
        ),
        ("07.3", lambda k, V, b, S: b[:, None] * (V - k @ S), "earlier tokens of the chunk"),
        ("07.3", lambda *a: solved(*a, lambda G: G), "hear of later ones"),
        ("07.3", lambda *a: solved(*a, np.tril), "its own write"),
        ("07.3", lambda *a: solved(*a, lambda G: np.tril(G, -1), 0), "is not asked"),
        ("07.3", lambda *a: solved(*a, lambda G: -np.tril(G, -1)), "look at the sign"),
        (
            "07.3",
            lambda *a: solved(*a, lambda G: np.tril(G, -1), sized=False),
            "has its step size",
        ),
        ("07.4", lambda c, size: tokens(c, size, n=0), "matrices alone"),
        ("07.4", lambda c, size: tokens(c, size, key_heads=True), "How many heads keep one"),
        ("07.4", lambda c, size: tokens(c, size, matrix=2), "in how many bits"),
        ("07.4", lambda c, size: tokens(c, size, whole=1), "a key and no value"),
        ("07.4", lambda c, size: tokens(c, size, n=c.delta_conv), "one input of the convolution"),
        ("07.4", lambda c, size: tokens(c, size) - 1, "both are equal"),
        ("07.5", kept_all, "still knows the wrong guesses"),
        ("07.5", no_replay, "taken back too"),
        ("07.5", any_match, "behind a wrong one"),
        ("07.5", too_late, "the right tokens, once each"),
        ("07.5", always_again, "where 5 suffice"),
        ("07.5", one_by_one, "checked together"),
        ("07.5", lambda memory, drafts: right["07.5"](memory, drafts) - 1, "and counts"),
    ]

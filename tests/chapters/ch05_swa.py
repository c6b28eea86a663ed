"""What the tests of every chapter need to know about chapter 05."""

import numpy as np

from tests.cases import LabCase, stored

LABS = {
    "ring": LabCase(
        calm=[({"kind": "ring"}, {"multiple": 1.0, "iqr": 0.0})],
        doctored=[
            ({"kind": "ring"}, {"cache_bytes": 1}, "the size of its window"),
            ({"kind": "ring"}, {"multiple": 9.0}, "it must be the window"),
            ({"kind": "all sliding"}, {"saving": 1.0}, "min(context, window) was forgotten"),
        ],
    ),
    "reach": LabCase(
        steady=True,
        doctored=[
            ({"layers": 2}, {"heard": 12}, "hears of 12 tokens, not of 11"),
            ({"layers": 1}, {"overwritten": 17}, "17 tokens were overwritten, where 16"),
        ],
    ),
    "sinks": LabCase(
        real=True,
        rows=stored("ch05/sinks"),
        doctored=[
            ({"view": "window", "first": 0}, {"nll": 9.0}, "within the first window"),
            ({"view": "window + 4 sinks", "first": 256}, {"nll": 99.0}, "give back less than half"),
        ],
    ),
    "windows": LabCase(
        real=True,
        rows=stored("ch05/windows"),
        doctored=[
            (
                {"what": "SmolLM2", "window": 256, "sinks": 4},
                {"lost": -0.5},
                "reads better than all the text",
            ),
            (
                {"what": "SmolLM2", "window": 256, "sinks": 4},
                {"nll": 99.0},
                "do not help a window of 256",
            ),
            ({"what": "recall", "window": 128}, {"recall_32": 0.5}, "train longer before"),
            ({"what": "recall", "window": 8}, {"recall_64": 0.9}, "look for a leak"),
        ],
    ),
    "ratios": LabCase(
        rows=stored("ch05/ratios"),
        doctored=[
            ({"pattern": "all full"}, {"recall_min": 0.5}, "have not learned the task"),
            ({"pattern": "all sliding"}, {"recall_64": 0.9}, "look for a leak"),
            ({"pattern": "all sliding"}, {"parameters": 1}, "differ in parameters"),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    return [
        ("05.1", 1024, "enough for decode"),
        ("05.1", 1536, "own token"),
        ("05.1", 2048, "so do fewer"),
        ("05.1", 1279, "overwrites a key"),
        ("05.1", 1535.0, "whole numbers"),
        ("05.2", lambda newest, slots: np.arange(slots), "not been written yet"),
        (
            "05.2",
            lambda newest, slots: np.where(np.arange(slots) <= newest, np.arange(slots), -1),
            "until the ring goes round",
        ),
        (
            "05.2",
            lambda newest, slots: newest - (newest - np.arange(slots)) % slots,
            "lies nowhere",
        ),
        (
            "05.2",
            lambda newest, slots: np.maximum(-1, newest - np.arange(slots)),
            "in other slots",
        ),
        ("05.3", lambda c, tokens: (2 * right["05.3"](c, tokens)[1],) * 2, "at full length"),
        ("05.3", lambda c, tokens: (right["05.3"](c, tokens)[1],) * 2, "as much as reserved"),
        ("05.3", lambda c, tokens: tuple(n // 2 for n in right["05.3"](c, tokens)), "half"),
        (
            "05.3",
            lambda c, tokens: tuple(n // c.n_layers for n in right["05.3"](c, tokens)),
            "one layer",
        ),
        ("05.3", always_a_window, "shorter than its window"),
        ("05.3", lambda c, tokens: right["05.3"](c, tokens)[0], "two numbers"),
        ("05.4", lambda layers, back: back + 1, "one layer needs alone"),
        ("05.4", lambda layers, back: -(-back // layers), "own token"),
        ("05.4", lambda layers, back: back // layers + 1, "one more layer add"),
        ("05.4", lambda layers, back: back / layers + 1, "whole number"),
        ("05.4", lambda layers, back: -(-back // layers) + 2, "so does"),
        ("05.5", lambda p, slots, keep: p % slots, "kept for ever"),
        (
            "05.5",
            lambda p, slots, keep: p if p < keep else (p - keep) % (slots - keep),
            "kept for ever",
        ),
        (
            "05.5",
            lambda p, slots, keep: p if p < keep else keep + (p - keep) % slots,
            "the last one is",
        ),
        (
            "05.5",
            lambda p, slots, keep: p if p < keep else max(keep, p % slots),
            "two share a slot",
        ),
        ("05.6", lambda reads, longest: True, "No step that it feeds"),
        ("05.6", lambda reads, longest: reads(longest, longest).all(), "nothing to lose"),
        ("05.6", lambda reads, longest: reads(9 * longest, 1).all(), "No step that it feeds"),
        (
            "05.6",
            lambda reads, longest: reads(3 * longest, longest).all(),
            "longer than the window",
        ),
        ("05.6", lambda reads, longest: reads(9 * longest, longest)[-1], "looks back furthest"),
        ("05.6", lambda reads, longest: False, "which is right"),
    ]


def always_a_window(config, tokens):
    """A sliding layer keeps its window, however short the text is."""
    each = 2 * config.n_kv_heads * config.head_dim * 2
    kept = {"full": tokens, "sliding": config.window}
    held = sum(kept[kind] for kind in config.types)
    return each * held, each * tokens * len(config.types)

"""What the tests of every chapter need to know about chapter 05."""

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
        rows=[
            {"what": "SmolLM2", "window": None, "sinks": 0, "nll": 3.0, "lost": 0.0},
            {"what": "SmolLM2", "window": 256, "sinks": 0, "nll": 3.8, "lost": 0.8},
            {"what": "SmolLM2", "window": 256, "sinks": 4, "nll": 3.1, "lost": 0.1},
            {"what": "recall", "window": 8, "reach": 15, "recall_32": 0.1, "recall_64": 0.05}
            | {"ranked": True},
            {"what": "recall", "window": 128, "reach": 255, "recall_32": 1.0, "recall_64": 0.9}
            | {"ranked": True},
        ],
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
        rows=[
            {"pattern": "all full", "recall_min": 0.99, "recall_64": 0.98}
            | {"reach": 43, "parameters": 267_072, "ranked": True},
            {"pattern": "all sliding", "recall_min": 0.2, "recall_64": 0.1}
            | {"reach": 43, "parameters": 267_072, "ranked": True},
        ],
        doctored=[
            ({"pattern": "all full"}, {"recall_min": 0.5}, "have not learned the task"),
            ({"pattern": "all sliding"}, {"recall_64": 0.9}, "look for a leak"),
            ({"pattern": "all sliding"}, {"parameters": 1}, "differ in parameters"),
        ],
    ),
}

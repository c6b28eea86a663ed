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
}

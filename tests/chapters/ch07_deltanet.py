"""What the tests of every chapter need to know about chapter 07."""

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

"""What the tests of every chapter need to know about chapter 08."""

from tests.cases import LabCase, stored

LABS = {
    "fair": LabCase(
        calm=[({"run": "fair"}, {"multiple": 1.0, "iqr": 0.0})],
        doctored=[
            ({"check": "dtype"}, {"on_rigged": "pass"}, "it can't fail"),
            ({"check": "seed"}, {"on_fair": "written: theirs 3, ours 4"}, "fails on the fair run"),
            ({"run": "fair"}, {"multiple": 3.0}, "3.00 apart"),
        ],
    ),
    "shell": LabCase(
        steady=True,
        doctored=[
            (
                {"variant": "MLA"},
                {"shapes": ["[74, 128] -> [74, 64]"]},
                "must not change the contract",
            ),
            ({"variant": "MoE"}, {"shell": 2}, "2 tensors of the shell"),
        ],
    ),
    "quality": LabCase(
        rows=stored("ch08/quality"),
        doctored=[
            ({"variant": "MQA"}, {"parameters": 104_000}, "match them before you compare"),
            ({"variant": "MHA"}, {"recall_min": 0.9}, "MHA recalls 90% from one seed"),
            (
                {"variant": "SWA hybrid"},
                {"recall_min": 0.4},
                "one of its layers keeps every token",
            ),
            ({"variant": "SWA"}, {"recall_max": 0.9}, "look for a leak"),
        ],
    ),
    "matched": LabCase(
        calm=[({}, {"multiple": 2.0}), ({"variant": "MHA again"}, {"multiple": 1.0})],
        doctored=[
            ({"variant": "MLA"}, {"active_parameters": 1}, "match them before you compare"),
            ({"variant": "SWA"}, {"cache_bytes": 1}, "look at what its cache keeps"),
            ({"variant": "MHA"}, {"does_not": ["prefix reuse"]}, "mend the engine"),
            (
                {"variant": "MHA again", "context": 1024},
                {"multiple": 2.0},
                "the machine is busy",
            ),
            ({"variant": "SWA", "context": 1024}, {"multiple": 1.0}, "look at what is read"),
        ],
    ),
    "order": LabCase(
        steady=True,
        doctored=[
            ({"id": "CH04-ABSORBED"}, {"needs": "CH08-FAIR"}, "comes before CH08-FAIR"),
        ],
    ),
    "pretraining": LabCase(
        steady=True,
        rows=[
            {
                "design": "MHA, G = 32",
                "meets": True,
                "why_not": "fits 3 users",
                "largest_batch": 3,
                "users": 64,
                "context": 131072,
                "gpu": "L4",
                "wanted": 30.0,
            }
        ],
        doctored=[({}, {"meets": False}, "change the target before you train")],
    ),
    "text": LabCase(
        rows=[
            {"variant": name, "active_parameters": 91_968, "nats": 1.5} | {"verdict": verdict}
            for name, verdict in {
                "MHA": "not told apart",
                "MHA again": "not told apart",
                "GQA": "not told apart",
                "MLA": "worse",
                "DeltaNet": "better",
            }.items()
        ],
        doctored=[
            ({"variant": "MLA"}, {"active_parameters": 99_000}, "match them before you compare"),
            ({"variant": "GQA"}, {"nats": 2.5}, "which is no reading yet"),
            ({"variant": "DeltaNet"}, {"nats": 0.3}, "shows it what comes next"),
            ({"variant": "MHA again"}, {"verdict": "worse"}, "are the same design"),
        ],
    ),
}


def wrong_answers(right: dict) -> list[tuple]:
    """(exercise, a wrong answer, words of the hint), given the right answers."""
    return [
        ("08.1", 65536, "keys alone"),
        ("08.1", "many", "whole number"),
    ]

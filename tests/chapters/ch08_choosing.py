"""What the tests of every chapter need to know about chapter 08."""

from tests.cases import LabCase

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
        doctored=[({"variant": "SWA"}, {"parameters": 1}, "match them before you compare")]
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
}

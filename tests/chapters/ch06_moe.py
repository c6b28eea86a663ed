"""What the tests of every chapter need to know about chapter 06."""

from tests.cases import LabCase

LABS = {
    "dense": LabCase(
        calm=[({}, {"multiple": 2.0})],
        doctored=[
            ({"variant": "MoE, grouped"}, {"gap": 0.5}, "differs from the loop"),
        ],
    ),
    "union": LabCase(
        steady=True,
        doctored=[
            (
                {"batch": 8, "tokens_are": "independent"},
                {"of_formula": 1.3},
                "whether the router is even",
            ),
            ({"batch": 8, "tokens_are": "alike"}, {"touched": 99.0}, "more than they chose"),
        ],
    ),
    "route": LabCase(
        steady=True,
        doctored=[
            ({"batch": 1}, {"touched": 1.9}, "one token touches 1.9 experts, where it chooses 2"),
            ({"batch": 4}, {"touched": 8.5}, "more than they chose"),
        ],
    ),
}

"""What the tests of every chapter need to know about chapter 06."""

from tests.cases import LabCase, stored

LABS = {
    "dense": LabCase(
        calm=[({}, {"multiple": 2.0})],
        doctored=[
            ({"variant": "MoE, grouped"}, {"gap": 0.5}, "differs from the loop"),
        ],
    ),
    "real": LabCase(
        calm=[({}, {"multiple": 2.0})],
        doctored=[
            ({"variant": "MoE, gather"}, {"gap": 0.5}, "differs from the loop"),
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
    "balance": LabCase(
        rows=stored("ch06/balance"),  # three steps balance nothing
        doctored=[
            ({"variant": "correction"}, {"busiest": 9.0}, "what balances reaches the router"),
            ({"variant": "auxiliary loss"}, {"busiest": 9.0}, "what balances reaches the router"),
            ({"variant": "correction by another's load"}, {"busiest": 1.0}, "look what was"),
            ({"variant": "nothing"}, {"bits": float("nan")}, "train it longer"),
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

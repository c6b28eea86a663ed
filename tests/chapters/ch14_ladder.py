"""What the tests of every chapter need to know about chapter 14."""

from tests.cases import LabCase, stored

LABS = {
    "ladder": LabCase(
        real=True,
        rows=stored("ch14/ladder"),
        doctored=[
            ({"rung": "packed weights"}, {"agreement": 0.9}, "the very tokens of the naive loop"),
        ],
    ),
    "ends": LabCase(real=True, rows=stored("ch14/ends")),
}

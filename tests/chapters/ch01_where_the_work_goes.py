"""What the tests of every chapter need to know about chapter 01."""

from tests.cases import LabCase

LABS = {
    "flops": LabCase(
        steady=True,
        doctored=[
            ({"model": "tiny"}, {"flops": 1}, "look for a part of the model"),
            ({"model": "llama3-8b"}, {"flops": 1}, "the formula says"),
        ],
    ),
    "protocol": LabCase(
        calm=[({}, {"spread": 0.01})],
        real=True,
        doctored=[
            (
                {"what": "decode", "protocol": "warm, median of all"},
                {"spread": 0.8},
                "80% of the median apart",
            ),
        ],
    ),
}

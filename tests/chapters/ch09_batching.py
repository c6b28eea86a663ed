"""What the tests of every chapter need to know about chapter 09."""

from tests.cases import LabCase, stored

LABS = {
    "static": LabCase(
        real=True,
        rows=stored("ch09/static"),
        doctored=[
            (
                {"variant": "continuous"},
                {"agreement": 0.5},
                "50% of the replies are not those of the request alone",
            ),
            (
                {"variant": "static, padded without a mask"},
                {"agreement": 1.0},
                "whether the prompts of a batch differ",
            ),
            ({"variant": "continuous"}, {"forwards": 999}, "who is done must leave"),
        ],
    ),
    "invariance": LabCase(
        real=True,
        rows=stored("ch09/invariance"),
        doctored=[
            (
                {"dtype": "fp32", "what": "prompts of mixed length"},
                {"same_tokens": 0.5},
                "only 50% of the tokens stay",
            ),
        ],
    ),
    "traffic": LabCase(
        real=True,
        steady=True,
        doctored=[
            ({"setting": "static"}, {"ttft_p99": 0.0}, "static does not make users wait longer"),
            ({"what": "live"}, {"requests": 100, "tpot_p50": 99.0}, "times the simulator's"),
        ],
    ),
}

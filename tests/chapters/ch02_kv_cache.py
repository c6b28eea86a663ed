"""What the tests of every chapter need to know about chapter 02."""

from tests.cases import LabCase

LABS = {
    "loops": LabCase(
        real=True,
        steady=True,
        doctored=[
            ({"step": 3}, {"cached_computed": 8}, "in step 3 the cached loop computes 8 keys"),
        ],
    ),
    "flash": LabCase(
        doctored=[
            ({"kind": "fused"}, {"gap": 0.1}, "differ by 1.0e-01"),
            ({"kind": "fused"}, {"context": 256, "gap": float("nan")}, "differ by nan"),
        ]
    ),
    "cached": LabCase(
        calm=[({}, {"tokens_per_second": 1.0, "prefill_tokens_per_second": 10.0})],
        real=True,
        doctored=[
            (
                {"context": 300},
                {"prefill_tokens_per_second": 1.0, "tokens_per_second": 2.0},
                "prefill is no faster",
            ),
        ],
    ),
    "loses": LabCase(
        real=True,
        doctored=[
            ({"context": 512}, {"cache_share": 0.5, "multiple": 1.0}, "50% of the bytes are cache"),
        ],
    ),
    "baseline": LabCase(
        calm=[({"variant": "cached"}, {"multiple": 10.0})],
        real=True,
        doctored=[
            ({"variant": "cached"}, {"multiple": 1.1}, "1.1 times as fast"),
        ],
    ),
}

"""What the tests of every chapter need to know about chapter 04."""

from tests.cases import LabCase

LABS = {
    "absorbed": LabCase(
        calm=[({}, {"multiple": 1.0, "iqr": 0.0}), ({"path": "absorbed"}, {"multiple": 30.0})],
        doctored=[
            ({"path": "absorbed"}, {"gap": 0.1}, "order of latent and RoPE part"),
            (
                {"path": "absorbed"},
                {"context": 8000, "multiple": 19.0},
                "where at least 20 is usual",
            ),
        ],
    ),
}

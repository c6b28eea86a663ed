"""What the tests of every chapter need to know about chapter 03."""

from tests.cases import LabCase, stored

LABS = {
    "savings": LabCase(
        steady=True,
        doctored=[
            ({"kv_heads": 8}, {"held": 1}, "a cache took 1 bytes"),
            ({"kv_heads": 8}, {"multiple": 32.0}, "query heads were counted"),
        ],
    ),
    "heads": LabCase(
        calm=[({}, {"over_expanded": 9.0})],
        doctored=[
            ({"variant": "GQA"}, {"gap": 0.01}, "which query head reads which key head"),
            (
                {"variant": "GQA", "way": "grouped"},
                {"context": 8000, "over_expanded": 3.9},
                "where 4 is usual",
            ),
        ],
    ),
    "pool": LabCase(
        real=True,
        rows=stored("ch03/pool"),
        doctored=[
            ({"kv_heads": 3}, {"score": 50.0, "before": 45.0}, "order of rows in qkv"),
            ({"kv_heads": 1}, {"score": 45.0, "before": 45.0}, "pooled at all"),
            ({"kv_heads": 1}, {"cache_bytes": 7}, "look at the model that was built"),
        ],
    ),
}

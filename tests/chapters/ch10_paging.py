"""What the tests of every chapter need to know about chapter 10."""

from tests.cases import LabCase, stored

LABS = {
    "pages": LabCase(
        real=True,
        rows=stored("ch10/pages"),
        doctored=[
            ({"way": "blocks of 16"}, {"in_use": 0.8}, "only 80% of the blocks' memory"),
            ({"way": "engine, blocks of 16"}, {"same_tokens": False}, "writes other tokens"),
            (
                {"way": "engine, blocks of 16"},
                {"n": 5, "multiple": 0.8},
                "0.80 times the static cache's speed",
            ),
        ],
    ),
    "prefix": LabCase(
        real=True,
        steady=True,
        doctored=[
            (
                {"what": "known beginning"},
                {"computed": 84},
                "84 tokens were computed where 20 were new",
            ),
            ({"what": "known beginning"}, {"n": 7, "multiple": 2.0}, "is worth 2.0 times"),
            ({"case": "head"}, {"found": 16}, "with the time at the head 16"),
        ],
    ),
    "preempt": LabCase(
        real=True,
        rows=stored("ch10/preempt"),
        doctored=[
            (
                {"case": "100% of what is asked for"},
                {"preemptions": 2},
                "yet 2 requests were preempted",
            ),
            ({"case": "30% of what is asked for"}, {"recomputed": 0}, "nothing was computed twice"),
            ({"what": "engine"}, {"same_tokens": False}, "its tokens are others"),
            ({"what": "engine"}, {"preemptions": 0}, "preempted 0 times"),
        ],
    ),
    "drills": LabCase(
        real=True,
        steady=True,
        doctored=[
            ({"cause": "pool too small"}, {"found": "healthy"}, "the counts speak for healthy"),
            ({"cause": "healthy"}, {"found": "prefix not found"}, "healthy: the cause is healthy"),
        ],
    ),
}

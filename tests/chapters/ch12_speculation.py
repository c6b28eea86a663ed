"""What the tests of every chapter need to know about chapter 12."""

from tests.cases import LabCase

TASKS = ("copy-editing", "free chat")

LABS = {
    "accept": LabCase(
        real=True,
        rows=[
            {
                "target": "on paper",
                "draft": "certain",
                "accept": 0.4,
                "keeps_the_likely": 0.0,
                "corrects_from_p": 0.0,
            },
            {
                "target": "on paper",
                "draft": "good",
                "accept": 0.01,
                "keeps_the_likely": 0.3,
                "corrects_from_p": 0.2,
            },
            {"a": 0.5, "k": 1, "tokens": 1.5, "counted": 1.46},
        ],
        doctored=[
            (
                {"draft": "good"},
                {"accept": 1e-9},
                "draft good, on paper: the right rule's p-value is 1e-09",
            ),
            ({"draft": "good"}, {"accept": float("nan")}, "p-value is nan"),
            (
                {"draft": "certain"},
                {"corrects_from_p": 0.01},
                "corrects_from_p passes with every draft",
            ),
            ({"k": 1}, {"counted": 1.0}, "gave 1.00 tokens, by formula 1.50"),
        ],
    ),
    "lookup": LabCase(
        real=True,
        rows=[
            {"task": "copy-editing", "tokens_per_forward": 4.0, "same_tokens": True},
            {"task": "free chat", "tokens_per_forward": 1.0, "same_tokens": True},
        ],
        doctored=[
            (
                {"task": "free chat"},
                {"same_tokens": False},
                "free chat: guesses changed the tokens",
            ),
            (
                {"task": "copy-editing"},
                {"tokens_per_forward": 0.9},
                "look at what is looked up",
            ),
        ],
    ),
    "batch": LabCase(
        real=True,
        rows=[
            {"tokens": 1, "times_one": 1.0},
            {"tokens": 64, "times_one": 6.0},
            {"batch": 2, "same_tokens": True},
        ],
        doctored=[
            ({"tokens": 64}, {"times_one": 70.0}, "a forward of 64 tokens takes 70 times one of 1"),
            ({"batch": 2}, {"same_tokens": False}, "2 requests: guesses changed the tokens"),
        ],
    ),
    "drafts": LabCase(
        real=True,
        rows=[
            {"task": task, "draft": draft, "acceptance": share, "same_tokens": True}
            for task in TASKS
            for draft, share in (("first 6 layers", 0.0), ("int8 copy", 0.9))
        ],
        doctored=[
            (
                {"draft": "first 6 layers"},
                {"same_tokens": False},
                "the drafts of first 6 layers changed the tokens",
            ),
            (
                {"draft": "int8 copy"},
                {"acceptance": 0.0},
                "copy-editing: the int8 copy is no more often right than the first 6 layers",
            ),
        ],
    ),
}

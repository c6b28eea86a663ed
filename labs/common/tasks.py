"""What users ask for: the prompts of six kinds of task, made from the course's own text."""

from __future__ import annotations

from labkit.quant import read_text

COPY = "Correct the spelling of this text and change nothing else:\n\n"
CODE = (
    '''def mean(numbers):
    """The mean of a list of numbers."""
    if not numbers:
        raise ValueError("a number is needed")
    return sum(numbers) / len(numbers)


def largest(numbers):
    """The largest of a list of numbers."""
''',
    """def test_a_new_cache_is_empty():
    cache = Cache(layers=4)
    assert cache.length(0) == 0


def test_append_adds_one_token():
""",
)


def paragraphs() -> list[str]:
    """The longer paragraphs of the course's text."""
    return [p for p in read_text("course").split("\n\n") if len(p) > 150]


def passage(first: int) -> str:
    """Two of these paragraphs, beginning with number `first`."""
    return "\n\n".join(paragraphs()[first : first + 2])


def tasks() -> dict[str, list[str]]:
    """task -> what two users ask for."""
    passages = [passage(1), passage(4)]
    return {
        "copy-editing": [COPY + p for p in passages],
        "summary with quotes": [
            f"Summarize this text. Quote its key sentences word for word:\n\n{p}" for p in passages
        ],
        "code completion": [f"Complete this Python code:\n\n```python\n{code}```" for code in CODE],
        "question on a text": [
            f"{p}\n\nAnswer from this text: what is it about, and why does that matter?"
            for p in passages
        ],
        "translation": [
            (
                "Translate into English: Der Hund schläft. Die Katze sitzt auf dem Tisch und sieht"
                " den Hund an."
            ),
            (
                "Translate into French: The price of wheat rose by 12% in March; economists had"
                " expected 8%."
            ),
        ],
        "free chat": [
            "What should I think about before I adopt a dog?",
            "Tell me a story about a lighthouse keeper who finds a letter.",
        ],
    }

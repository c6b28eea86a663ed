"""Predict a number, lock it, then see what was measured: a guess made first is what makes an answer
stick.
"""

from __future__ import annotations

import hashlib
from html import escape

import traitlets

from labkit.results import receipt
from labkit.widgets.base import Card, paragraph, source, still, text


class Bet(Card):
    """A prediction.

    `guess` is the reader's (a number, or an option's text); `stage` is "open", "locked" or "shown".
    """

    _esm = source("common.js", "bet.js")
    guess = traitlets.Any(None, allow_none=True).tag(sync=True)
    stage = traitlets.Unicode("open").tag(sync=True)

    @property
    def off_by(self) -> float | None:
        """How many times too high or too low the locked number was; None before that, or for
        options.
        """
        if (
            self.stage != "locked"
            or self.spec["options"]
            or not self.guess
            or not self.spec["answer"]
        ):
            return None
        return max(self.guess / self.spec["answer"], self.spec["answer"] / self.guess)

    def fallback(self) -> str:
        spec = self.spec
        options = "".join(f"<li>{escape(o)}</li>" for o in spec["options"])
        answer = (
            paragraph(f"**{spec['shown']}**", "lk-answer")
            + paragraph(spec["explain"], "lk-say")
            + paragraph(spec["provenance"], "lk-source")
        )
        return still(
            "bet",
            spec["title"],
            f"<ul>{options}</ul>" if options else "",
            f"<details><summary>Show the answer</summary>{answer}</details>",
        )


def bet(
    question: str,
    answer_key: str | None = None,
    *,
    answer=None,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    log: bool = True,
    options: list[str] | None = None,
    explain: str = "",
) -> Bet:
    """A question whose answer is hidden until the reader has locked a prediction, or asks to be
    shown.

    answer_key: a receipt expression, `row("ch02/baseline", variant="cached")["multiple"] | .1f`,
    that gives the number and its provenance; without one, `answer` is the number. A slider runs
    from `low` to `high`, by factors if `log`; with `options` the reader picks one, and `answer`
    says which is right (or the key's text does). explain: one sentence, `**bold**` allowed. Raises
    ValueError for a missing or ambiguous answer, or one that the slider cannot reach.
    """
    if answer_key is None and answer is None:
        raise ValueError("a bet needs an answer: give a receipt expression, or answer=…")
    found = receipt(answer_key) if answer_key else None
    shown = found.text if found else text(answer, "" if options else unit)
    if options:
        right = str(answer if answer is not None else shown)
        if right not in options or not 2 <= len(options) <= 6:
            raise ValueError(
                f"the answer {right!r} must be one of two to six options, which are {options}"
            )
        number = options.index(right)
        shown = right if not found or right == shown else f"{right} (measured: {shown})"
    else:
        number = float(answer if answer is not None else shown.replace(",", ""))
        shown = (
            f"{shown}{unit if unit in ('%', '×') else ' ' + unit}".strip()
            if answer_key and " | " in answer_key
            else text(number, unit)
        )
        if low is None or high is None or not low < high or (log and low <= 0):
            raise ValueError(
                f"a slider needs low < high{', both above zero' if log else ''}, not {low} and"
                f" {high}"
            )
        if not low <= number <= high:
            raise ValueError(
                f"the answer {shown} is off the slider, which runs from {low:g} to {high:g}"
            )
    measured = " ".join(found.measured) if found else ""
    computed = f"Computed: {answer_key}" if answer_key else ""
    spec = {
        "title": question,
        "key": hashlib.sha256(question.encode()).hexdigest()[:12],
        "answer": number,
        "shown": shown,
        "truth": "measured" if measured else "answer",
        "unit": unit,
        "range": [low, high, log],
        "options": options or [],
        "explain": explain,
        "provenance": measured or computed,
    }
    return Bet(spec=spec)

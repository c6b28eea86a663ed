"""Predict a number, lock it, then see what was measured: a guess made first is what makes an answer
stick.
"""

from __future__ import annotations

import hashlib
from html import escape

import traitlets

from labkit.results import receipt
from labkit.widgets import markup
from labkit.widgets.base import Widget, asset
from labkit.widgets.numbers import as_text, significant
from labkit.widgets.plot import Scale

STEPS = 100  # of the slider
NEAR = 1.15  # within this factor a guess counts as right


class Bet(Widget):
    """A prediction.

    `guess` is the reader's (a number, or an option's text); `stage` is "open", "locked" or "shown".
    `answer` is the number, or the right option; `provenance` says where it comes from.
    """

    _esm = asset("common.js", "bet.js")
    guess = traitlets.Any(None, allow_none=True).tag(sync=True)
    stage = traitlets.Unicode("open").tag(sync=True)

    def __init__(self, answer: float | str, provenance: str, **traits):
        self.answer = answer
        self.provenance = provenance
        super().__init__(**traits)

    @property
    def off_by(self) -> float | None:
        """How many times too high or too low the locked number was; None before that, or for
        options.
        """
        if self.stage != "locked" or isinstance(self.answer, str):
            return None
        return times_off(self.guess, self.answer) if self.guess and self.answer else None


def times_off(guess: float, answer: float) -> float:
    """How many times too high or too low."""
    return max(guess / answer, answer / guess)


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
    says which is right (or the key's text does). explain: one sentence, `**bold**` allowed.

    Raises ValueError for a missing or ambiguous answer, or one that the slider cannot reach.
    """
    if answer_key is None and answer is None:
        raise ValueError("a bet needs an answer: give a receipt expression, or answer=…")
    found = receipt(answer_key) if answer_key else None
    text = found.text if found else as_text(answer, "" if options else unit)
    spec: dict = {"key": hashlib.sha256(question.encode()).hexdigest()[:12]}
    if options:
        right = str(text if answer is None else answer)
        shown = right if not found or right == text else f"{right} (measured: {text})"
        spec |= _choice(right, options)
    else:
        right = float(text.replace(",", "") if answer is None else answer)
        # a format in the expression is how its author wants the number to be written
        written = bool(answer_key and " | " in answer_key)
        shown = _with_unit(text, unit) if written else as_text(right, unit)
        spec |= _slider(right, shown, low, high, log, unit)
    measured = " ".join(found.measured) if found else ""
    spec["truth"] = "measured" if measured else "answer"
    provenance = measured or (f"Computed: {answer_key}" if answer_key else "")
    told = [
        markup.paragraph(f"**{shown}**", "lk-answer"),
        markup.paragraph(explain, "lk-say"),
        markup.paragraph(provenance, "lk-source"),
    ]
    listed = "".join(f"<li>{escape(option)}</li>" for option in options or [])
    asked = f"<ul>{listed}</ul>" if options else ""
    folded = f"<details><summary>Show the answer</summary>{''.join(told)}</details>"
    still = markup.still("bet", question, markup.tag("div", asked + folded, class_="lk-shown"))
    return Bet(right, provenance, still=still, spec=spec)


def _choice(right: str, options: list[str]) -> dict:
    """What the browser needs to let the reader pick an option."""
    if right not in options or not 2 <= len(options) <= 6:
        raise ValueError(
            f"the answer {right!r} must be one of two to six options, which are {options}"
        )
    return {
        "kind": "options",
        "guesses": options,
        "texts": options,
        "verdicts": ["right." if option == right else "not so." for option in options],
    }


def _slider(answer: float, shown: str, low, high, log: bool, unit: str) -> dict:
    """What the browser needs of each place of the slider: its number, its text, what to say."""
    if low is None or high is None or not low < high or (log and low <= 0):
        both = ", both above zero" if log else ""
        raise ValueError(f"a slider needs low < high{both}, not {low} and {high}")
    if not low <= answer <= high:
        raise ValueError(
            f"the answer {shown} is off the slider, which runs from {low:g} to {high:g}"
        )
    scale = Scale(low, high, log)
    between = [significant(scale.value(step / STEPS), 2) for step in range(1, STEPS)]
    guesses = [low, *between, high]
    return {
        "kind": "slider",
        "guesses": guesses,
        "texts": [as_text(guess, unit) for guess in guesses],
        "verdicts": [markup.bold(_verdict(guess, answer, log, unit)) for guess in guesses],
        "at": scale.at(answer) / 1000,
    }


def _verdict(guess: float, answer: float, log: bool, unit: str) -> str:
    """How far off, in words."""
    side = "too high" if guess > answer else "too low"
    if log:
        times = times_off(guess, answer)
        return "well judged." if times < NEAR else f"**{significant(times, 2):,g} times** {side}."
    return "exactly right." if guess == answer else f"{as_text(abs(guess - answer), unit)} {side}."


def _with_unit(text: str, unit: str) -> str:
    return f"{text}{unit}" if unit in ("", "%", "×") else f"{text} {unit}"

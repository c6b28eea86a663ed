"""The guide: what to change in a situation, the rule behind it, and the numbers behind the rule.

No rule is an opinion: each names the formula or the stored row that it rests on. The widget, the
notebook and the page ask the same function, `ask`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from labkit import formulas, results
from labkit.tables import listed, only
from labkit_labs.ch08_choosing.situation import (
    DESIGNS,
    IN_WORDS,
    LONGEST,
    SERVICES,
    Case,
    Situation,
    design,
    in_words,
    measured,
)
from labkit_labs.common import gpus

NOTHING, MEASURE, TARGET = "change nothing", "measure first", "change the target"


# -- the rules ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What one rule wants here, and why."""

    rule: str
    change: str
    why: str


def diagnosis(case: Case) -> Wish | None:
    """No remedy before a measurement, and none for what no layer causes."""
    s, now = case.situation, case.now
    if not s.limit:
        return Wish(
            "diagnosis first",
            MEASURE,
            f"on paper {now['largest_batch']:,} fit and each gets {now['reaches']:,.0f} tokens/s"
            " at best; nobody has measured what runs out",
        )
    if s.limit == "nothing":
        return Wish("diagnosis first", NOTHING, "nothing runs out, so nothing can be gained")
    if s.limit == "launches":
        rows = results.load("ch02/baseline", "nvidia-h200")["rows"]
        cached = only(rows, variant="cached")
        return Wish(
            "diagnosis first",
            NOTHING,
            f"the loop waits, not a layer: on an H200 even a KV cache made our loop only"
            f" {cached['multiple']:.1f} times as fast; so capture the step as a graph, or batch",
        )
    if s.limit == "room" and now["largest_batch"] >= s.users:
        return Wish(
            "diagnosis first",
            NOTHING,
            f"on paper {now['largest_batch']:,} users fit and you have {s.users}: look at what is"
            " reserved, before what is needed",
        )
    if s.limit == "bytes" and case.cache_share < 0.5:
        return Wish(
            "diagnosis first",
            NOTHING,
            f"only {case.cache_share:.0%} of what a step reads is cache: weights are the wait, so"
            " turn to batches, fewer bits or drafts",
        )
    if s.limit == "first token" and not case.long:
        return Wish(
            "diagnosis first",
            NOTHING,
            f"attention's square is {case.attention_share:.0%} of a prompt's work: the rest is"
            " weights, which any design multiplies",
        )
    return None


def trained_in(case: Case) -> Wish | None:
    """Heads, latents, windows, states and experts are fixed by the first training step."""
    s = case.situation
    if s.training != "none":
        return None
    rows = results.load("ch03/pool")["rows"]
    pooled = only(rows, model="smollm2-135m", kv_heads=1, how="averaged")
    why = (
        f"merged after training, SmolLM2's perplexity went from {pooled['before']:.0f} to"
        f" {pooled['score']:,.0f}"
    )
    if s.limit in ("room", "bytes"):
        fit = gpus.named(s.gpu).largest_batch(s.config, s.context, cache_dtype="int8")
        why += f"; an 8-bit cache fits {fit:,} users where {case.now['largest_batch']:,} fit"
    return Wish("what is trained in stays in", NOTHING, why)


def memory(case: Case) -> Wish | None:
    """Caches fill the memory or the step: share heads, or compress."""
    s = case.situation
    if s.limit not in ("room", "bytes"):
        return None
    for name in ("GQA", "MLA"):
        if name in case.designs and not case.against(name):
            return _remedy(case, "memory → GQA or MLA", name)
    name = next((n for n in ("MLA", "GQA") if n in case.designs), None)
    return name and _remedy(case, "memory → GQA or MLA", name)


def local(case: Case) -> Wish | None:
    """What matters stands near: stop keeping the rest. Where some of it does not, full layers stand
    between the windows.
    """
    s = case.situation
    name = "SWA" if s.text == "near" else "SWA hybrid"
    limits = ("room", "bytes", "first token") if s.text == "near" else ("room", "bytes")
    asks = s.limit in limits and (s.text == "near" or not case.long)
    return _remedy(case, "local → SWA", name) if asks and name in case.designs else None


def ultra_long(case: Case) -> Wish | None:
    """One text outweighs the model: a state with full layers in between, or windows, if the engine
    must do what states forbid.
    """
    s = case.situation
    if s.limit not in ("room", "bytes", "first token") or not case.long or s.text == "near":
        return None
    name = "DeltaNet hybrid"
    if name in case.designs and set(s.needs) & set(measured(name)["does_not"]):
        name = "SWA hybrid"
    return _remedy(case, "ultra-long → linear hybrid", name) if name in case.designs else None


def capacity(case: Case) -> Wish | None:
    """A better model for the same work: experts, if all of them fit."""
    asks = case.situation.limit == "quality" and "MoE" in case.designs
    return _remedy(case, "capacity → MoE", "MoE") if asks else None


def _remedy(case: Case, rule: str, name: str) -> Wish:
    s, now, then = case.situation, case.now, case.after[name]
    if s.limit == "first token":
        why = (
            f"a prompt's work takes {now['first_token']:,.1f} s at best, with {IN_WORDS[name]}"
            f" {then['first_token']:,.1f}"
        )
    elif s.limit == "quality":
        why = (
            f"{then['parameters'] / 1e9:.0f} billion parameters for the work of"
            f" {then['active'] / 1e9:.0f}; {then['largest_batch']:,} users fit instead of"
            f" {now['largest_batch']:,}"
        )
    else:
        why = (
            f"{then['largest_batch']:,} users fit instead of {now['largest_batch']:,}, at"
            f" {then['reaches']:,.0f} tokens/s instead of {now['reaches']:,.0f} at best"
        )
    return Wish(rule, name, why)


REMEDIES = {
    "memory → GQA or MLA": memory,
    "local → SWA": local,
    "capacity → MoE": capacity,
    "ultra-long → linear hybrid": ultra_long,
}
RULES = {  # a rule's name -> what it says
    "diagnosis first": "Without a measured shortage nothing is changed, nor for one that no layer"
    " causes.",
    "what is trained in stays in": "A finished model keeps its heads, windows, latents, experts.",
    "memory → GQA or MLA": "Caches fill the card or the step: half the heads, then a latent.",
    "local → SWA": "What matters stands near: windows.",
    "capacity → MoE": "Answers aren't good enough and the card has room: experts.",
    "ultra-long → linear hybrid": "One text outweighs the model: states, with full layers between"
    " them; windows instead, if the engine must do what a state forbids.",
    "give up least": "Of remedies that meet the target, the one that loses fewest services, then"
    " the one that keeps most of the text, then the one with fewest lines of its own.",
    "one change at a time": "Where none is enough: the largest step alone, and measure again.",
    "popularity is no reason": "That others use a design says what they ran out of, not what you"
    " do.",
}


# -- the answer --------------------------------------------------------------------------


@dataclass(frozen=True)
class Advice:
    """What to do, by which rule, on which numbers, and how to get back."""

    change: str
    rule: str
    why: str
    numbers: list[dict] = field(default_factory=list)  # what, now, then, from
    price: str = ""
    rollback: str = ""
    conflicts: list[tuple[str, str, str]] = field(default_factory=list)  # rule, its wish, why not

    @property
    def lines(self) -> list[dict]:
        """For a table: the advice, why, who said otherwise, the price, the way back."""
        told = [("advice", f"{self.change}, by “{self.rule}”"), ("why", self.why)]
        told += [(f"not {wish}", f"(“{rule}”) {why}") for rule, wish, why in self.conflicts]
        told += [("price", self.price), ("way back", self.rollback)]
        return [{"the guide": what, "says": text} for what, text in told]

    @property
    def sentence(self) -> str:
        """For a widget: the advice, the rule, the numbers, and who said otherwise."""
        said = f"**{self.change[0].upper() + self.change[1:]}** ({self.rule}): {self.why}."
        for rule, wish, why in self.conflicts[:1]:
            said += f" “{rule}” says {wish}, but {why}."
        return said


def ask(situation: Situation) -> Advice:
    """The guide's advice for a situation."""
    return advise(Case(situation))


def advise(case: Case) -> Advice:
    """The same, for a situation whose numbers are wanted, too."""
    wishes = [w for rule in REMEDIES.values() if (w := rule(case))]
    first = diagnosis(case) or trained_in(case)
    if first:
        return _nothing(case, first, wishes)
    fit = [w for w in wishes if not case.against(w.change)]
    if fit:
        return _best(case, fit, wishes)
    return _step(case, wishes)


def loses(name: str) -> tuple[int, int, int]:
    """What a design gives up: services of the engine, layers that keep every token (0 none, 1 some,
    2 all of them), lines of its own.
    """
    row = measured(name)
    forgets = {"SWA": 2, "SWA hybrid": 1, "DeltaNet hybrid": 1}.get(name, 0)
    return len([n for n in row["does_not"] if n in SERVICES]), forgets, row["own_lines"]


def _more(name: str, than: str) -> str:
    """What a design gives up that another does not."""
    for ours, theirs, what in zip(
        loses(name),
        loses(than),
        (
            f"the engine does less for {name}",
            f"in {name} fewer layers keep every token",
            f"{name} has more lines of its own",
        ),
    ):
        if ours > theirs:
            return f"{than} meets the target, too, and {what}"
    return f"{than} meets the target, too, and its rule comes first"


def _nothing(case: Case, first: Wish, wishes: list[Wish]) -> Advice:
    reason = {
        "diagnosis first": "nothing that was measured calls for it",
        "what is trained in stays in": "it would have to be trained again",
    }[first.rule]
    conflicts = [(w.rule, w.change, reason) for w in wishes]
    conflicts += _asked(case, first.change, reason)
    rule = first.rule
    if case.situation.asked and case.situation.limit == "nothing":
        rule = "popularity is no reason"
    return Advice(
        first.change,
        rule,
        first.why,
        _numbers(case, None),
        "none: no line, no service lost",
        "none needed: nothing has changed",
        conflicts,
    )


def _best(case: Case, fit: list[Wish], wishes: list[Wish]) -> Advice:
    best = min(fit, key=lambda w: loses(w.change))
    conflicts = []
    for w in wishes:
        if w is best:
            continue
        conflicts.append((w.rule, w.change, case.against(w.change) or _more(w.change, best.change)))
    conflicts += _asked(case, best.change)
    return _advice(case, best.change, best.rule, best.why, conflicts)


def _step(case: Case, wishes: list[Wish]) -> Advice:
    """None is enough: the first of two, if both together would meet the target."""
    s = case.situation
    conflicts = [(w.rule, w.change, case.against(w.change)) for w in wishes]
    first = "SWA" if s.text == "near" else "SWA hybrid"
    both = first in case.designs and design(case.designs[first], "GQA")
    n = case.numbers(both) if both else None
    if n is None or not n["meets"] or s.limit not in ("room", "bytes"):
        why = f"as it is, it {in_words(case.now['why_not'])}, and no design here is enough"
        if case.now["meets"]:
            why = "no design that can be built here helps"
        return Advice(
            TARGET,
            "one change at a time",
            f"{why}: another card, fewer users or shorter texts",
            _numbers(case, None),
            "a larger bill, or a smaller promise",
            "the old target",
            conflicts + _asked(case, TARGET),
        )
    why = (
        f"no one change is enough; windows bring most, and with half the heads as a second step"
        f" {n['largest_batch']:,} users fit at {n['reaches']:,.0f} tokens/s"
    )
    return _advice(case, first, "one change at a time", why, conflicts + _asked(case, first))


def _asked(case: Case, change: str, reason: str = "") -> list[tuple[str, str, str]]:
    """What is said to the design that others have, if it is not the one advised."""
    asked = case.situation.asked
    if not asked or asked == change:
        return []
    if asked not in case.designs:
        reason = "this model has it, or can't be built with it"
    if not reason:
        reason = case.against(asked) or (
            _more(asked, change) if change in DESIGNS else "it is not enough"
        )
    return [("popularity", asked, reason)]


def _advice(case: Case, name: str, rule: str, why: str, conflicts: list) -> Advice:
    row, s = measured(name), case.situation
    lost = [n for n in row["does_not"] if n in SERVICES]
    price = f"{row['own_lines']} lines of its own; " + (
        f"the engine does without {listed(lost)}" if lost else "the engine loses nothing"
    )
    if "SWA" in name:
        price += "; an engine that reserves full length saves no room"
    if name == "MoE":
        price += f"; {formulas.weight_bytes(case.designs[name]) / 1e9:.0f} GB of weights"
    number = {
        "first token": "the first token comes no sooner",
        "quality": "your task's score does not rise",
    }.get(s.limit, f"fewer than {s.users} users get {s.tokens_per_second:g} tokens/s")
    rollback = (
        f"keep config and checkpoint of the plain twin, trained on the same data; go back if"
        f" {number}, or your task's score falls below the limit you wrote down before"
    )
    return Advice(name, rule, why, _numbers(case, name), price, rollback, conflicts)


def _numbers(case: Case, name: str | None) -> list[dict]:
    """The rows of a table: what, now, then, and where the numbers are from."""
    now = case.now
    then = case.after[name] if name else None
    paper = "formulas"

    def line(what: str, key: str, form: str, scale: float = 1) -> dict:
        return {
            "what": what,
            "now": format(now[key] / scale, form),
            "then": format(then[key] / scale, form) if then else "–",
            "from": paper,
        }

    rows = [
        line("GB of weights", "weight_bytes", ",.1f", 1e9),
        line("GB of cache, all users", "cache_bytes", ",.1f", 1e9),
        line("users that fit", "largest_batch", ",.0f"),
        line("tokens/s a user, at best", "reaches", ",.0f"),
        line("seconds to a first token, at best", "first_token", ",.2f"),
    ]
    if name:
        row = measured(name)
        recall = only(results.load("ch08/quality")["rows"], variant=name)
        rows += [
            {
                "what": f"times as fast as MHA, {LONGEST:,} tokens, one thread",
                "now": "–",
                "then": f"{row['multiple']:.2f}",
                "from": "CH08-MATCHED",
            },
            {
                "what": "of 32 pairs recalled",
                "now": "–",
                "then": f"{recall['recall']:.0%}",
                "from": "CH08-QUALITY",
            },
        ]
    return rows


def kept(draw: Callable, tried: list):
    """`draw` of the last that was tried; where that makes no sense, of the last before it that
    does, with the sentence that says why: a picture stays until there is a better one.
    """
    why = ""
    for value in reversed(tried):
        try:
            made = draw(value)
        except ValueError as e:
            why = why or f"**No such model:** {e}. The picture is still that of the one before."
        else:
            return made | {"say": why} if why else made
    raise ValueError(why)

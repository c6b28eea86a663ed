"""A situation in which one has to choose, the designs there are, and what each comes to there.

What a design needs is computed by `labkit.formulas`; what it takes and costs stands in stored rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from labkit import ModelConfig, formulas, presets, results
from labkit.config import UnknownName, whole
from labkit.tables import listed, only
from labkit_labs.ch08_choosing.pretraining import meets
from labkit_labs.common import gpus

LIMITS = {  # what was measured to run out
    "": "not measured yet",
    "nothing": "nothing: the target is met",
    "room": "room: the caches don't fit",
    "bytes": "a step waits for what it reads",
    "first token": "the first token takes too long",
    "launches": "a step waits for launches",
    "quality": "answers aren't good enough",
}
TEXTS = {  # what the answer needs of a long text
    "near": "what stands near",
    "gist": "the gist of all of it",
    "exact": "single facts from anywhere",
}
TRAINING = ("none", "pretraining")
SERVICES = ("prefix reuse", "checked drafts", "an 8-bit cache", "going back")
SHARED = 8  # queries that read one key/value head, at most: no published preset shares more
LONGEST = 16384  # tokens at which CH08-MATCHED has timed every variant


@dataclass(frozen=True)
class Situation:
    """A deployment and what is known of it. ValueError, in one sentence, if it makes no sense."""

    limit: str = ""
    model: str | ModelConfig = "llama3-8b"
    gpu: str = "H100"
    context: int = 32768
    users: int = 16
    tokens_per_second: float = 30.0  # wanted, for each user
    text: str = "exact"
    training: str = "pretraining"  # what may still be trained
    needs: tuple[str, ...] = ()  # of the engine
    frees_windows: bool = True  # does the engine give back what no layer sees?
    asked: str = ""  # a design that somebody wants, as others have it

    def __post_init__(self):
        for kind, name, known in (
            ("limit", self.limit, LIMITS),
            ("kind of text", self.text, TEXTS),
            ("training", self.training, TRAINING),
            *(("service", need, SERVICES) for need in self.needs),
            *((("design", self.asked, DESIGNS),) if self.asked else ()),
        ):
            if name not in known:
                raise UnknownName(kind, name, known)
        whole(context=self.context, users=self.users)
        if not self.tokens_per_second > 0:
            raise ValueError(
                f"tokens_per_second must be above 0, not {self.tokens_per_second!r}: it is what a"
                " user is to get"
            )
        gpus.named(self.gpu)
        if isinstance(self.model, str) and self.model not in presets:
            raise UnknownName("model", self.model, presets)

    @property
    def config(self) -> ModelConfig:
        return presets[self.model] if isinstance(self.model, str) else self.model


# -- designs -----------------------------------------------------------------------------


def _repeated(config: ModelConfig, pattern: str) -> dict:
    kinds = pattern.split() * config.n_layers
    return {"layer_types": tuple(kinds[: config.n_layers])}


def _fewer_heads(c: ModelConfig) -> dict | None:
    attends = {"full", "sliding"} & set(c.types)
    half = c.n_kv_heads // 2
    if attends and c.n_kv_heads % 2 == 0 and c.n_heads // half <= SHARED:
        return {"n_kv_heads": half}
    return None


def _latent(c: ModelConfig) -> dict:
    size = c.head_dim  # DeepSeek's proportions
    sizes = {"kv_lora_rank": 4 * size, "qk_nope_head_dim": size, "v_head_dim": size}
    return sizes | {"qk_rope_head_dim": size // 2} | _repeated(c, "mla")


def _states(c: ModelConfig) -> dict:
    sizes = {  # a layer of Qwen3-Next
        "delta_n_key_heads": 16,
        "delta_n_value_heads": 32,
        "delta_key_dim": 128,
        "delta_value_dim": 128,
    }
    return sizes | _repeated(c, "delta delta delta full")


def _experts(c: ModelConfig) -> dict:
    return {"n_experts": 8, "n_active_experts": 2, "d_expert": c.d_ff // 2, "d_ff": 0}


DESIGNS: dict[str, Callable[[ModelConfig], dict | None]] = {
    "GQA": _fewer_heads,
    "MLA": _latent,
    "SWA": lambda c: {"window": 4096} | _repeated(c, "sliding"),
    "SWA hybrid": lambda c: (
        {"window": 1024} | _repeated(c, "sliding sliding sliding sliding sliding full")
    ),
    "DeltaNet hybrid": _states,
    "MoE": _experts,
}
IN_WORDS = {
    "GQA": "half the key/value heads",
    "MLA": "a latent",
    "SWA": "a window of 4,096 in every layer",
    "SWA hybrid": "five windows of 1,024 to one full layer",
    "DeltaNet hybrid": "three states to one full layer",
    "MoE": "8 experts, 2 at work",
}


def design(config: ModelConfig, name: str) -> ModelConfig | None:
    """A model with another inside; None where it has that one, or where it can't be built in."""
    if name not in DESIGNS:
        raise UnknownName("design", name, DESIGNS)
    plain = set(config.types) == {"full"} and config.position == "rope"
    if name == "MoE":
        possible = not config.n_experts and config.ffn != "gelu"
    else:
        possible = plain or name == "GQA"
    changes = DESIGNS[name](config) if possible else None
    return config.replace(**changes) if changes else None


def measured(name: str) -> dict:
    """What CH08-MATCHED found of a design at its longest context, beside MHA."""
    return only(results.load("ch08/matched")["rows"], variant=name, context=LONGEST)


# -- a situation in numbers --------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A situation with what the formulas say of it."""

    situation: Situation

    def numbers(self, config: ModelConfig) -> dict:
        """What a design needs and reaches for the target, as in CH08-PRETRAINING."""
        s, card = self.situation, gpus.named(self.situation.gpu)
        found = meets(config, card, s.context, s.users, s.tokens_per_second)
        if not s.frees_windows and "sliding" in config.types:
            each = formulas.kv_cache_reserved_bytes(config, s.context)
            fit = int(max(0, card.room(config)) // each)
            if fit < s.users:
                found |= {"largest_batch": fit, "meets": False, "why_not": f"fits {fit} users"}
        flops = formulas.least_prefill_flops(config, s.context)
        return found | {"first_token": flops / card.ceilings.flops_per_second}

    @cached_property
    def now(self) -> dict:
        return self.numbers(self.situation.config)

    @cached_property
    def designs(self) -> dict[str, ModelConfig]:
        """Those that can be built from this model."""
        made = {name: design(self.situation.config, name) for name in DESIGNS}
        return {name: config for name, config in made.items() if config}

    @cached_property
    def after(self) -> dict[str, dict]:
        """What each design needs and reaches."""
        return {name: self.numbers(config) for name, config in self.designs.items()}

    @cached_property
    def cache_share(self) -> float:
        """Of the bytes that a step reads, those of caches."""
        s = self.situation
        read = formulas.decode_bytes(s.config, s.context, s.users)
        return self.now["cache_bytes"] / read

    @cached_property
    def attention_share(self) -> float:
        """Of the least FLOPs of a prompt, those that grow with the square of its length."""
        s = self.situation
        once = formulas.least_prefill_flops(s.config, 1) * s.context
        return max(0.0, 1 - once / formulas.least_prefill_flops(s.config, s.context))

    @property
    def long(self) -> bool:
        """Does one text's cache outweigh the model, or its square the rest of the prompt?"""
        s = self.situation
        one = formulas.kv_cache_bytes(s.config, s.context)
        return one > self.now["weight_bytes"] or self.attention_share > 0.5

    def reached(self, name: str) -> float:
        """The share of the target that a design reaches; 1 or more meets it."""
        s, n = self.situation, self.after[name]
        if s.limit == "first token":
            return self.now["first_token"] / n["first_token"]
        return min(n["largest_batch"] / s.users, n["reaches"] / s.tokens_per_second)

    def against(self, name: str) -> str:
        """Why a design is out, or nothing."""
        s = self.situation
        lost = [need for need in s.needs if need in measured(name)["does_not"]]
        if lost:
            return f"the engine gives it no {listed(lost)}"
        if s.text != "near" and name == "SWA":
            row = only(results.load("ch08/quality")["rows"], variant="SWA")
            return f"windows alone recalled {row['recall']:.0%} of pairs, most of them further back"
        if s.limit == "first token":
            return "" if self.reached(name) > 1.1 else "it leaves a prompt's work as it is"
        n = self.after[name]
        if n["meets"]:
            return ""
        where = "on paper" if s.frees_windows or "SWA" not in name else "at full length"
        return f"{where} it {in_words(n['why_not'])}"


def in_words(why: str) -> str:
    """Why a design fails the target, as part of a sentence."""
    if why.startswith("its "):
        return "outgrows the card: its weights alone don't fit"
    return why.replace("fits 1 users", "fits 1 user")

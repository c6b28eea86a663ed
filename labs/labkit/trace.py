"""What really happened, step by step: recorded once, then played by a widget, drawn by a film,
printed as a table.

A Trace is plain data. Each kind has one step type below; a recorder watches the code that runs (it
never re-tells what should have happened), and readers speak JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

SCHEMA = 1


@dataclass(frozen=True)
class DecodeStep:
    """One forward of a decode loop."""

    token: str  # the token this forward produced
    fed: list[str]  # the tokens it was given
    computed: int  # keys projected, per layer and head
    read: int  # keys attended to by the last query
    written: int  # keys stored
    held: int  # keys in the cache afterwards


@dataclass(frozen=True)
class AttentionStep:
    """One tile of keys seen by one tile of queries (online softmax)."""

    query_tile: list[int]  # first and last query, end excluded
    key_tile: list[int]
    skipped: bool  # wholly behind the causal mask
    top: list[float]  # running maximum of each query
    total: list[float]  # running sum of exponentials
    change: float  # the factor by which earlier work is rescaled, smallest of the tile's queries
    held_floats: int  # numbers kept on chip for this tile


class Stats(dict):
    """Numbers by name: `stats["running"]` is `stats.running`."""

    __getattr__ = dict.__getitem__


@dataclass(frozen=True)
class ScheduleStep:
    """One step of an engine: who ran."""

    seconds: float
    # [row, request, "prefill" | "decode" | "check", tokens fed, context, tokens out] each
    rows: list
    waiting: list[int]
    preempted: list[int]
    finished: dict  # request -> reason


@dataclass(frozen=True)
class BlocksStep:
    """The blocks after one step of an engine."""

    tables: dict  # request -> its blocks, in order
    free: int
    kept: list[int]  # held by nobody, findable by their contents; oldest first
    copied: list  # [from, to] each, by copy on write
    hit_tokens: int  # found by prefix so far


@dataclass(frozen=True)
class SpeculationStep:
    """The drafts that one step of an engine checked."""

    seconds: float
    checks: list  # [request, drafts, how many were accepted] each


KINDS = {
    "decode": DecodeStep,
    "attention": AttentionStep,
    "schedule": ScheduleStep,
    "blocks": BlocksStep,
    "speculation": SpeculationStep,
}


@dataclass(frozen=True)
class Trace:
    """Steps of one kind, with where they came from.

    `source` names the function that was watched; `meta` its settings.
    """

    kind: str
    source: str
    meta: dict
    steps: list = field(default_factory=list)
    schema: int = SCHEMA

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"no trace is of kind {self.kind!r}: choose {', '.join(KINDS)}")
        for i, step in enumerate(self.steps):
            if type(step) is not KINDS[self.kind]:
                raise ValueError(
                    f"step {i} of a {self.kind} trace must be a {KINDS[self.kind].__name__}, not"
                    f" {type(step).__name__}"
                )

    def to_dict(self) -> dict:
        return {
            "schema": self.schema,
            "kind": self.kind,
            "source": self.source,
            "meta": self.meta,
            "steps": [asdict(s) for s in self.steps],
        }

    @classmethod
    def from_dict(cls, d: dict) -> Trace:
        if d.get("schema") != SCHEMA or d.get("kind") not in KINDS:
            raise ValueError(
                f"this is not a trace of schema {SCHEMA}: kind {d.get('kind')!r}, schema"
                f" {d.get('schema')!r}"
            )
        step = KINDS[d["kind"]]
        known = {f.name for f in fields(step)}
        for i, s in enumerate(d["steps"]):
            if set(s) != known:
                raise ValueError(
                    f"step {i} has the fields {sorted(s)}, a {d['kind']} step has {sorted(known)}"
                )
        return cls(d["kind"], d["source"], d["meta"], [step(**s) for s in d["steps"]])

    def save(self, path) -> Path:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, path) -> Trace:
        return cls.from_dict(json.loads(Path(path).read_text()))


class WatchedCache:
    """A cache that counts what passes through it, and otherwise is the cache it wraps."""

    def __init__(self, cache):
        self.cache = cache
        self.read_slots = 0
        self.written = 0
        self.held = 0

    def write(self, step, *items):
        self.cache.write(step, *items)
        self.written = 0 if self.cache.allocated_bytes == 0 else len(items[0])
        self.held += self.written

    def read(self, step):
        *items, kpos = self.cache.read(step)
        self.read_slots = int((kpos[-1] >= 0).sum())
        return *items, kpos


def record_decode(
    model, prompt: list[int], new: int, *, cache: str = "static", decode=None
) -> Trace:
    """Run a greedy decode of one prompt and record what each forward fed, computed, read and wrote
    (in layer 0).

    cache as in `labkit.generate`; `decode` turns ids into text (default: the numbers).
    """
    import torch

    from labkit.step import Step

    text = decode or (lambda ids: str(ids[0]))
    ids, start, steps = list(prompt), 0, []
    caches = model.caches(cache, 1, len(prompt) + new)
    watched = caches[0] = WatchedCache(caches[0])
    for _ in range(new):
        feed = ids if cache == "none" else ids[start:]
        with torch.inference_mode():
            step = Step.of([(0, len(ids) - len(feed), feed)], model.device)
            token = int(model(step, caches, step.last)[0].argmax())
        steps.append(
            DecodeStep(
                text([token]),
                [text([i]) for i in feed],
                len(step.ids),
                watched.read_slots,
                watched.written,
                watched.held,
            )
        )
        start = len(ids)
        ids.append(token)
    meta = {"cache": cache, "prompt": [text([i]) for i in prompt], "layers": model.config.n_layers}
    return Trace("decode", "labkit.trace.record_decode", meta, steps)

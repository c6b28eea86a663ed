"""A Trace: plain data that says what ran, step by step, and where it came from."""

from __future__ import annotations

import json
import pkgutil
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path

from labkit import results

SCHEMA = 1


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
        _must_be_known(self.schema)
        expected = step_type(self.kind)
        for i, step in enumerate(self.steps):
            if type(step) is not expected:
                raise ValueError(
                    f"step {i} of a trace of kind {self.kind!r} must be of type"
                    f" {expected.__name__}, not {type(step).__name__}"
                )

    def to_dict(self) -> dict:
        return {
            "schema": self.schema,
            "kind": self.kind,
            "source": self.source,
            "meta": self.meta,
            "steps": [asdict(step) for step in self.steps],
        }

    @classmethod
    def from_dict(cls, d: dict) -> Trace:
        """The trace that `to_dict` wrote. ValueError for anything else, a later schema included."""
        if not isinstance(d, dict) or "schema" not in d:
            raise ValueError("this is not a trace: it names no schema")
        _must_be_known(d["schema"])
        if missing := {f.name for f in fields(cls)} - set(d):
            raise ValueError(f"this is not a whole trace: it lacks {', '.join(sorted(missing))}")
        step = step_type(d["kind"])
        known = {f.name for f in fields(step)}
        for i, values in enumerate(d["steps"]):
            if set(values) != known:
                raise ValueError(
                    f"step {i} has the fields {sorted(values)}, a {d['kind']} step has"
                    f" {sorted(known)}"
                )
        steps = [step(**values) for values in d["steps"]]
        return cls(d["kind"], d["source"], d["meta"], steps)

    def save(self, path: Path | str) -> Path:
        """Write it as JSON, whole or not at all; folders are made."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        part = path.with_suffix(".part")
        part.write_text(text + "\n")
        return part.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> Trace:
        """Read what `save` wrote. ValueError, with the file's name, for what is no trace."""
        path = Path(path)
        try:
            return cls.from_dict(json.loads(path.read_text()))
        except ValueError as e:
            raise ValueError(f"{path.name}: {e}") from e


def _must_be_known(schema) -> None:
    if schema != SCHEMA:
        raise ValueError(
            f"this labkit reads traces of schema {SCHEMA}, not {schema!r}: update labkit, or record"
            " it again"
        )


def kinds() -> list[str]:
    """Every kind of trace: the modules that lie beside this one."""
    package = import_module("labkit.traces")
    return sorted({m.name for m in pkgutil.iter_modules(package.__path__)} - {"trace"})


def step_type(kind: str) -> type:
    """The dataclass of a kind's steps: of `decode`, the `DecodeStep` in `traces/decode.py`."""
    if kind not in kinds():
        raise ValueError(f"no trace is of kind {kind!r}: choose {', '.join(kinds())}")
    words = "".join(word.capitalize() for word in kind.split("_"))
    return getattr(import_module(f"labkit.traces.{kind}"), f"{words}Step")


def path_of(name: str) -> Path:
    """Where the trace of this name is kept: `ch02/decode_cached`, in
    `labs/results/ch02/decode_cached.trace.json`.
    """
    return results.folder() / f"{name}.trace.json"


def stored(name: str) -> Trace:
    """The trace that a lab kept under this name, such as "ch02/decode_cached".

    Pages, notebooks and clips all read it here, so they show one run. ValueError if there is none.
    """
    path = path_of(name)
    if not path.exists():
        home = results.folder()
        known = sorted(
            p.relative_to(home).as_posix().removesuffix(".trace.json")
            for p in home.rglob("*.trace.json")
        )
        raise ValueError(
            f"no trace is stored as {name!r}; stored are: {', '.join(known) or 'none'}"
        )
    return Trace.load(path)

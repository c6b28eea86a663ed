"""Measured numbers, stored with where they were measured: `labs/results/<name>.<machine>.json`.

A name is a lab's chapter and file, `ch05/ring`. A document is `{schema, name, env, code, command,
commit, date, rows}`; a `note` says what else a reader must know. `code` is a hash of what was
timed. Pages quote rows through the `{n}` role (`receipt` below), so that a number in prose always
carries its machine, date, commit and command. Whose numbers they are is named in machines.json.
"""

from __future__ import annotations

import datetime
import fnmatch
import json
import math
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from labkit import chapters, machines, paths, timed
from labkit.environment import environment, file_name

SCHEMA = 1
# names from before a result's name was its lab's folder and file
OLD_NAMES = {
    "bench-transformers": "bench/transformers",
    "ch14-ladder-ends": "ch14/ends",
    "ch14-ladder-ends-busy": "ch14/ends.intel-xeon-2core-busy",
}


def folder() -> Path:
    """Where results lie: `labs/results` of a checkout, or the copy inside the installed wheel."""
    return paths.results()


def canonical(name: str) -> str:
    """A result's name for any that it goes by or went by: `CH4B-LAB-07`, `ch05-ring` ->
    `ch05/ring`. A machine may follow after a dot.
    """
    name, dot, machine = name.partition(".")
    if name.lower() in OLD_NAMES:
        name = OLD_NAMES[name.lower()]
    elif re.fullmatch(r"ch\d\d[-/]\w+", name.lower()) or name.upper() in chapters.DECK:
        name = chapters.result_name(name)
    return name + dot + machine


# -- store -----------------------------------------------------------------------------------------


def document(
    name: str,
    rows: list[dict],
    *,
    device: str = "cpu",
    load: float | None = None,
    threads: int | None = None,
) -> dict:
    """Rows with their provenance. A ratio's key is "multiple".

    load, threads: see `environment`. Raises ValueError for no rows, and for a number that is none.
    """
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise ValueError("a result needs at least one row, and every row is a dict")
    name = canonical(name)
    for i, row in enumerate(rows):
        _check_finite(row, f"{_label(i, row)} of {name!r}")
    code = timed.code_of(name)
    return {
        "schema": SCHEMA,
        "name": name,
        "env": environment(device, load=load, threads=threads),
        **({"code": code} if code else {}),
        "command": _command(sys.argv),
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "rows": rows,
    }


def save(name: str, rows: list[dict], *, into: Path | str | None = None, **given) -> Path:
    """Store `document(name, rows, **given)` in `labs/results` (or `into`) and return its path."""
    doc = document(name, rows, **given)
    target = Path(into or folder()) / f"{doc['name']}.{file_name(doc['env'])}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_text(json.dumps(doc, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return part.replace(target)


def _label(i: int, row: dict) -> str:
    """Which row it is, told by its words: `row 2 (variant='cached')`."""
    words = ", ".join(f"{k}={v!r}" for k, v in row.items() if isinstance(v, str) and k != "unit")
    return f"row {i + 1}{f' ({words})' if words else ''}"


def _check_finite(value, where: str, key: str = "") -> None:
    """ValueError for a NaN or an infinity, wherever it hides in a row."""
    if isinstance(value, dict):
        for k, v in value.items():
            _check_finite(v, where, f"{key}[{k!r}]" if key else str(k))
    elif isinstance(value, list | tuple):
        for i, v in enumerate(value):
            _check_finite(v, where, f"{key}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} has {key} = {value}: a result holds finite numbers only")


# -- find ------------------------------------------------------------------------------------------


def find(name: str, machine: str | None = None) -> Path:
    """The file of a stored result: ours (see machines.json), unless a machine is named by its part
    of the file name (`nvidia-*`, say), or a device ("cpu", "gpu") whose ours is meant.

    Raises ValueError when there is none, or more than one.
    """
    name, _, suffix = canonical(name).partition(".")
    machine = machine or suffix
    stored = {path.name.split(".")[1]: path for path in sorted(folder().glob(f"{name}.*.json"))}
    stored.pop("trace", None)
    if not stored:
        raise ValueError(
            f"no result is stored as {name!r}; stored are: {', '.join(_names()) or 'none'}"
        )
    said = machines.read(folder())
    if said and machine in ("", *machines.DEVICES):
        machine = said.ours(name, machine or None)
    found = fnmatch.filter(stored, machine or "*")
    if len(found) == 1:
        return stored[found[0]]
    have = ", ".join(stored)
    if not found:
        raise ValueError(f"{name!r} has not been stored by {machine!r}; it has by: {have}")
    raise ValueError(f"{name!r} has been stored by {have}: name the one that is meant")


def load(name: str, machine: str | None = None) -> dict:
    """The stored document that `find` finds."""
    return json.loads(find(name, machine).read_text())


def row(name: str, machine: str | None = None, **where) -> Row:
    """The one row of a result that has these values. Raises ValueError when none or several do."""
    doc = load(name, machine)
    rows = [r for r in doc["rows"] if all(r.get(k) == v for k, v in where.items())]
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} rows of {name!r} match {where}; exactly one must")
    return Row(rows[0], doc)


class Row(dict):
    """A row that knows the document it came from."""

    def __init__(self, values: dict, document: dict):
        super().__init__(values)
        self.document = document


def where(doc: dict) -> str:
    """What the machine of a document is called in prose: "AMD EPYC, 2 cores, AVX2".

    Raises ValueError for one that machines.json doesn't know.
    """
    env = doc["env"]
    said = machines.read(folder())
    if said:
        return said.called(file_name(env))
    # a folder of results without machines.json: what the environment says of itself
    cores = f"{env['cores']} core{'s' * (env['cores'] > 1)}"
    facts = [env["cpu"], cores, env.get("capability")]
    return env.get("gpu") or ", ".join(fact for fact in facts if fact)


def _stored() -> list[Path]:
    """Every file of measurements."""
    paths = sorted(folder().rglob("*.json"))
    return [p for p in paths if p.name != machines.FILE and not p.name.endswith(".trace.json")]


def _names() -> list[str]:
    return sorted({_name_of(path) for path in _stored()})


def _name_of(path: Path) -> str:
    """`…/results/ch05/ring.nvidia-h200.json` -> `ch05/ring`."""
    return path.relative_to(folder()).as_posix().split(".")[0]


# -- has its code changed --------------------------------------------------------------------------

UNMARKED = "from before results carried a hash of their code"
CHANGED = "measured before the code changed"
SAME = "unchanged since it was measured"


def code_state(doc: dict) -> str:
    """Is the code of today that which a document timed? One of the three sentences above."""
    if "code" not in doc:
        return UNMARKED
    return SAME if doc["code"] == timed.code_of(doc["name"]) else CHANGED


def stale(doc: dict) -> bool:
    """Has the code changed since? False for a document that does not say what it timed."""
    return code_state(doc) == CHANGED


def to_measure_again() -> list[str]:
    """One line for each result that pages quote from a processor and whose code has changed since:
    the command that measures it again.
    """
    lines = []
    for name in _names():
        doc = load(name)
        if "gpu" not in doc["env"] and stale(doc):
            lines.append(f"{name} was {CHANGED}; measure it again: {_again(name, doc)}")
    return lines


def _again(name: str, doc: dict) -> str:
    if name.startswith("bench/"):
        return doc["command"]
    return f"labkit lab {name.replace('/', '-').upper()} --store"


# -- quote -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Receipt:
    """A number of the prose: its text, and what stands behind it.

    sources: one for each document that a row was taken from, in the order in which they were read;
    none for a formula. Its keys: result, machine, date, commit, command, versions, kernels, note,
    spread, code, each where there is one.
    """

    text: str
    expression: str
    sources: list[dict]

    @property
    def measured(self) -> list[str]:
        """Where and when, a sentence for each source."""
        return [
            f"Measured on {s['machine']}, {s['date']}, commit {s['commit']}: {s['command']}."
            for s in self.sources
        ]


def receipt(expression: str) -> Receipt:
    """Evaluate `expr | format`, where expr may use formulas, presets and stored rows, and nothing
    else.

    `kv_cache_bytes(presets["llama3-70b"], 1) | ,` · `row("ch02/baseline",
    variant="cached")["multiple"] | .1f`
    """
    from labkit import formulas
    from labkit.published import presets

    expr, _, spec = expression.rpartition(" | ") if " | " in expression else (expression, "", "")
    seen: list[Row] = []

    def look_up(*args, **where):
        seen.append(row(*args, **where))
        return seen[-1]

    names = {name: getattr(formulas, name) for name in formulas.__all__}
    names |= {
        "presets": presets,
        "row": look_up,
        "round": round,
        "sum": sum,
        "min": min,
        "max": max,
        "range": range,
    }
    names["__builtins__"] = {}  # globals, so that a generator expression sees them too
    try:
        value = eval(expr, names)
    except Exception as e:
        raise ValueError(f"the number {{n}}`{expression}` cannot be made: {e}") from e
    text = format(value, spec or {int: ",", float: ".3g"}.get(type(value), ""))
    return Receipt(text, expr.strip(), _sources(seen))


def _sources(rows: list[Row]) -> list[dict]:
    """What is to be said of each document that rows came from."""
    documents: list[dict] = []
    for r in rows:
        if r.document not in documents:
            documents.append(r.document)
    return [_source(doc, [r for r in rows if r.document == doc]) for doc in documents]


def _source(doc: dict, rows: list[Row]) -> dict:
    env = doc["env"]
    spreads = [_spread(r) for r in rows if "iqr" in r]
    facts = {
        "result": canonical(doc["name"]),
        "machine": where(doc),
        "date": doc["date"],
        "commit": doc["commit"],
        "command": doc["command"],
        "versions": ", ".join(f"{k} {env[k]}" for k in ("python", "numpy", "torch") if k in env),
        "kernels": env.get("kernels"),
        "note": doc.get("note"),
        "spread": "; ".join(dict.fromkeys(spreads)),
        "code": code_state(doc),
    }
    return {key: fact for key, fact in facts.items() if fact}


def _spread(row: Row) -> str:
    unit = f" {row['unit']}" if "unit" in row else ""
    return f"quartiles {row['iqr']:.3g}{unit} apart, {row.get('n', '?')} runs"


# -- is all as it should be ------------------------------------------------------------------------


def check() -> None:
    """ValueError, one sentence, for stored results that don't fit: a name that no lab has, a
    machine that machines.json doesn't know, a quote that nobody stored.
    """
    said = machines.read(folder())
    if said is None:
        raise ValueError(
            f"labs/results has no {machines.FILE}, which says whose numbers are quoted"
        )
    numbers = [chapter.number for chapter in chapters.every()]
    for key in said.quotes:
        if key not in (*numbers, "bench"):
            raise ValueError(
                f"labs/results/{machines.FILE} quotes for {key!r}, which is no chapter"
            )
    for name in (*_names(), *said.exceptions):
        if timed.source_of(name) is None:
            raise ValueError(
                f"no lab measures {name!r}, which labs/results has a file or a quote of"
            )
    for path in _stored():
        said.called(path.name.split(".")[1])
    for name in _names():
        find(name)


def _command(argv: list[str]) -> str:
    """What was run, by name.

    Paths stay out: where a drawing went changes no number, and is nobody else's business.
    """
    at = argv.index("--plot") if "--plot" in argv else len(argv)
    # python -m labkit.cli
    name = "labkit" if Path(argv[0]).name == "__main__.py" else Path(argv[0]).name
    kept = [a for i, a in enumerate(argv) if i not in (0, at, at + 1)]
    return " ".join([name, *(a for a in kept if not a.startswith("--plot="))])


def _commit() -> str:
    here = Path(__file__).parent
    try:
        # code, not what it measured
        status = [
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            "..",
            ":(exclude)../results",
        ]
        changed = _git(here, *status)
        return _git(here, "rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        with suppress(metadata.PackageNotFoundError):
            return f"labkit {metadata.version('faster-leaner-inference')}"
        return "unknown"


def _git(here: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()

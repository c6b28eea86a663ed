"""Measured numbers, stored with where they were measured: `labs/results/<name>.<machine>.json`.

A document is `{schema, name, env, command, commit, date, rows}`; a `note` says what else a reader
must know. Pages quote rows through the `{n}` role (`receipt` below), so that a number in prose
always carries its machine, date, commit and command.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from labkit import chapters, paths

SCHEMA = 1


def folder() -> Path:
    """Where results lie: `labs/results` of a checkout, or the copy inside the installed wheel."""
    return paths.results()


def environment(device: str = "cpu") -> dict:
    """What a reader needs to judge a number: processor, cores, threads, versions."""
    env = {
        "cpu": _cpu_name(),
        "cores": _cores(),
        "os": platform.system(),
        "python": platform.python_version(),
    }
    for package in ("numpy", "torch", "transformers"):
        with suppress(metadata.PackageNotFoundError):
            env[package] = metadata.version(package)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        env["threads"] = torch.get_num_threads()
        env["capability"] = torch.backends.cpu.get_cpu_capability()
        if str(device).startswith("cuda"):
            env["gpu"], env["cuda"] = torch.cuda.get_device_name(), torch.version.cuda
    return env


def machine(env: dict) -> str:
    """A short file-name part for a machine, such as `intel-xeon-2-50ghz-2core`."""
    name = env.get("gpu") or f"{env['cpu']} {env['cores']}core"
    name = re.sub(r"\(r\)|\(tm\)|processor|cpu|@", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def document(name: str, rows: list[dict], *, device: str = "cpu") -> dict:
    """Rows with their provenance. A ratio's key is "multiple". Raises ValueError for no rows."""
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise ValueError("a result needs at least one row, and every row is a dict")
    return {
        "schema": SCHEMA,
        "name": name,
        "env": environment(device),
        "command": _command(sys.argv),
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "rows": rows,
    }


def save(
    name: str, rows: list[dict], *, device: str = "cpu", into: Path | str | None = None
) -> Path:
    """Store `document(name, rows)` in `labs/results` (or `into`) and return its path."""
    doc = document(name, rows, device=device)
    target = Path(into or folder()) / f"{chapters.result_name(name)}.{machine(doc['env'])}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_text(json.dumps(doc, indent=1, ensure_ascii=False) + "\n")
    return part.replace(target)


def load(name: str, machine: str | None = None) -> dict:
    """The stored document; of several CPUs' the newest, unless a machine is named (`nvidia-*`,
    say). Raises ValueError when there is none.
    """
    found = [
        json.loads(p.read_text())
        for p in sorted(folder().glob(f"{chapters.result_name(name)}.{machine or '*'}.json"))
        if ".trace." not in p.name
    ]
    if not found:
        known = sorted(
            {f"{p.parent.name}/{p.name.split('.')[0]}" for p in folder().glob("*/*.json")}
        )
        raise ValueError(
            f"no result is stored as {name!r}; stored are: {', '.join(known) or 'none'}"
        )
    return max([d for d in found if "gpu" not in d["env"]] or found, key=lambda d: d["date"])


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


@dataclass(frozen=True)
class Receipt:
    """A number of the prose: its text, and what stands behind it."""

    text: str
    expression: str
    details: dict  # empty for a formula; machine, date, commit, command, spread for a measurement


def receipt(expression: str) -> Receipt:
    """Evaluate `expr | format`, where expr may use formulas, presets and stored rows, and nothing
    else.

    `kv_cache_bytes(presets["llama3-70b"], 1) | ,` · `row("ch02/baseline",
    variant="cached")["multiple"] | .1f`
    """
    from labkit import formulas
    from labkit.published import presets

    source, _, spec = expression.rpartition(" | ") if " | " in expression else (expression, "", "")
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
        value = eval(source, names)
    except Exception as e:
        raise ValueError(f"the number {{n}}`{expression}` cannot be made: {e}") from e
    text = format(value, spec or {int: ",", float: ".3g"}.get(type(value), ""))
    details = {}
    if seen:
        doc = seen[0].document
        env = doc["env"]
        cpu = ", ".join(
            [
                env["cpu"],
                f"{env['cores']} cores",
                *([env["capability"]] if "capability" in env else []),
            ]
        )
        details = {
            "machine": env.get("gpu") or cpu,
            "date": doc["date"],
            "commit": doc["commit"],
            "command": doc["command"],
            "result": doc["name"],
            "versions": ", ".join(
                f"{k} {env[k]}" for k in ("python", "numpy", "torch") if k in env
            ),
        }
        details |= {"note": doc["note"]} if "note" in doc else {}
        if "iqr" in seen[0]:
            details["spread"] = (
                f"quartiles {seen[0]['iqr']:.3g} {seen[0].get('unit', '')} apart,"
                f" {seen[0].get('n', '?')} runs".replace("  ", " ")
            )
    return Receipt(text, source.strip(), details)


def _command(argv: list[str]) -> str:
    """What was run, by name.

    Paths stay out: where a drawing went changes no number, and is nobody else's business.
    """
    at = argv.index("--plot") if "--plot" in argv else len(argv)
    # python -m labkit.cli
    name = "labkit" if Path(argv[0]).name == "__main__.py" else Path(argv[0]).name
    return " ".join(
        [
            name,
            *(
                a
                for i, a in enumerate(argv)
                if i and i not in (at, at + 1) and not a.startswith("--plot=")
            ),
        ]
    )


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Those that this process may use: `taskset -c 0,1` makes a machine of two."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _commit() -> str:
    here = Path(__file__).parent
    try:
        git = lambda *args: subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        # code, not what it measured
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", "..", ":(exclude)../results"
        )
        return git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        with suppress(metadata.PackageNotFoundError):
            return f"labkit {metadata.version('faster-leaner-inference')}"
        return "unknown"

"""The `labkit` command.

Bad input is one line on standard error and exit 2; nothing is left half written.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

COMMANDS = {  # name -> (module, one line)
    "generate": ("generate", "let SmolLM2 answer a prompt, and say how fast"),
    "estimate": ("estimate", "what a model costs: parameters, bytes, FLOPs"),
    "lab": ("lab", "run one of the course's labs"),
    "runbook": ("runbook", "run all labs in order, with a checkpoint after each"),
    "ladder": ("ladder", "climb from the naive loop to the whole course, rung by rung"),
    "bench": ("bench", "measure decoding here, alone or against transformers"),
    "doctor": ("doctor", "what this machine has, and which fast paths it takes"),
}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"labkit: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> None:
    parser = Parser(
        prog="labkit", description="The package behind the course Faster and Leaner Inference."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, line) in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        sub.add_argument("--device", default="cpu", help="cpu (default) or cuda")
        sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        import_module(f"labkit.cli.{module}").arguments(sub)
    args = parser.parse_args(argv)
    try:
        if args.device.split(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f"--device is cpu or cuda, not {args.device!r}")
        if args.device != "cpu":
            from labkit.dtypes import check_device

            check_device(args.device)
        import_module(f"labkit.cli.{COMMANDS[args.command][0]}").run(args)
    except (ValueError, OSError) as e:
        print(f"labkit: {' '.join(str(e).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def progress(things, text: str, total: int | None = None):
    """Things, with a bar on standard error once they take longer than two seconds."""
    from tqdm import tqdm

    return tqdm(
        things,
        desc=text,
        total=total,
        delay=2,
        leave=False,
        file=sys.stderr,
        disable="PYTEST_CURRENT_TEST" in os.environ,
    )


class Table(str):
    """A table as text; in a notebook, and so on a page, a table."""

    html = ""

    def _repr_html_(self) -> str:
        return self.html


def table(rows: list[dict], columns: dict[str, str] | None = None) -> Table:
    """Rows as a table. columns: key -> heading, or "heading|format" where the format is as in an
    f-string.
    """
    from tabulate import tabulate

    columns = columns or {key: key for key in rows[0]}
    cells = [
        [_cell(row.get(key), heading.partition("|")[2]) for key, heading in columns.items()]
        for row in rows
    ]
    numeric = [
        all(isinstance(row.get(key), (int, float)) or row.get(key) is None for row in rows)
        for key in columns
    ]
    headings = [h.partition("|")[0] for h in columns.values()]
    align = ["right" if n else "left" for n in numeric]
    made = Table(tabulate(cells, headings, disable_numparse=True, colalign=align))
    made.html = str(tabulate(cells, headings, "html", disable_numparse=True, colalign=align))
    return made


def _cell(value, form: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return format(value, form or (",.3g" if isinstance(value, float) else ","))

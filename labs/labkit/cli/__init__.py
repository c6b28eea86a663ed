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
    "bench": ("bench", "measure decoding here, alone or against transformers or llama.cpp"),
    "gpu": ("gpu", "measure what make gpu measures, one part of it"),
    "doctor": ("doctor", "what this machine has, and which fast paths it takes"),
}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"labkit: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> None:
    try:
        try:
            answer(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `labkit lab | head -1`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # as Python flushes again
        raise SystemExit(128 + 13) from None  # as a shell reports SIGPIPE


def answer(argv: list[str] | None) -> None:
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
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as e:
        print(f"labkit: {' '.join(str(e).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None

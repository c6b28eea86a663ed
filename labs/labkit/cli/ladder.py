"""`labkit ladder`: what each of the course's ideas is worth on this machine, rung by rung (the lab
CH14-LADDER).
"""

from __future__ import annotations


def arguments(parser) -> None:
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer requests, one round: minutes, and nothing worth quoting",
    )
    parser.add_argument(
        "--store", action="store_true", help="keep the result in labs/results, with its provenance"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the result into an svg, png or pdf file"
    )


def run(args) -> None:
    from labkit.cli import lab

    args.id, args.set = "CH14-LADDER", []
    lab.run(args)

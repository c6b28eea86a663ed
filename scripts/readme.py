"""Write the measured table of README.md from labs/results.

    python scripts/readme.py            write it
    python scripts/readme.py --check    exit 1 when it is stale
"""
from __future__ import annotations

import re
import sys
from pathlib import Path

from labkit import results

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- measured: made by scripts/readme.py -->\n", "<!-- end of measured -->"


def table() -> str:
    """labkit beside transformers, and the cached loop beside the naive one, with where each was measured."""
    loops, against = results.load("ch4b-lab-03"), results.load("bench-transformers")
    cached = next(r for r in loops["rows"] if r["variant"] == "cached")
    lines = ["| SmolLM2-135M, one thread | labkit, tokens/s | transformers, static cache | times |", "|---|---:|---:|---:|"]
    for row in against["rows"]:
        if row["engine"] == "labkit":
            same = {k: row[k] for k in ("dtype", "batch", "phase")}
            other = next(r for r in against["rows"] if r["engine"] == "transformers" and same.items() <= r.items())
            lines.append(f"| {row['phase']}, {row['dtype']}, batch {row['batch']} | {row['tokens_per_second']:,.1f} | "
                         f"{other['tokens_per_second']:,.1f} | {row['multiple']:.2f} |")
    versions = f"torch {against['env']['torch']} and transformers {against['env']['transformers']}"
    return "\n".join([*lines, "", f"Measured on {where(against)}, with {versions}: `labkit bench --against transformers`.", "",
                      f"With a KV cache, 300 tokens of prompt and 128 new ones take **{cached['multiple']:.1f} times** less time than without. "
                      f"Measured on {where(loops)}: `labkit lab CH4B-LAB-03`.", "", *ladder(), ""])


def ladder() -> list[str]:
    """The throughput ladder, with where it was climbed."""
    kept = results.load("ch14-ladder")
    head = ["The ladder: 48 requests, two threads", "dtype", "tokens/s", "times naive", "same tokens", "perplexity"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---:|---:|---:|---:|"]
    for r in kept["rows"]:
        if r["ladder"] == "throughput":
            lines.append(f"| {r['rung']} | {r['dtype']} | {r['tokens_per_second']:,.1f} | {r['multiple']:,.1f} | {r['agreement']:.0%} | "
                         f"{r['perplexity_course']:.2f} |")
    alone = {name: max(r["multiple"] for r in kept["rows"] if r["ladder"] == name) for name in ("one user", "one user, copy-editing")}
    return [*lines, "", f"Each rung keeps what the ones above it switched on. One user alone gets up to **{alone['one user']:.0f} times** the naive "
            f"loop's tokens per second, and **{alone['one user, copy-editing']:.0f} times** when a text is to be corrected. "
            f"Measured on {where(kept)}: `labkit ladder`."]


def where(result: dict) -> str:
    env = result["env"]
    return ", ".join([env["cpu"], f"{env['cores']} cores", *([env["capability"]] if "capability" in env else [])]) + f" ({result['date']})"


def main() -> int:
    old = README.read_text()
    new = re.sub(f"(?<={BEGIN}).*?(?={END})", lambda _: table(), old, flags=re.S)
    if "--check" in sys.argv[1:] and new != old:
        print("README.md has other numbers than labs/results: run make book, and commit it")
        return 1
    if new != old:
        README.write_text(new)
        print("README.md: measured table written")
    return 0


if __name__ == "__main__":
    sys.exit(main())

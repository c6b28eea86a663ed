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
# the processors run one thread
MACHINES = ("amd-epyc-4core", "amd-epyc-1core", "intel-xeon-1core", "nvidia-h200")
BEGIN, END = "<!-- measured: made by scripts/readme.py -->\n", "<!-- end of measured -->"


def table() -> str:
    """labkit beside transformers on every machine, the cached loop beside the naive one, and the
    ladder, with where each was measured.
    """
    loops = results.load("ch02/baseline")
    against = [results.load("bench/transformers", machine) for machine in MACHINES]
    cached = next(r for r in loops["rows"] if r["variant"] == "cached")
    lines = [
        f"| SmolLM2-135M, tokens/s | {' | '.join(results.where(a) for a in against)} |",
        "|---|" + "---:|" * len(against),
    ]
    for row in (r for r in against[0]["rows"] if r["engine"] == "labkit"):
        same = {k: row[k] for k in ("engine", "dtype", "batch", "phase")}
        cells = [next((r for r in a["rows"] if same.items() <= r.items()), None) for a in against]
        lines.append(
            f"| {row['phase']}, {row['dtype']}, batch {row['batch']} | "
            + " | ".join(
                f"{r['tokens_per_second']:,.1f} ({r['multiple']:.2f})" if r else "–" for r in cells
            )
            + " |"
        )
    versions = "; ".join(
        f"{results.where(a)}: torch {a['env']['torch']}, {a['date']}" for a in against
    )
    beside = "".join(f" On {results.where(a)}, {a['note']}." for a in against if "note" in a)
    return "\n".join(
        [
            *lines,
            "",
            (
                "In brackets: how many times as fast as transformers' `generate` with a static"
                f" cache, on the same weights, in turn, one thread on a processor ({versions}):"
                f" `labkit bench --against transformers`.{beside}"
            ),
            "",
            (
                "With a KV cache, 300 tokens of prompt and 128 new ones take"
                f" **{cached['multiple']:.1f} times** less time than without. Measured on"
                f" {measured(loops)}: `labkit lab CH02-BASELINE`."
            ),
            "",
            *ladder(),
            "",
        ]
    )


def ladder() -> list[str]:
    """The throughput ladder, with where it was climbed."""
    kept = results.load("ch14/ladder")
    elsewhere = results.load("ch14/ends")
    busy = results.load("ch14/ends", "intel-xeon-2core-busy")
    head = [
        "The ladder: 48 requests, two threads",
        "dtype",
        "tokens/s",
        "times naive",
        "same tokens",
        "perplexity",
    ]
    lines = [f"| {' | '.join(head)} |", "|---|---|---:|---:|---:|---:|"]
    for r in kept["rows"]:
        if r["ladder"] == "throughput":
            lines.append(
                f"| {r['rung']} | {r['dtype']} | {r['tokens_per_second']:,.1f} |"
                f" {r['multiple']:,.1f} | {r['agreement']:.0%} | {r['perplexity_course']:.2f} |"
            )
    top = lambda doc, ladder, dtype=None: max(
        r["multiple"] for r in doc["rows"] if r["ladder"] == ladder and dtype in (None, r["dtype"])
    )
    return [
        *lines,
        "",
        (
            "Each rung keeps what the ones above it switched on. One user alone gets up to"
            f" **{top(kept, 'one user'):.0f} times** the naive loop's tokens per second, and"
            f" **{top(kept, 'one user, copy-editing'):.0f} times** when a text is to be corrected."
            f" Measured on {measured(kept)}: `labkit ladder`. The ladder's two ends on"
            f" {measured(elsewhere)}: the 48 requests are served"
            f" **{top(elsewhere, 'throughput', 'fp32'):.0f} times** as fast as the naive loop in"
            f" fp32 and **{top(elsewhere, 'throughput', 'bf16'):.0f} times** in bf16, one user"
            f" {top(elsewhere, 'one user'):.0f} and a text to be corrected"
            f" {top(elsewhere, 'one user, copy-editing'):.0f} times: `{elsewhere['command']}`"
            f" ({elsewhere['note']}; that was before the kernels in C, which were timed there once,"
            f" on a busy machine: {top(busy, 'throughput', 'fp32'):.0f},"
            f" {top(busy, 'throughput', 'bf16'):.0f}, {top(busy, 'one user'):.0f} and"
            f" {top(busy, 'one user, copy-editing'):.0f} times; {busy['note']})."
        ),
    ]


def measured(result: dict) -> str:
    return f"{results.where(result)} ({result['date']})"


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

"""CH08-ORDER: the run order, with its stop/go checkpoints.

This prints the plan; `labkit runbook` carries it out.
"""

from labkit.lab import Lab, in_order


def run(device="cpu", quick=False):
    rows = []
    for i, lab in enumerate(in_order(), start=1):
        rows.append(
            {
                "step": i,
                "id": lab.id,
                "chapter": lab.chapter,
                "title": lab.title,
                "needs": ", ".join(lab.needs),
                "minutes": lab.minutes,
                "go_if": lab.asks,
            }
        )
    return rows


def go(rows):
    done = set()
    for r in rows:
        for need in filter(None, r["needs"].split(", ")):
            if need not in done:
                return f"{r['id']} comes before {need}, which it needs: mend its `needs`"
        done.add(r["id"])


def plot(rows):
    from labkit import plotting

    minutes: dict[str, float] = {}
    for r in rows:
        minutes[r["chapter"]] = minutes.get(r["chapter"], 0) + r["minutes"]
    bars = {f"chapter {chapter}": m for chapter, m in sorted(minutes.items())}
    return plotting.bars(
        bars,
        x_label="minutes on two cores",
        form="{:.1f}",
        alt="Minutes that the labs take: "
        + ", ".join(f"{chapter} {m:.1f}" for chapter, m in bars.items()),
    )


LAB = Lab(
    asks="Does every lab come after the one it needs?",
    title="The run order",
    minutes=0,
    objective=(
        "See all labs in the order in which each rests on the one before, and the question that its"
        " checkpoint asks."
    ),
    notice=(
        "A checkpoint is a question about the result, not about your patience. Run it all with"
        " labkit runbook (--quick for a first look): it stops at the first checkpoint that fails,"
        " says what to look at, and goes on from there with --from."
    ),
    columns={
        "step": "step",
        "id": "lab",
        "chapter": "chapter",
        "title": "title",
        "needs": "needs",
        "minutes": "minutes|.1f",
        "go_if": "go if yes",
    },
    run=run,
    plot=plot,
    go=go,
)

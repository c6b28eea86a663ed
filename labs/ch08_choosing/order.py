"""CH08-ORDER: the run order, with its stop/go checkpoints.

This prints the plan; `labkit runbook` carries it out.
"""

from labkit import plotting
from labkit.lab import Lab, in_order
from labkit.tables import series


def run(device):
    """A row for each lab."""
    return [
        {
            "step": step,
            "id": lab.id,
            "chapter": lab.chapter,
            "title": lab.title,
            "needs": ", ".join(lab.needs),
            "minutes": lab.minutes,
            "go_if": lab.asks,
        }
        for step, lab in enumerate(in_order(), start=1)
    ]


def go(rows):
    done = set()
    for r in rows:
        for need in filter(None, r["needs"].split(", ")):
            if need not in done:
                return f"{r['id']} comes before {need}, which it needs: mend its `needs`"
        done.add(r["id"])


def plot(rows):
    minutes = {
        f"chapter {chapter}": sum(each)
        for chapter, each in sorted(series(rows, "chapter", "minutes").items())
    }
    return plotting.bars(
        minutes,
        x_label="minutes on two cores",
        form="{:.1f}",
        alt="Minutes that the labs take: "
        + ", ".join(f"{chapter} {m:.1f}" for chapter, m in minutes.items()),
    )


LAB = Lab(
    title="The run order",
    objective=(
        "See all labs in the order in which each rests on the one before, and the question that its"
        " checkpoint asks."
    ),
    asks="Does every lab come after the one it needs?",
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
    go=go,
    plot=plot,
    minutes=0,
    cpu_only=True,
)

"""CH14-ENDS: the ladder's two ends alone: the naive loop, and the top three rungs."""

from labkit.lab import Lab
from labkit_labs.ch14_ladder import ladder


def run(device="cpu", quick=False):
    return ladder.run(device, quick, ends=1)


LAB = Lab(
    title="The ladder's two ends",
    minutes=10,
    objective=(
        "Serve 48 requests by the naive loop and by all that the course teaches, in the time that a"
        " lent machine leaves."
    ),
    asks=ladder.LAB.asks,
    notice=(
        "These are the ends of CH14-LADDER without what lies between: what each idea is worth is"
        " told there."
    ),
    columns=ladder.LAB.columns,
    run=run,
    plot=ladder.plot,
    go=ladder.go,
)

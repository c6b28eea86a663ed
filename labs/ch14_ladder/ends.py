"""CH14-ENDS: the ladder's two ends alone: the naive loop, and the top three rungs."""

from functools import partial

from labkit.lab import Lab
from labkit.tables import listed, where
from labkit_labs.ch14_ladder import ladder


def notice(rows):
    tops = [
        f"{max(r['multiple'] for r in where(rows, ladder=name)):.0f} times ({name})"
        for name in dict.fromkeys(r["ladder"] for r in rows)
    ]
    return (
        f"From the naive loop to the top it is {listed(tops)}. These are the ends of CH14-LADDER"
        " without what lies between: what each idea is worth is told there."
    )


LAB = Lab(
    title="The ladder's two ends",
    objective=(
        "Serve 48 requests by the naive loop and by all that the course teaches, in the time that a"
        " lent machine leaves."
    ),
    asks=ladder.LAB.asks,
    notice=notice,
    columns=ladder.LAB.columns,
    run=partial(ladder.run, ends=1),
    sizes=ladder.LAB.sizes,
    threads=ladder.LAB.threads,
    go=ladder.go,
    plot=ladder.plot,
    minutes=10,
)

"""CH08-TEXT: what every variant makes of real text.

Ten small models read Jane Austen character by character: the same characters in the same order, and
as many parameters at work on each. The tenth is the MHA once more, from other seeds: what differs
between these two is chance, and a variant is called better or worse only where it differs by more.
Loss by position tells how much a model gains from what is further back.

Every training is kept as soon as it is done: stopped half-way, the same command goes on.
"""

import statistics

from labkit import formulas, plotting
from labkit.lab import Lab
from labkit.tables import listed, only, where

STEPS = 400  # of a training after which variants are compared
AGAIN = "MHA again"
APART = 0.02  # how far apart the parameters at work may be


def run(device, *, pieces, seeds=3, steps=STEPS):
    """A row for each variant.

    pieces: of held-out text that each model is scored on. seeds: trainings of each variant. steps:
    of each.
    """
    from labkit_labs.ch08_choosing import reading
    from labkit_labs.common.pieces import each

    configs = reading.variants()
    jobs = {(name, seed): (name, seed, steps, pieces) for seed in range(seeds) for name in configs}
    made = each("ch08-text", reading.read, jobs)
    rows = []
    for name, config in configs.items():
        runs = [made[name, seed] for seed in range(seeds)]
        nats = [r["nats"] for r in runs]
        row = {
            "variant": name,
            "nats": statistics.median(nats),
            "least": min(nats),
            "most": max(nats),
            "seeds": seeds,
            "steps": steps,
            "characters": steps * reading.PIECES * reading.CHARACTERS,
            "parameters": formulas.parameters(config),
            "active_parameters": formulas.active_parameters(config),
            "cache_bytes": formulas.kv_cache_bytes(config, reading.CHARACTERS, 1, "fp32"),
        }
        for block in reading.BLOCKS:
            row[f"to_{block}"] = statistics.median(r[f"to_{block}"] for r in runs)
        rows.append(row)
    whole, again = (only(rows, variant=name) for name in ("MHA", AGAIN))
    for row in rows:
        row["over_mha"] = row["nats"] - whole["nats"]
        row["gain"] = row["to_32"] - row["to_128"]
        # the twin is held against the MHA alone, all others against both
        row["verdict"] = verdict(row, [whole] if row is again else [whole, again], steps)
    return rows


def verdict(row: dict, controls: list[dict], steps: int) -> str:
    """Is every seed of a variant on one side of every seed of the controls, and further off than
    these are from each other?
    """
    if steps < STEPS:
        return f"not ranked: {steps} of {STEPS} steps"
    least = min(r["least"] for r in controls)
    most = max(r["most"] for r in controls)
    middle = statistics.mean(r["nats"] for r in controls)
    if abs(row["nats"] - middle) <= most - least:
        return "not told apart"
    if row["least"] > most:
        return "worse"
    return "better" if row["most"] < least else "not told apart"


def go(rows):
    whole = only(rows, variant="MHA")
    for r in rows:
        if abs(r["active_parameters"] / whole["active_parameters"] - 1) > APART:
            return (
                f"{r['variant']} works with {r['active_parameters']:,} parameters, MHA with"
                f" {whole['active_parameters']:,}: match them before you compare what they know"
            )
    if whole["verdict"].startswith("not ranked"):
        return None
    for r in rows:
        if r["nats"] > 2:
            return (
                f"{r['variant']} needs {r['nats']:.2f} nats a character, which is no reading yet:"
                " look at its training"
            )
        if r["nats"] < 0.8:
            return (
                f"{r['variant']} needs only {r['nats']:.2f} nats a character: look for a mask that"
                " shows it what comes next"
            )
    if only(rows, variant=AGAIN)["verdict"] != "not told apart":
        return (
            "the MHA and its twin are told apart, and they are the same design: take more seeds"
            " before you believe any difference"
        )


def plot(rows):
    """Each variant's seeds beside those of the MHA and its twin."""
    light = plotting.LIGHT

    @plotting.twice
    def draw(*, width):
        ax = plotting.axes(width, 0.42 * len(rows) + 0.9, x_label="nats a character, held-out text")
        controls = [only(rows, variant=name) for name in ("MHA", AGAIN)]
        ax.axvspan(
            min(r["least"] for r in controls),
            max(r["most"] for r in controls),
            color=light["line"],
            alpha=0.6,
            linewidth=0,
        )
        for i, r in enumerate(rows):
            ax.plot([r["least"], r["most"]], [i, i], color=light["series"][0], linewidth=2)
            ax.plot(r["nats"], i, "o", color=light["series"][0], markersize=7)
        ax.set_yticks(range(len(rows)), [r["variant"] for r in rows], color=light["ink"])
        ax.invert_yaxis()
        ax.grid(axis="x")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        return ax.figure

    said = (f"{r['variant']} {r['nats']:.3f} ({r['least']:.3f} to {r['most']:.3f})" for r in rows)
    return draw(alt=f"Nats a character on held-out text: {', '.join(said)}")


def plot_positions(rows, names=("MHA", "SWA", "SWA hybrid", "DeltaNet", "DeltaNet hybrid")):
    """Loss by position: what a model gains from what is further back."""
    blocks = sorted(int(key[3:]) for key in rows[0] if key.startswith("to_"))
    shown = {name: [only(rows, variant=name)[f"to_{block}"] for block in blocks] for name in names}
    return plotting.lines(
        blocks,
        shown,
        x_label="up to this character of the piece",
        y_label="nats",
        log_x=True,
        alt=f"Nats a character up to character {blocks}: "
        + "; ".join(f"{n} {', '.join(f'{y:.2f}' for y in ys)}" for n, ys in shown.items()),
    )


def notice(rows):
    whole, again = (only(rows, variant=name) for name in ("MHA", AGAIN))
    controls = [whole, again]
    chance = max(r["most"] for r in controls) - min(r["least"] for r in controls)
    if whole["verdict"].startswith("not ranked"):
        return (
            f"After {whole['steps']} of {STEPS} steps nothing is ranked: MHA needs"
            f" {whole['nats']:.2f} nats a character."
        )
    told = []
    for word in ("better", "worse"):
        found = [f"{r['variant']} ({r['over_mha']:+.3f})" for r in where(rows, verdict=word)]
        if found:
            told.append(f"{word} than both: {listed(found)}")
    like = [r["variant"] for r in where(rows, verdict="not told apart") if r not in controls]
    if like:
        told.append(f"not told apart: {listed(like)}")
    return (
        f"MHA needs {whole['nats']:.3f} nats a character, its twin {again['nats']:.3f}; their seeds"
        f" lie up to {chance:.3f} apart. Against them, {'; '.join(told)}. From characters 17 to 32"
        f" of a piece to its second half the MHA gains {whole['gain']:.3f} nats, which is all that"
        " a longer memory has brought it so far: this says how fast a small model learns to read,"
        " and nothing about text where what is far back decides."
    )


LAB = Lab(
    title="What each variant makes of text",
    objective=(
        "Train ten variants on the same novels with as many parameters at work, and see which of"
        " their differences are larger than chance."
    ),
    asks="Are the parameters matched, can all read, and are two trainings of one design alike?",
    notice=notice,
    columns={
        "variant": "variant",
        "nats": "nats a character|.3f",
        "least": "least|.3f",
        "most": "most|.3f",
        "over_mha": "over MHA|+.3f",
        "verdict": "against MHA and its twin",
        "to_16": "characters 9–16|.3f",
        "to_32": "17–32|.3f",
        "to_64": "33–64|.3f",
        "to_128": "65–128|.3f",
        "gain": "gained from 17–32 to 65–128|.3f",
        "active_parameters": "parameters at work",
        "parameters": "parameters",
        "cache_bytes": "cache bytes",
        "characters": "characters read",
    },
    run=run,
    sizes={
        "full": {"pieces": 400, "seeds": 5},
        "quick": {"pieces": 8, "seeds": 1, "steps": 2},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=30,
    cpu_only=True,
)

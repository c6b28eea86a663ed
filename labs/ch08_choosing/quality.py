"""CH08-QUALITY: what each kind of memory can recall.

Ten variants of one shell are trained on one task, with as many parameters each.

Quality beside cost: recall, cache bytes, work and time of a decoded token, steps and seconds of
training.
"""

from labkit.lab import Lab

STEPS = 1000


def run(device="cpu", quick=False, seeds=3, steps=STEPS, workers=2):
    import statistics

    from labkit import formulas
    from labkit_labs.common import recall

    seeds, steps = (1, 4) if quick else (seeds, steps)
    made = train_all(list(recall.INSIDES), seeds, steps, device, workers)
    configs, context = recall.variants(), 3 * recall.MAIN
    times = decode_times(configs, context, device, repeats=5 if quick else 100)
    rows = []
    for name, config in configs.items():
        runs = made[name]
        learned = [r["learned"][recall.MAIN] for r in runs]
        row = {
            "variant": name,
            "verdict": verdict([r["recall"][recall.MAIN] for r in runs], steps, recall.LEARNED),
            "pairs": recall.MAIN,
            "context": context,
            "seeds": seeds,
            "steps": steps,
            "parameters": formulas.parameters(config),
            "active_parameters": formulas.active_parameters(config),
            "cache_bytes": formulas.kv_cache_bytes(config, context, 1, "fp32"),
            "decode_flops": formulas.decode_flops(config, context),
            "decode_bytes": formulas.decode_bytes(config, context, 1, "fp32"),
        }
        for pairs in recall.PAIRS:
            row |= spread(f"recall_{pairs}", [r["recall"][pairs] for r in runs])
        row |= spread("recall", [r["recall"][recall.MAIN] for r in runs])
        row |= {
            "steps_to_learn": None if None in learned else statistics.median(learned),
            "steps_to_learn_8": (
                None if None in (few := [r["learned"][8] for r in runs]) else statistics.median(few)
            ),
        }
        rows.append(times[name].to_row(**row, **spread("seconds", [r["seconds"] for r in runs])))
    return rows


def train_all(names, seeds, steps, device, workers):
    """variant -> what each seed's training came to.

    One process with one thread for each of `workers`.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from labkit.tables import progress
    from labkit_labs.common import recall

    # so that no worker waits at the end
    slow_first = sorted(names, key=lambda name: "DeltaNet" not in name)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(recall.job, name, seed, steps, device)
            for name in slow_first
            for seed in range(seeds)
        ]
        done = [job.result() for job in progress(as_completed(jobs), "trainings", len(jobs))]
    return {
        name: sorted((d for d in done if d["variant"] == name), key=lambda d: d["seed"])
        for name in names
    }


def decode_times(configs, context, device, repeats):
    """variant -> Measurement of one decoded token after context - 1 others, all in turn.

    The caches hold noise: reading it costs the same.
    """
    import torch

    import labkit
    from labkit import bench

    torch.set_num_threads(1)

    def decoder(config):
        model = labkit.GPT(config).to(device).eval()
        caches = model.caches("ring", 1, context)
        for cache in caches:
            for buffer in cache.buffers:
                buffer.normal_()

        @torch.inference_mode()
        def fn():
            for cache in caches:
                if hasattr(cache, "length"):
                    # the same token again: a state would otherwise have moved on
                    cache.length = [context - 1]
            model(labkit.Step.of([(0, context - 1, [0])], device), caches)

        return fn

    return bench.interleave(
        {name: decoder(config) for name, config in configs.items()},
        warmup=3,
        repeats=repeats,
        device=device,
    )


def spread(name, values):
    import statistics

    return {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}


def verdict(scores, steps, enough):
    """What the seeds agree on; nothing after fewer steps than it takes."""
    if steps < STEPS:
        return f"not ranked: {steps} of {STEPS} steps"
    return (
        "recalls"
        if min(scores) > enough
        else "forgets"
        if max(scores) <= enough
        else "depends on the seed"
    )


def go(rows):
    by = {r["variant"]: r for r in rows}
    whole = by["MHA"]
    for r in rows:
        if abs(r["parameters"] - whole["parameters"]) > 0.01 * whole["parameters"]:
            return (
                f"{r['variant']} has {r['parameters']:,} parameters, MHA {whole['parameters']:,}:"
                " match them before you compare what they recall"
            )
    if whole["verdict"].startswith("not ranked"):
        return None
    for name in ("MHA", "SWA hybrid"):
        if by[name]["recall_min"] <= 0.95:
            return (
                f"{name} recalls {by[name]['recall_min']:.0%} from one seed, though one of its"
                " layers keeps every token: look at the training before you judge any other"
                " variant"
            )
    if by["SWA"]["recall_max"] > 0.5:
        return (
            f"a window alone recalls {by['SWA']['recall_max']:.0%} of pairs that it mostly can't"
            " see: look for a leak in mask or task"
        )
    return None


def plot(rows):
    """Recall against cache bytes, each variant by name; a bar spans the seeds."""
    from labkit import plotting

    light = plotting.LIGHT
    alt = "Recall by bytes of cache: " + ", ".join(
        f"{r['variant']} {r['recall']:.0%} in {r['cache_bytes']:,}" for r in rows
    )
    ax = plotting.axes(
        height=4.2,
        log_x=True,
        x_label=f"cache of {rows[0]['context']} tokens, fp32",
        y_label=f"recall of {rows[0]['pairs']} pairs",
    )
    named = []  # (x, y, level) of the names so far: neighbours' names are stacked
    for r in sorted(rows, key=lambda r: r["cache_bytes"]):
        x = r["cache_bytes"]
        y = r["recall"]
        colour = light["series"][
            2 if "DeltaNet" in r["variant"] else 1 if "SWA" in r["variant"] else 0
        ]
        taken = {
            level for near_x, near_y, level in named if x / near_x < 1.75 and abs(y - near_y) < 0.25
        }
        level = min(set(range(len(rows))) - taken)
        named.append((x, y, level))
        ax.plot([x, x], [r["recall_min"], r["recall_max"]], color=colour, linewidth=1.5)
        ax.plot(x, y, "o", color=colour, markersize=7)
        ax.annotate(
            r["variant"],
            (x, y),
            xytext=(0, 13 + 16 * level),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": light["line"], "shrinkB": 5} if level else None,
        )
    ax.set_ylim(-0.03, 1.45)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ticks = [
        2**n
        for n in range(10, 24)
        if min(x for x, *_ in named) / 1.5 < 2**n < 1.5 * max(x for x, *_ in named)
    ]
    ax.set_xticks(ticks, [f"{n // 1024} KiB" for n in ticks])
    ax.minorticks_off()
    ax.margins(x=0.12)
    return plotting.Chart(ax.figure, alt)


def plot_pairs(rows, names=("MHA", "DeltaNet wide", "DeltaNet", "SWA")):
    """Recall against the number of pairs: a cache grows with them, a state fills up, a window never
    saw them.
    """
    from labkit import plotting

    pairs = sorted(
        int(key.removeprefix("recall_")) for key in rows[0] if key.removeprefix("recall_").isdigit()
    )
    series = {
        r["variant"]: [r[f"recall_{n}"] for n in pairs] for r in rows if r["variant"] in names
    }
    chart = plotting.lines(
        pairs,
        series,
        x_label="pairs to keep",
        y_label="recall",
        log_x=True,
        alt=f"Recall of {pairs} pairs: "
        + "; ".join(f"{k} {', '.join(f'{y:.0%}' for y in v)}" for k, v in series.items()),
    )
    chart.figure.axes[0].set_xticks(pairs, pairs)
    chart.figure.axes[0].minorticks_off()
    return chart


LAB = Lab(
    asks=(
        "Are the parameters matched, does full attention learn the task, and does a window alone"
        " forget what it can't see?"
    ),
    title="What each memory can recall",
    minutes=14,
    objective=(
        "Train every variant in the same shell on the same task, with as many parameters, and set"
        " what it recalls beside what it costs."
    ),
    notice=(
        "Fewer or compressed key/value heads cost nothing here: it is not heads that the task is"
        " short of. A window forgets what left it; one full layer on top brings all of it back. A"
        " state recalls less the more pairs it must hold, and four times the state, at the same"
        " parameters and steps, recalls more; part of that is patience, as --set steps=3000 shows."
        " One full layer beside it is enough again. With half of the FFN active (MoE) nothing is"
        " lost. These models are tiny: a decoded token takes as long as its operators take to"
        " start, so read cost from FLOPs and bytes, not from these milliseconds."
    ),
    columns={
        "variant": "variant",
        "parameters": "parameters",
        "cache_bytes": "cache bytes",
        "decode_flops": "decode FLOPs",
        "decode_bytes": "decode bytes|,.0f",
        "median": "decode s|.5f",
        "recall_8": "8 pairs|.2f",
        "recall": "32 pairs|.2f",
        "recall_min": "worst seed|.2f",
        "recall_max": "best seed|.2f",
        "recall_64": "64 pairs|.2f",
        "steps_to_learn_8": "steps to 8|,.0f",
        "steps_to_learn": "steps to 32|,.0f",
        "seconds": "training s|.0f",
        "verdict": "32 pairs",
    },
    run=run,
    plot=plot,
    go=go,
)

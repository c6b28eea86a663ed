"""CH08-QUALITY: what each kind of memory can recall.

Ten variants of one shell are trained on one task, with as many parameters each.

Quality beside cost: recall, cache bytes, work and time of a decoded token, steps and seconds of
training.
"""

import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed

from labkit import bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import only, progress

STEPS = 1000  # of a training after which variants are ranked


def run(device, *, repeats, questions, seeds=3, steps=STEPS, workers=2):
    """A row for each variant.

    repeats: how often a decoded token is timed. questions: that each model is scored by. seeds:
    trainings of each variant. steps: of each. workers: processes that train.
    """
    from labkit_labs.common import recall

    configs = recall.variants()
    context = 3 * recall.MAIN
    made = train_all(list(configs), seeds, steps, questions, device, workers)
    times = decode_times(configs, context, device, repeats)
    rows = []
    for name, config in configs.items():
        runs = made[name]
        scores = [r["recall"][recall.MAIN] for r in runs]
        row = {
            "variant": name,
            "verdict": verdict(scores, steps, recall.LEARNED),
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
        row |= spread("recall", scores)
        row["steps_to_learn"] = if_all([r["learned"][recall.MAIN] for r in runs])
        row["steps_to_learn_8"] = if_all([r["learned"][8] for r in runs])
        row |= spread("seconds", [r["seconds"] for r in runs])
        rows.append(times[name].to_row(**row))
    return rows


def train_all(names, seeds, steps, questions, device, workers) -> dict:
    """variant -> what each seed's training came to.

    One process with one thread for each of `workers`.
    """
    from labkit_labs.common import recall

    # so that no worker waits at the end
    slow_first = sorted(names, key=lambda name: "DeltaNet" not in name)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(recall.job, name, seed, steps, questions, device)
            for name in slow_first
            for seed in range(seeds)
        ]
        done = [job.result() for job in progress(as_completed(jobs), "trainings", len(jobs))]
    done.sort(key=lambda made: made["seed"])
    return {name: [made for made in done if made["variant"] == name] for name in names}


def decode_times(configs, context, device, repeats) -> dict:
    """variant -> Measurement of one decoded token after context - 1 others, all in turn.

    The caches hold noise: reading it costs the same.
    """
    import torch

    import labkit

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


def spread(name: str, values: list) -> dict:
    """What the seeds came to: the middle one under the name itself, and the ends."""
    return {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}


def if_all(steps: list):
    """The middle of the seeds' steps; None where one has never learned."""
    return None if None in steps else statistics.median(steps)


def verdict(scores: list[float], steps: int, enough: float) -> str:
    """What the seeds agree on; nothing after fewer steps than it takes."""
    if steps < STEPS:
        return f"not ranked: {steps} of {STEPS} steps"
    if min(scores) > enough:
        return "recalls"
    if max(scores) <= enough:
        return "forgets"
    return "depends on the seed"


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
    light = plotting.LIGHT

    @plotting.twice
    def draw(*, width):
        ax = plotting.axes(
            width,
            4.2,
            log_x=True,
            x_label=f"cache of {rows[0]['context']} tokens, fp32",
            y_label=f"recall of {rows[0]['pairs']} pairs",
        )
        named = []  # (x, y, level) of the names so far: neighbours' names are stacked
        for r in sorted(rows, key=lambda r: r["cache_bytes"]):
            x = r["cache_bytes"]
            y = r["recall"]
            colour = light["series"][family(r["variant"])]
            taken = {
                level
                for near_x, near_y, level in named
                if x / near_x < 1.75 and abs(y - near_y) < 0.25
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
                arrowprops={"arrowstyle": "-", "color": light["line"], "shrinkB": 5}
                if level
                else None,
            )
        ax.set_ylim(-0.03, 1.45)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
        smallest = min(x for x, *_ in named)
        largest = max(x for x, *_ in named)
        powers = [2**n for n in range(10, 24)]
        ticks = [n for n in powers if smallest / 1.5 < n < 1.5 * largest]
        ax.set_xticks(ticks, [f"{n // 1024} KiB" for n in ticks])
        ax.minorticks_off()
        ax.margins(x=0.12)
        return ax.figure

    said = (f"{r['variant']} {r['recall']:.0%} in {r['cache_bytes']:,}" for r in rows)
    return draw(alt=f"Recall by bytes of cache: {', '.join(said)}")


def family(variant: str) -> int:
    """Which colour a variant gets: attention, windows, states."""
    if "DeltaNet" in variant:
        return 2
    return 1 if "SWA" in variant else 0


def plot_pairs(rows, names=("MHA", "DeltaNet wide", "DeltaNet", "SWA")):
    """Recall against the number of pairs: a cache grows with them, a state fills up, a window never
    saw them.
    """
    ends = (key.removeprefix("recall_") for key in rows[0])
    pairs = sorted(int(end) for end in ends if end.isdigit())
    recalled = {
        r["variant"]: [r[f"recall_{n}"] for n in pairs] for r in rows if r["variant"] in names
    }
    said = (f"{name} {', '.join(f'{y:.0%}' for y in ys)}" for name, ys in recalled.items())
    chart = plotting.lines(
        pairs,
        recalled,
        x_label="pairs to keep",
        y_label="recall",
        log_x=True,
        alt=f"Recall of {pairs} pairs: {'; '.join(said)}",
    )
    chart.figure.axes[0].set_xticks(pairs, pairs)
    chart.figure.axes[0].minorticks_off()
    return chart


def notice(rows):
    def recalls(name) -> str:
        return f"{only(rows, variant=name)['recall']:.0%}"

    costs = (
        "These models are tiny: a decoded token takes as long as its operators take to start, so"
        " read cost from FLOPs and bytes, not from these milliseconds."
    )
    pairs = rows[0]["pairs"]
    if rows[0]["verdict"].startswith("not ranked"):
        return (
            f"After {rows[0]['steps']} of {STEPS} steps nothing is ranked: MHA recalls"
            f" {recalls('MHA')} of {pairs} pairs. {costs}"
        )
    state = only(rows, variant="DeltaNet")
    return (
        f"Of {pairs} pairs MHA recalls {recalls('MHA')}. Fewer or compressed key/value heads:"
        f" {recalls('GQA')} (GQA), {recalls('MQA')} (MQA) and {recalls('MLA')} (MLA). A window"
        f" forgets what left it: {recalls('SWA')}, and {recalls('SWA hybrid')} with one full layer"
        f" on top. A state fills up: it recalls {state['recall_8']:.0%} of 8 pairs,"
        f" {recalls('DeltaNet')} of {pairs} and {state['recall_64']:.0%} of 64; four times the"
        f" state, at the same parameters and steps, {recalls('DeltaNet wide')} of {pairs} (how much"
        " of that is patience, --set steps=3000 shows); with one full layer beside it"
        f" {recalls('DeltaNet hybrid')}. With half of the FFN active, MoE recalls"
        f" {recalls('MoE')}. {costs}"
    )


LAB = Lab(
    title="What each memory can recall",
    objective=(
        "Train every variant in the same shell on the same task, with as many parameters, and set"
        " what it recalls beside what it costs."
    ),
    asks=(
        "Are the parameters matched, does full attention learn the task, and does a window alone"
        " forget what it can't see?"
    ),
    notice=notice,
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
    sizes={
        "full": {"repeats": 100, "questions": 2048},
        "quick": {"repeats": 5, "questions": 64, "seeds": 1, "steps": 4},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=14,
)

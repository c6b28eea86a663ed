"""CH09-TRAFFIC: arrivals decide latency.

A step's cost is fitted to real runs; then traffic drives the real scheduler, and a real engine.
"""

from labkit.lab import Lab

SEATS, LOADS, BUDGETS, BURST = (1, 8, 48), (0.1, 0.3, 0.5, 0.7, 0.9, 1.1), (64, 256, 1024), 16
# seconds: a wait that users bear, and five tokens a second, as fast as one reads
LIMITS = {"ttft": 2.0, "tpot": 0.2}
BLOCKS = 800  # of 16 tokens


def measured(model, quick: bool):
    """The cost of a step, fitted to runs of a real engine with 1, 8 and 48 requests, and the fit's
    median error.
    """
    import statistics

    from labkit import Engine
    from labkit_labs.common import simulator
    from labkit_labs.common import workload as serving

    new, traces = 4 if quick else 24, []
    for seats in (1, *((1, 4) if quick else SEATS)):  # the first run warms up
        engine = Engine(model, max_batch=seats, n_blocks=BLOCKS, block_size=16)
        for job in serving.jobs()[:seats]:
            engine.add(job.prompt[200 if quick else 0 :], new, stop=())
        engine.run()
        traces.append(engine.trace())
    cost = simulator.CostModel.fit(*traces[1:])
    fed = [
        (cost(sum(r[3] for r in s.rows), sum(r[4] for r in s.rows)), s.seconds)
        for trace in traces[1:]
        for s in trace.steps
    ]
    return cost, statistics.median(abs(guess / took - 1) for guess, took in fed)


def simulated(
    arrivals,
    cost,
    max_batch: int,
    token_budget: int = 256,
    blocks: int = BLOCKS,
    static: bool = False,
    **labels,
) -> dict:
    """A row: what the users of this traffic saw."""
    from labkit_labs.common.simulator import simulate

    steps = []
    report = simulate(
        arrivals,
        lambda *size: steps.append(cost(*size)) or steps[-1],
        max_batch=max_batch,
        n_blocks=blocks,
        token_budget=token_budget,
        static=static,
    )
    return report.row(
        **labels,
        max_batch=max_batch,
        token_budget=token_budget,
        seconds=report.seconds,
        goodput=report.goodput(**LIMITS),
        longest_step=max(steps),
    )


def capacity(cost, max_batch: int, **draw) -> float:
    """Requests a second when there is always one waiting."""
    from labkit_labs.common.simulator import poisson, simulate

    return (
        300
        / simulate(
            poisson(1e6, 300, **draw), cost, max_batch=max_batch, n_blocks=2 * BLOCKS
        ).seconds
    )


def replay(sizes):
    """A draw that gives these (own prompt, reply) tokens in order."""
    left = iter(sizes)
    return lambda rnd: next(left)


def comparisons(cost, n: int) -> list[dict]:
    """The frontier; arrivals even, Poisson and in bursts; static and continuous; budgets for chunks
    of long prompts.
    """
    from labkit_labs.common import simulator
    from labkit_labs.common import workload as serving
    from labkit_labs.common.simulator import Arrival, bursts, poisson

    most, rows = capacity(cost, SEATS[-1]), []
    for seats in SEATS:
        for load in LOADS:
            rows.append(
                simulated(
                    poisson(load * most, n),
                    cost,
                    seats,
                    what="frontier",
                    setting=f"{load:.0%} of capacity",
                    rate=load * most,
                )
            )
    # the workload's own
    rate, sizes = 0.6 * most, [(len(job.prompt) - 256, job.new) for job in serving.jobs()] * n
    for setting, arrivals in {
        "even": [Arrival(i / rate, *sizes[i]) for i in range(n)],
        "Poisson": poisson(rate, n, draw=replay(sizes)),
        f"bursts of {BURST}": bursts(rate, n, BURST, draw=replay(sizes)),
    }.items():
        rows.append(
            simulated(arrivals, cost, SEATS[-1], what="arrivals", setting=setting, rate=rate)
        )
    rate = 0.6 * capacity(cost, SEATS[1])
    for setting in ("continuous", "static"):
        rows.append(
            simulated(
                poisson(rate, n),
                cost,
                SEATS[1],
                static=setting == "static",
                what="batches",
                setting=setting,
                rate=rate,
            )
        )
    # one prompt in twenty is a document
    long = lambda rnd: (2000, 32) if rnd.random() < 0.05 else simulator.lengths(rnd)
    rate = 0.6 * capacity(cost, SEATS[-1], draw=long)
    for budget in BUDGETS:
        rows.append(
            simulated(
                poisson(rate, n, draw=long),
                cost,
                SEATS[-1],
                budget,
                2 * BLOCKS,
                what="chunks",
                setting=f"{budget} tokens a step",
                rate=rate,
            )
        )
    return rows


def run(device="cpu", quick=False):
    import time

    import torch

    from labkit import Engine
    from labkit.weights import smollm2
    from labkit_labs.common.simulator import lengths, live, poisson

    torch.set_num_threads(1)
    model, _ = smollm2("fp32", device)
    cost, error = measured(model, quick)
    rows = [
        {
            "what": "a step",
            "base": cost.base,
            "per_token": cost.per_token,
            "per_context": cost.per_context,
            "error": error,
            "setting": (
                f"{cost.base * 1e3:.1f} ms + {cost.per_token * 1e3:.2f} a token fed +"
                f" {cost.per_context * 1e3:.4f} a token read"
            ),
        }
    ]
    rows += comparisons(cost, 60 if quick else 800)
    users, draw = (
        (6, lambda rnd: (20, 4)) if quick else (100, lambda rnd: lengths(rnd, mean=24, new=(4, 96)))
    )
    rate = 0.6 * capacity(cost, SEATS[-1], draw=draw)
    arrivals = poisson(rate, users, draw=draw)
    engine = Engine(model, max_batch=SEATS[-1], n_blocks=BLOCKS, block_size=16)
    report = live(engine, arrivals)
    rows.append(
        report.row(
            what="live",
            setting=f"{users} users",
            rate=rate,
            max_batch=SEATS[-1],
            token_budget=256,
            seconds=report.seconds,
            goodput=report.goodput(**LIMITS),
            longest_step=max(s.seconds for s in engine.trace().steps),
        )
    )
    rows.append(
        simulated(
            arrivals, cost, SEATS[-1], what="simulated", setting=f"the same {users}", rate=rate
        )
    )
    n = 2_000 if quick else 100_000
    rate = 0.6 * capacity(cost, SEATS[-1])
    start = time.perf_counter()
    rows.append(
        simulated(
            poisson(rate, n), cost, SEATS[-1], what="long", setting=f"{n:,} requests", rate=rate
        )
    )
    rows[-1]["simulated_in"] = time.perf_counter() - start
    return rows


def go(rows):
    of = {(r["what"], r["setting"]): r for r in rows}
    for worse, better in (
        (("arrivals", f"bursts of {BURST}"), ("arrivals", "even")),
        (("batches", "static"), ("batches", "continuous")),
    ):
        if of[worse]["ttft_p99"] <= of[better]["ttft_p99"]:
            return (
                f"{worse[1]} does not make users wait longer than {better[1]}: look whether both"
                " see the same requests at the same rate"
            )
    real, guess = (next(r for r in rows if r["what"] == what) for what in ("live", "simulated"))
    off = real["tpot_p50"] / guess["tpot_p50"]
    if real["requests"] >= 24 and not 0.5 < off < 2:
        return (
            f"the real engine's TPOT is {off:.1f} times the simulator's: the machine was busy with"
            " something else, or the cost of a step is wrong"
        )


def plot(rows):
    from labkit import plotting

    ax = plotting.axes(x_label="tokens per second", y_label="TTFT, 99th percentile, s", log_y=True)
    series = {
        seats: [r for r in rows if r["what"] == "frontier" and r["max_batch"] == seats]
        for seats in SEATS
    }
    for colour, (seats, points) in zip(plotting.LIGHT["series"], series.items()):
        x, y = [r["tokens_per_second"] for r in points], [r["ttft_p99"] for r in points]
        ax.plot(x, y, color=colour, linewidth=2.2, marker="o", markersize=5)
        ax.annotate(
            f"{seats} slots" if seats > 1 else "1 slot",
            (x[-1], y[-1]),
            xytext=(6, 6),
            textcoords="offset points",
            color=colour,
        )
    best = {seats: max(r["tokens_per_second"] for r in points) for seats, points in series.items()}
    return plotting.Chart(
        ax.figure,
        "Throughput against the wait for the first token, a curve per batch size: each ends in a"
        " wall, at "
        + ", ".join(f"{rate:.0f} tokens per second with {seats}" for seats, rate in best.items())
        + " slots.",
    )


LAB = Lab(
    asks=(
        "Do bursts and static batches make users wait longer, and does the simulator see what a"
        " real engine's users see?"
    ),
    title="Arrivals decide latency",
    minutes=2.5,
    objective=(
        "Drive traffic through the real scheduler: throughput against latency at six rates and"
        " three batch sizes, bursts, static batches and chunk budgets; then check the simulator"
        " against 100 users of a real engine."
    ),
    notice=(
        "There is no one speed: each batch size has a curve, flat until the machine is nearly full"
        " and then a wall. A larger batch moves the wall and costs every user time per token. At"
        " one average rate bursts make users wait much longer than even arrivals, and static"
        " batches longer than continuous ones. Small chunks of a long prompt shorten the longest"
        " step: the silence that everyone else hears."
    ),
    columns={
        "what": "what",
        "setting": "setting",
        "max_batch": "slots",
        "rate": "requests/s|.2f",
        "tokens_per_second": "tokens/s|.0f",
        "goodput": "in time/s|.2f",
        "ttft_p50": "TTFT p50|.2f",
        "ttft_p99": "p99|.2f",
        "tpot_p50": "TPOT p50|.3f",
        "tpot_p99": "p99|.3f",
        "longest_step": "longest step|.2f",
        "requests": "requests|,",
        "simulated_in": "simulated in s|.1f",
    },
    run=run,
    plot=plot,
    go=go,
)

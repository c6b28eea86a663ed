"""CH09-TRAFFIC: arrivals decide latency.

A step's cost is fitted to real runs; then traffic drives the real scheduler, and a real engine.
"""

import statistics
from functools import partial

from labkit import bench, plotting
from labkit.lab import Lab
from labkit.tables import listed, only, where
from labkit_labs.common import simulator
from labkit_labs.common.simulator import Arrival, CostModel, bursts, poisson

SEATS = (1, 8, 48)
LOADS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.1)  # of what the machine can carry
BUDGETS = (64, 256, 1024)  # tokens a step
BURST = 16
# seconds: a wait that users bear, and five tokens a second, as fast as one reads
LIMITS = {"ttft": 2.0, "tpot": 0.2}
BLOCKS = 800  # of 16 tokens
BLOCK = 16


def measured(model, seats, skipped: int, new: int) -> tuple[CostModel, float]:
    """The cost of a step, fitted to runs of a real engine, and the fit's median error.

    seats: requests at once, a run for each. skipped: tokens left out at a prompt's head. new:
    tokens of a reply.
    """
    from labkit import Engine
    from labkit_labs.common import workload

    def schedule(seats: int):
        engine = Engine(model, max_batch=seats, n_blocks=BLOCKS, block_size=BLOCK)
        for job in workload.jobs()[:seats]:
            engine.add(job.prompt[skipped:], new, stop=())
        engine.run()
        return engine.trace()

    schedule(1)  # warm up
    traces = [schedule(n) for n in seats]
    cost = CostModel.fit(*traces)
    errors = []
    for step in (step for trace in traces for step in trace.steps):
        fed = sum(row[3] for row in step.rows)
        read = sum(row[4] for row in step.rows)
        errors.append(abs(cost(fed, read) / step.seconds - 1))
    return cost, statistics.median(errors)


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
    steps = []

    def noted(tokens, context):
        steps.append(cost(tokens, context))
        return steps[-1]

    report = simulator.simulate(
        arrivals,
        noted,
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
    n = 300
    at_once = poisson(1e6, n, **draw)
    report = simulator.simulate(at_once, cost, max_batch=max_batch, n_blocks=2 * BLOCKS)
    return n / report.seconds


def replay(sizes):
    """A draw that gives these (own prompt, reply) tokens in order."""
    left = iter(sizes)
    return lambda rnd: next(left)


def documents(rnd) -> tuple[int, int]:
    """A draw where one prompt in twenty is a document."""
    return (2000, 32) if rnd.random() < 0.05 else simulator.lengths(rnd)


def comparisons(cost, n: int) -> list[dict]:
    """The frontier; arrivals even, Poisson and in bursts; static and continuous; budgets for chunks
    of long prompts. n: requests of each.
    """
    return [
        *frontier(cost, n),
        *kinds_of_arrival(cost, n),
        *kinds_of_batch(cost, n),
        *sizes_of_chunk(cost, n),
    ]


def frontier(cost, n: int) -> list[dict]:
    most = capacity(cost, SEATS[-1])
    return [
        simulated(
            poisson(load * most, n),
            cost,
            seats,
            what="frontier",
            setting=f"{load:.0%} of capacity",
            rate=load * most,
        )
        for seats in SEATS
        for load in LOADS
    ]


def kinds_of_arrival(cost, n: int) -> list[dict]:
    from labkit_labs.common import workload

    rate = 0.6 * capacity(cost, SEATS[-1])
    # the workload's own: what arrives is the same, only when differs
    sizes = [(len(job.prompt) - 256, job.new) for job in workload.jobs()] * n
    kinds = {
        "even": [Arrival(i / rate, *sizes[i]) for i in range(n)],
        "Poisson": poisson(rate, n, draw=replay(sizes)),
        f"bursts of {BURST}": bursts(rate, n, BURST, draw=replay(sizes)),
    }
    return [
        simulated(arrivals, cost, SEATS[-1], what="arrivals", setting=setting, rate=rate)
        for setting, arrivals in kinds.items()
    ]


def kinds_of_batch(cost, n: int) -> list[dict]:
    seats = SEATS[1]
    rate = 0.6 * capacity(cost, seats)
    return [
        simulated(
            poisson(rate, n),
            cost,
            seats,
            static=setting == "static",
            what="batches",
            setting=setting,
            rate=rate,
        )
        for setting in ("continuous", "static")
    ]


def sizes_of_chunk(cost, n: int) -> list[dict]:
    rate = 0.6 * capacity(cost, SEATS[-1], draw=documents)
    return [
        simulated(
            poisson(rate, n, draw=documents),
            cost,
            SEATS[-1],
            budget,
            2 * BLOCKS,
            what="chunks",
            setting=f"{budget} tokens a step",
            rate=rate,
        )
        for budget in BUDGETS
    ]


def live_and_simulated(model, cost, users: int, draw) -> list[dict]:
    """The same traffic on a real engine, and through the simulator."""
    from labkit import Engine

    rate = 0.6 * capacity(cost, SEATS[-1], draw=draw)
    arrivals = poisson(rate, users, draw=draw)
    engine = Engine(model, max_batch=SEATS[-1], n_blocks=BLOCKS, block_size=BLOCK)
    report = simulator.live(engine, arrivals)
    real = report.row(
        what="live",
        setting=f"{users} users",
        rate=rate,
        max_batch=SEATS[-1],
        token_budget=256,
        seconds=report.seconds,
        goodput=report.goodput(**LIMITS),
        longest_step=max(step.seconds for step in engine.trace().steps),
    )
    guess = simulated(
        arrivals, cost, SEATS[-1], what="simulated", setting=f"the same {users}", rate=rate
    )
    return [real, guess]


def long_run(cost, n: int) -> dict:
    """How long it takes to simulate many requests."""
    rate = 0.6 * capacity(cost, SEATS[-1])
    simulate = partial(
        simulated, cost=cost, max_batch=SEATS[-1], what="long", setting=f"{n:,} requests", rate=rate
    )
    seconds, row = bench.timed(lambda: simulate(poisson(rate, n)))
    return row | {"simulated_in": seconds}


def run(device, *, fitted, skipped, new, compared, users, own, mean, replies, many):
    """The cost of a step, then what users see of it.

    fitted: requests at once, skipped: tokens left out of their prompts, new: tokens of their
    replies, where the cost is fitted. compared: requests of each comparison. users: of the real
    engine; own: shortest and longest prompt, mean and replies: mean, shortest and longest reply of
    theirs, in tokens. many: requests of the long run.
    """
    from labkit.weights import smollm2

    model, _ = smollm2("fp32", device)
    cost, error = measured(model, fitted, skipped, new)
    step = {
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
    draw = partial(simulator.lengths, own=own, mean=mean, new=replies)
    return [
        step,
        *comparisons(cost, compared),
        *live_and_simulated(model, cost, users, draw),
        long_run(cost, many),
    ]


def go(rows):
    for what, worse, better in (
        ("arrivals", f"bursts of {BURST}", "even"),
        ("batches", "static", "continuous"),
    ):
        slow = only(rows, what=what, setting=worse)
        quick = only(rows, what=what, setting=better)
        if slow["ttft_p99"] <= quick["ttft_p99"]:
            return (
                f"{worse} does not make users wait longer than {better}: look whether both"
                " see the same requests at the same rate"
            )
    real = only(rows, what="live")
    off = real["tpot_p50"] / only(rows, what="simulated")["tpot_p50"]
    # a median of few users says little
    if real["requests"] >= 24 and not 0.5 < off < 2:
        return (
            f"the real engine's TPOT is {off:.1f} times the simulator's: the machine was busy with"
            " something else, or the cost of a step is wrong"
        )


def plot(rows):
    points = {seats: where(rows, what="frontier", max_batch=seats) for seats in SEATS}
    best = {seats: max(r["tokens_per_second"] for r in points[seats]) for seats in SEATS}

    @plotting.twice
    def draw(*, width):
        ax = plotting.axes(
            width, x_label="tokens per second", y_label="TTFT, 99th percentile, s", log_y=True
        )
        for colour, seats in zip(plotting.LIGHT["series"], SEATS):
            speeds = [r["tokens_per_second"] for r in points[seats]]
            waits = [r["ttft_p99"] for r in points[seats]]
            ax.plot(speeds, waits, color=colour, linewidth=2.2, marker="o", markersize=5)
            ax.annotate(
                f"{seats} slots" if seats > 1 else "1 slot",
                (speeds[-1], waits[-1]),
                xytext=(6, 6),
                textcoords="offset points",
                color=colour,
            )
        return ax.figure

    return draw(
        alt="Throughput against the wait for the first token, a curve per batch size: each ends in"
        " a wall, at "
        + ", ".join(f"{speed:.0f} tokens per second with {seats}" for seats, speed in best.items())
        + " slots.",
    )


def notice(rows):
    def waits(what):
        return [f"{r['ttft_p99']:.2f} s ({r['setting']})" for r in where(rows, what=what)]

    most = {
        seats: max(where(rows, what="frontier", max_batch=seats), key=lambda r: r["rate"])
        for seats in SEATS
    }
    walls = [f"{r['tokens_per_second']:.1f} with {seats}" for seats, r in most.items()]
    each = [f"{r['tpot_p50']:.3f}" for r in most.values()]
    chunks = where(rows, what="chunks")
    longest = [f"{r['longest_step']:.2f} s" for r in chunks]
    budgets = [str(r["token_budget"]) for r in chunks]
    real = only(rows, what="live")
    guess = only(rows, what="simulated")
    return (
        "There is no one speed: each batch size has a curve, and at its end a wall. Where more"
        f" arrives than can be served, tokens a second are {listed(walls)} slots, and a token takes"
        f" every user {listed(each)} s. At one average rate, one user in a hundred waits for the"
        f" first token longer than {listed(waits('arrivals'))}. By how batches are filled that is"
        f" {listed(waits('batches'))}. A step that takes a long prompt in chunks of at most"
        f" {listed(budgets)} tokens lasts up to {listed(longest)}: the silence that everyone else"
        f" hears. A real engine's users saw a median TPOT of {real['tpot_p50']:.3f} s where the"
        f" simulator's saw {guess['tpot_p50']:.3f} s."
    )


LAB = Lab(
    title="Arrivals decide latency",
    objective=(
        "Drive traffic through the real scheduler: throughput against latency at six rates and"
        " three batch sizes, bursts, static batches and chunk budgets; then check the simulator"
        " against 100 users of a real engine."
    ),
    asks=(
        "Do bursts and static batches make users wait longer, and does the simulator see what a"
        " real engine's users see?"
    ),
    notice=notice,
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
    sizes={
        "full": {
            "fitted": SEATS,
            "skipped": 0,
            "new": 24,
            "compared": 800,
            "users": 100,
            "own": (20, 120),
            "mean": 24,
            "replies": (4, 96),
            "many": 100_000,
        },
        "quick": {
            "fitted": (1, 4),
            "skipped": 200,
            "new": 4,
            "compared": 60,
            "users": 6,
            "own": (20, 20),
            "mean": 4,
            "replies": (4, 4),
            "many": 2_000,
        },
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=2.5,
)

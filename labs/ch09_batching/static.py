"""CH09-STATIC: the same requests one by one, in static batches padded rightly and wrongly, and in
continuous batches.
"""

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from labkit import bench, plotting
from labkit.lab import Lab, Recorded
from labkit.tables import only

SHARED = 256  # tokens of the system prompt that all requests begin with
BUDGET = 512  # tokens a step
PAGE = 256  # transformers' block, in tokens
CHUNKS = {"max_batch": 4, "n_blocks": 32, "block_size": 16, "token_budget": 32}  # to watch
# before each step: tokens of a prompt and of its reply, of each request that comes
ARRIVALS = ([(20, 5), (9, 9), (14, 3), (6, 12), (12, 4)], [], [], [], [(40, 6)], [], [], [(8, 4)])
REPLIED = ("one by one", "fp32")  # what the others are compared with


def requests(n: int, shorter: int):
    """The workload's own texts without the system prompt (sharing it is chapter 10's), and replies
    `shorter` times shorter.
    """
    from labkit_labs.common.workload import Job, jobs

    work = jobs()
    return [Job(job.prompt[SHARED:], max(2, job.new // shorter)) for job in work[:: len(work) // n]]


def transformers_continuous(twin, work, slots: int) -> list[list[int]]:
    """transformers' continuous batching: its `generate_batch`, but each request with the length of
    its own reply.

    It runs in a thread of its own, which dies inside torch.inference_mode().
    """
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    pages = -(-max(len(job.prompt) + job.new for job in work) // PAGE)
    config = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=2 * slots * pages,
        max_batch_tokens=BUDGET,
        max_requests_per_batch=slots,
        allow_block_sharing=False,
    )
    greedy = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=1)
    replies = {}
    with twin.continuous_batching_context_manager(
        greedy, continuous_batching_config=config, warmup=False
    ) as manager:
        ids = [manager.add_request(job.prompt, max_new_tokens=job.new) for job in work]
        while len(replies) < len(ids) and manager.is_running():
            result = manager.get_result(timeout=1)
            if result and result.is_finished():
                replies[result.request_id] = result.generated_tokens
    return [replies[id] for id in ids]


@dataclass(frozen=True)
class Way:
    """A way to serve: how many slots a step has, the model, and from jobs to replies."""

    slots: int
    model: object
    serve: object


def ways(device: str, slots: int) -> dict[tuple[str, str], Way]:
    """Every way by its name and its dtype."""
    from labkit.linear import has_bf16
    from labkit.rivals.transformers import transformers_twin
    from labkit.weights import smollm2
    from labkit_labs.common import workload

    model = smollm2("fp32", device)[0]
    static = partial(workload.static, model, slots=slots)
    found = {
        REPLIED: Way(1, model, partial(workload.one_by_one, model)),
        ("static", "fp32"): Way(slots, model, static),
        ("static, padded without a mask", "fp32"): Way(slots, model, partial(static, padded=True)),
    }
    dtypes = ["fp32"]
    if has_bf16() or device != "cpu":
        dtypes.append("bf16")
    for dtype in dtypes:
        net = model if dtype == "fp32" else smollm2(dtype, device)[0]
        serve = partial(workload.continuous, net, slots=slots)
        found["continuous", dtype] = Way(slots, net, serve)
        if find_spec("transformers"):
            twin = transformers_twin(net)
            serve = partial(transformers_continuous, twin, slots=slots)
            found["transformers, continuous", dtype] = Way(slots, twin, serve)
    return found


@dataclass
class Served:
    """What serving took, in how many forwards, and what it gave."""

    seconds: float
    forwards: int
    replies: list[list[int]]


def served(way: Way, work, device: str) -> Served:
    """Serve the work with a clock on it."""
    ran = []
    hook = way.model.register_forward_pre_hook(lambda *_: ran.append(1))
    seconds, replies = bench.timed(partial(way.serve, work), device)
    hook.remove()
    return Served(seconds, len(ran), replies)


def run(device, *, slots, requested, shorter, repeats, warmed):
    """A row for each way, and the schedule of a short run.

    requested: requests, their replies `shorter` times shorter than the workload's. warmed: how many
    of them warm up (0 = none).
    """
    work = requests(requested, shorter)
    found = ways(device, slots)

    def of(work):
        return {name: partial(served, way, work, device) for name, way in found.items()}

    runs = bench.rounds(
        of(work), repeats=repeats, warmup=of(work[:warmed]) if warmed else 0, device=device
    )
    times = {name: bench.summarise([s.seconds for s in each]) for name, each in runs.items()}
    tokens = sum(job.new for job in work)
    alone = runs[REPLIED][-1].replies
    rows = []
    for name, m in times.items():
        variant, dtype = name
        last = runs[name][-1]
        same = sum(reply == other for reply, other in zip(last.replies, alone))
        row = m.to_row(
            variant=variant,
            dtype=dtype,
            slots=found[name].slots,
            requests=len(work),
            tokens=tokens,
            tokens_per_second=tokens / m.median,
            multiple=bench.multiple(times[REPLIED], m),
            forwards=last.forwards,
            useful=tokens / last.forwards / found[name].slots,
            agreement=same / len(work),
        )
        theirs = times.get(("transformers, continuous", dtype))
        if variant == "continuous" and theirs:
            row["over_transformers"] = bench.multiple(theirs, m)
        rows.append(row)
    model = found["continuous", "fp32"].model
    return Recorded(rows, schedule_continuous=short_schedule(model))


def short_schedule(model):
    """The schedule of a continuous run that is short enough to watch: prompts in chunks, slots that
    are filled again, requests that come while others run.
    """
    from labkit import Engine

    engine = Engine(model, **CHUNKS, prefix_cache=False)
    texts = iter(requests(12, 12))
    for asked in ARRIVALS:
        for tokens, new in asked:
            engine.add(next(texts).prompt[:tokens], new, stop=())
        engine.step()
    engine.run()
    return engine.trace()


def go(rows):
    static = only(rows, variant="static")
    padded = only(rows, variant="static, padded without a mask")
    continuous = only(rows, variant="continuous", dtype="fp32")
    for r in (static, continuous):
        if r["agreement"] < 1:
            return (
                f"{r['variant']}: {1 - r['agreement']:.0%} of the replies are not those of the"
                " request alone: look at masks and positions"
            )
    if padded["agreement"] == 1:
        return (
            "padding without a mask changed no reply: look whether the prompts of a batch differ in"
            " length"
        )
    if continuous["forwards"] >= static["forwards"]:
        return (
            f"continuous batching ran {continuous['forwards']} forwards, static"
            f" {static['forwards']}: who is done must leave at once"
        )


def plot(rows):
    speeds = {f"{r['variant']}, {r['dtype']}": r["tokens_per_second"] for r in rows}
    return plotting.bars(
        speeds,
        x_label="tokens per second",
        form="{:.0f}",
        highlight="continuous, fp32",
        alt="Tokens per second: "
        + ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items()),
    )


def notice(rows):
    static = only(rows, variant="static")
    padded = only(rows, variant="static, padded without a mask")
    continuous = only(rows, variant="continuous", dtype="fp32")
    return (
        "A static batch runs until its longest reply is done: of its"
        f" {static['slots']} slots {static['useful']:.0%} do useful work, in"
        f" {static['forwards']} forwards. Refilled slots bring that to"
        f" {continuous['useful']:.0%} in {continuous['forwards']}, and"
        f" {continuous['agreement']:.0%} of the replies are those of the request alone. Padding"
        " that neither mask nor positions know about makes"
        f" {padded['tokens_per_second']:.1f} tokens a second where the right one makes"
        f" {static['tokens_per_second']:.1f}: no clock shows the mistake. But of its replies"
        f" {padded['agreement']:.0%} are right."
    )


LAB = Lab(
    title="Batches, static and continuous",
    objective=(
        "Serve 24 requests one by one, in static batches (padded rightly and wrongly) and in"
        " continuous ones; count forwards, tokens per second and replies that came out wrong."
    ),
    asks=(
        "Do right batches change no reply, wrong ones some, and is a slot filled again as soon as"
        " it is free?"
    ),
    notice=notice,
    columns={
        "variant": "way",
        "dtype": "dtype",
        "slots": "slots",
        "tokens_per_second": "tokens/s|.1f",
        "multiple": "x one by one|.2f",
        "over_transformers": "x transformers|.2f",
        "forwards": "forwards",
        "useful": "slots in use|.0%",
        "agreement": "replies unchanged|.0%",
    },
    run=run,
    sizes={
        "full": {"slots": 8, "requested": 24, "shorter": 3, "repeats": 3, "warmed": 2},
        "quick": {"slots": 3, "requested": 6, "shorter": 12, "repeats": 1, "warmed": 0},
    },
    threads=2,
    go=go,
    plot=plot,
    minutes=5,
)

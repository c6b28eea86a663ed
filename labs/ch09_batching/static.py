"""CH09-STATIC: the same requests one by one, in static batches padded rightly and wrongly, and in
continuous batches.
"""

from functools import partial
from importlib.util import find_spec

from labkit.lab import Lab, Recorded

# tokens of the system prompt that all requests begin with; slots; tokens a step; transformers' page
SHARED, SLOTS, BUDGET, PAGE = 256, 8, 512, 256


def requests(n: int, shorter: int):
    """The workload's own texts without the system prompt (sharing it is chapter 10's), and replies
    `shorter` times shorter.
    """
    from labkit_labs.common import workload as serving

    work = serving.jobs()
    return [
        serving.Job(job.prompt[SHARED:], max(2, job.new // shorter))
        for job in work[:: len(work) // n]
    ]


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
    greedy, replies = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=1), {}
    with twin.continuous_batching_context_manager(
        greedy, continuous_batching_config=config, warmup=False
    ) as manager:
        ids = [manager.add_request(job.prompt, max_new_tokens=job.new) for job in work]
        while len(replies) < len(ids) and manager.is_running():
            result = manager.get_result(timeout=1)
            if result and result.is_finished():
                replies[result.request_id] = result.generated_tokens
    return [replies[id] for id in ids]


def ways(device: str, slots: int) -> dict:
    """(way, dtype) -> (slots, the model, a function from jobs to replies)."""
    from labkit.linear import has_bf16
    from labkit.rivals import transformers_twin
    from labkit.weights import smollm2
    from labkit_labs.common import workload as serving

    model = smollm2("fp32", device)[0]
    found = {
        ("one by one", "fp32"): (1, model, partial(serving.one_by_one, model)),
        ("static", "fp32"): (slots, model, partial(serving.static, model, slots=slots)),
        ("static, padded without a mask", "fp32"): (
            slots,
            model,
            partial(serving.static, model, slots=slots, padded=True),
        ),
    }
    for dtype in ("fp32", "bf16") if has_bf16() or device != "cpu" else ("fp32",):
        net = model if dtype == "fp32" else smollm2(dtype, device)[0]
        found["continuous", dtype] = slots, net, partial(serving.continuous, net, slots=slots)
        if find_spec("transformers"):
            twin = transformers_twin(net)
            found["transformers, continuous", dtype] = (
                slots,
                twin,
                partial(transformers_continuous, twin, slots=slots),
            )
    return found


def run(device="cpu", quick=False):
    import torch

    from labkit import bench

    torch.set_num_threads(1 if quick else 2)
    slots, work = (3, requests(6, 12)) if quick else (SLOTS, requests(24, 3))
    found, replies, forwards = ways(device, slots), {}, {}

    def served(way, net, serve):
        def fn():
            ran = []
            hook = net.register_forward_pre_hook(lambda *_: ran.append(1))
            replies[way] = serve(work)
            hook.remove()
            forwards[way] = len(ran)

        return fn

    if not quick:
        for _, _, serve in found.values():
            serve(work[:2])  # warm up
    fns = {way: served(way, net, serve) for way, (_, net, serve) in found.items()}
    times = bench.interleave(fns, warmup=0, repeats=1 if quick else 3, device=device)
    tokens, alone, rows = sum(job.new for job in work), ("one by one", "fp32"), []
    for way, m in times.items():
        same = sum(a == b for a, b in zip(replies[way], replies[alone]))
        rows.append(
            m.to_row(
                variant=way[0],
                dtype=way[1],
                slots=found[way][0],
                requests=len(work),
                tokens=tokens,
                tokens_per_second=tokens / m.median,
                multiple=bench.multiple(times[alone], m),
                forwards=forwards[way],
                useful=tokens / forwards[way] / found[way][0],
                agreement=same / len(work),
            )
        )
        theirs = times.get(("transformers, continuous", way[1]))
        if way[0] == "continuous" and theirs:
            rows[-1]["over_transformers"] = bench.multiple(theirs, m)
    _, model, _ = found["continuous", "fp32"]
    return Recorded(rows, schedule_continuous=short_schedule(model))


def short_schedule(model):
    """The schedule of a continuous run that is short enough to watch: prompts in chunks, slots that
    are filled again.
    """
    from labkit import Engine

    engine = Engine(
        model, max_batch=4, n_blocks=32, block_size=16, token_budget=32, prefix_cache=False
    )
    for job in requests(12, 12):
        engine.add(job.prompt[:40], job.new, stop=())
    engine.run()
    return engine.trace()


def go(rows):
    of = {r["variant"]: r for r in rows if r["dtype"] == "fp32"}
    for name in ("static", "continuous"):
        if of[name]["agreement"] < 1:
            return (
                f"{name}: {1 - of[name]['agreement']:.0%} of the replies are not those of the"
                " request alone: look at masks and positions"
            )
    if of["static, padded without a mask"]["agreement"] == 1:
        return (
            "padding without a mask changed no reply: look whether the prompts of a batch differ in"
            " length"
        )
    if of["continuous"]["forwards"] >= of["static"]["forwards"]:
        return (
            f"continuous batching ran {of['continuous']['forwards']} forwards, static"
            f" {of['static']['forwards']}: who is done must leave at once"
        )


def plot(rows):
    from labkit import plotting

    bars = {f"{r['variant']}, {r['dtype']}": r["tokens_per_second"] for r in rows}
    return plotting.bars(
        bars,
        x_label="tokens per second",
        form="{:.0f}",
        highlight="continuous, fp32",
        alt="Tokens per second: " + ", ".join(f"{name} {rate:.0f}" for name, rate in bars.items()),
    )


LAB = Lab(
    asks=(
        "Do right batches change no reply, wrong ones some, and is a slot filled again as soon as"
        " it is free?"
    ),
    title="Batches, static and continuous",
    minutes=5,
    objective=(
        "Serve 24 requests one by one, in static batches (padded rightly and wrongly) and in"
        " continuous ones; count forwards, tokens per second and replies that came out wrong."
    ),
    notice=(
        "A static batch runs until its longest reply is done: of 8 slots 39% do useful work."
        " Refilled slots bring that to 78%, with half the forwards and the same replies. Padding"
        " that neither mask nor positions know about is as fast, and most of its replies are wrong."
    ),
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
    plot=plot,
    go=go,
)

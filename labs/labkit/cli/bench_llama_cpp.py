"""What `labkit bench --against llama.cpp` measures: the same weights at equal bits, by labkit and
by llama.cpp, in turn.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

COLUMNS = {
    "dtype": "dtype",
    "threads": "threads",
    "batch": "batch",
    "phase": "phase",
    "engine": "engine",
    "weights": "weights",
    "median": "ms|,.1f",
    "iqr": "± ms|,.1f",
    "tokens_per_second": "tokens/s|,.1f",
    "multiple": "times llama.cpp|.2f",
    "agreement": "same tokens|.1%",
}
NOTE = (
    "llama.cpp ({version}) maps these weights from GGUF files, every matrix in the format under"
    " weights, and runs with its own defaults: flash attention where it chooses so, 512 tokens of a"
    " prompt at once, a cache in f16 (under fp32 weights in f32, so that tokens can be compared;"
    " under bf16 in bf16). labkit's cache is in fp32, under bf16 weights in bf16. The same tokens"
    " are those that labkit writes at the same place in the same dtype; in fp32 they part only"
    " where two logits lie closer than rounding moves them."
)
BUDGET = 512  # tokens of prompts in a step, of both


def check(args) -> None:
    """ValueError for what can't be measured. llama.cpp is built, if that is asked for."""
    from labkit.rivals import llama_cpp

    if args.device != "cpu":
        raise ValueError("llama.cpp is built for processors here: choose --device cpu")
    for dtype in args.dtype:
        llama_cpp.formats_of(dtype)
    if args.build:
        llama_cpp.build()
    llama_cpp.worker()


def note() -> str:
    """What a reader must know of the rival."""
    from labkit.rivals.llama_cpp import version

    return NOTE.format(version=version())


def measure(dtype: str, threads: int, args) -> list[dict]:
    """Rows for one dtype: batch x phase x engine, and the workload's.

    threads: of llama.cpp; torch has them already.
    """
    from labkit.rivals import llama_cpp
    from labkit.tables import progress

    formats = llama_cpp.formats_of(dtype)
    plain, tokenizer = labkits("fp32", packed=False)
    files = {kind: llama_cpp.weights(plain, kind) for kind in formats}
    with ExitStack() as stack:
        theirs = {
            kind: stack.enter_context(llama_cpp.Llama(file, threads))
            for kind, file in files.items()
        }
        rows = []
        for batch in progress(args.batch, f"{dtype} batches"):
            rows += in_lockstep(dtype, batch, theirs, tokenizer, args)
        if args.workload:
            rows += the_workload(dtype, theirs, args)
    return [{"dtype": dtype, "threads": threads} | row for row in rows]


def labkits(dtype: str, packed: bool = True):
    """SmolLM2 and its tokenizer, in a dtype or a kind of `quantize`."""
    from labkit.quant import quantize
    from labkit.quant.linear import KINDS
    from labkit.weights import smollm2

    if dtype not in KINDS:
        return smollm2(dtype, packed=packed)
    model, tokenizer = smollm2("fp32", packed=False)
    return quantize(model, dtype), tokenizer


def in_lockstep(dtype: str, batch: int, theirs: dict, tokenizer, args) -> list[dict]:
    """A prefill and a decode step of a batch."""
    from labkit import bench
    from labkit.rivals.llama_cpp import cache_of

    model, _ = labkits(dtype)
    prompts = [bench.prompt(tokenizer, args.context)] * batch
    for kind, it in theirs.items():
        it.open(batch, args.context + args.new, cache_of(kind))

    def loops(new: int) -> dict:
        ours = {"labkit": partial(bench.time_decode, model, prompts, new)}
        return ours | {kind: partial(it.decode, prompts, new) for kind, it in theirs.items()}

    runs = bench.rounds(loops(args.new), repeats=args.repeats, warmup=loops(2))
    same = agreements({name: times[-1].tokens for name, times in runs.items()})
    seconds = {
        "prefill": {name: [t.first for t in times] for name, times in runs.items()},
        "decode": {name: [s for t in times for s in t.each] for name, times in runs.items()},
    }
    return [
        row
        for phase, taken in seconds.items()
        for row in rows_of(
            taken,
            dtype,
            batch * (args.context if phase == "prefill" else 1),
            same,
            batch=batch,
            phase=phase,
        )
    ]


def the_workload(dtype: str, theirs: dict, args) -> list[dict]:
    """The ladder's requests, served by continuous batching; what they share is computed once."""
    from labkit import bench
    from labkit.rivals.llama_cpp import cache_of
    from labkit_labs.common import workload

    work = workload.jobs()[: args.requests]
    slots = len(work)  # nobody waits for a place
    model, _ = labkits(dtype)
    jobs = [(job.prompt, job.new) for job in work]
    longest = max(len(prompt) + new for prompt, new in jobs)
    for kind, it in theirs.items():
        # one pool of cells: what prompts share is read once for all, which is its faster way
        it.open(slots + 1, longest, cache_of(kind), shared=True)
    shared = common_prefix([prompt for prompt, _ in jobs])
    ours = partial(workload.continuous, model, work, slots, prefix=True)
    runs = bench.rounds(
        {
            "labkit": partial(bench.timed, ours),
            "labkit, prompt lookup": partial(bench.timed, partial(ours, speculative="ngram")),
        }
        | {kind: partial(it.serve, jobs, slots, shared, BUDGET) for kind, it in theirs.items()},
        repeats=args.repeats,
        warmup=0,  # a round takes minutes
        label=f"{dtype} workload, rounds",
    )
    same = agreements({name: made[-1][1] for name, made in runs.items()})
    taken = {name: [seconds for seconds, _ in made] for name, made in runs.items()}
    tokens = sum(new for _, new in jobs)
    return rows_of(taken, dtype, tokens, same, batch=slots, phase="workload")


def rows_of(seconds: dict, dtype: str, tokens: int, same: dict, **labels) -> list[dict]:
    """A row for each engine: its seconds for so many tokens, and as a multiple of the speed of
    llama.cpp's first format.
    """
    from labkit import bench
    from labkit.rivals.llama_cpp import cache_of, version

    made = {name: bench.summarise(taken) for name, taken in seconds.items()}
    theirs = [name for name in made if not name.startswith("labkit")]
    rows = []
    for name, m in made.items():
        labels |= {"engine": name, "weights": dtype}
        if name in theirs:
            labels |= {"engine": "llama.cpp", "weights": name, "cache": cache_of(name)}
            labels["version"] = version()
        row = m.to_row(
            **labels,
            tokens_per_second=tokens / m.median,
            multiple=bench.multiple(made[theirs[0]], m),
            agreement=same[name],
        )
        rows.append(row)
    return rows


def agreements(made: dict[str, list[list[int]]]) -> dict[str, float]:
    """Of each engine the share of tokens that labkit wrote at the same place."""
    ours = [token for reply in made["labkit"] for token in reply]

    def share(replies: list[list[int]]) -> float:
        theirs = [token for reply in replies for token in reply]
        return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)

    return {name: share(replies) for name, replies in made.items()}


def common_prefix(prompts: list[list[int]]) -> int:
    """How many tokens all of them begin with."""
    shortest = min(map(len, prompts))
    different = (i for i in range(shortest) if len({prompt[i] for prompt in prompts}) > 1)
    return next(different, shortest - 1)

"""Measuring, done right once: warm up, repeat, interleave, synchronise, and print FLOPs and bytes
beside the time.

Rules this module keeps for every benchmark of the course: nothing is timed cold; what is compared
is run in turn in one process, so that a busy moment hits all sides; medians and quartiles are
reported, never a best run; prefill and decode are timed apart; and each time comes with what the
machine could have done (MFU of its FLOP/s, MBU of its bytes/s).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from labkit.environment import environment
from labkit.formulas import Hardware
from labkit.tables import progress


@dataclass(frozen=True)
class Measurement:
    """Seconds (or what `unit` says) of one thing: median, distance of the quartiles, runs."""

    median: float
    iqr: float
    n: int
    unit: str = "s"
    flops: float | None = None  # done in one run
    bytes: float | None = None  # read in one run
    mfu: float | None = None  # share of the machine's FLOP/s
    mbu: float | None = None  # share of the machine's bytes/s
    env: dict | None = None

    def to_row(self, **labels) -> dict:
        """A row for `results.save`: labels first, empty fields left out; the document keeps env."""
        return labels | {k: v for k, v in asdict(self).items() if v is not None and k != "env"}


def summarise(
    seconds: list[float], *, flops=None, bytes=None, hardware: Hardware | None = None, device="cpu"
) -> Measurement:
    """A Measurement of times already taken."""
    middle = statistics.median(seconds)
    quartiles = (
        statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [middle] * 3
    )
    mfu = flops / middle / hardware.flops_per_second if flops and hardware else None
    mbu = bytes / middle / hardware.bytes_per_second if bytes and hardware else None
    return Measurement(
        middle,
        quartiles[2] - quartiles[0],
        len(seconds),
        "s",
        flops,
        bytes,
        mfu,
        mbu,
        environment(device),
    )


def measure(
    fn: Callable[[], object],
    *,
    warmup: int = 1,
    repeats: int = 5,
    seed: int = 0,
    device: str = "cpu",
    flops=None,
    bytes=None,
    hardware: Hardware | None = None,
) -> Measurement:
    """Time `fn()` alone. To compare two things use `interleave`, never two calls of this."""
    return interleave(
        {"it": fn},
        warmup=warmup,
        repeats=repeats,
        seed=seed,
        device=device,
        flops={"it": flops},
        bytes={"it": bytes},
        hardware=hardware,
    )["it"]


def timed(fn: Callable[[], object], device: str = "cpu") -> tuple[float, object]:
    """Call `fn()` with a clock around it: (seconds, what it returned)."""
    _synchronise(device)
    start = time.perf_counter()
    result = fn()
    _synchronise(device)
    return time.perf_counter() - start, result


def rounds(
    fns: dict[str, Callable[[], object]],
    *,
    repeats: int = 5,
    warmup: int | dict[str, Callable[[], object]] = 1,
    seed: int = 0,
    device: str = "cpu",
    label: str | None = None,
) -> dict[str, list]:
    """Run several functions in turn, round after round, and keep what each warm round returned.

    fns: name -> a function without arguments. Whatever it returns is kept; where it returns None,
    the seconds that it took. One that wants both returns `timed(...)`.
    warmup: how many rounds to throw away first (0 = measured cold). Where a round takes long, give
    {name: a shorter function} instead, for all names or for some: they run once, in turn.
    seed: what `random` and torch start from, before every run. device: is waited for, before and
    after every run. label: of a progress bar; None = no bar. Threads are those of the process.

    Returns name -> the results of its `repeats` rounds, in order. Raises ValueError for nothing to
    run, no repeats, or a warm-up of something that is not measured.

        def loops(new):
            return {c: partial(time_decode, model, [prompt], new, c) for c in ("none", "static")}

        runs = rounds(loops(128), repeats=3, warmup=loops(2), label="rounds")
        speed = {name: summarise([t.seconds for t in times]) for name, times in runs.items()}
    """
    warm, turns = (warmup, 1) if isinstance(warmup, dict) else (fns, warmup)
    if not fns or repeats < 1 or turns < 0:
        raise ValueError(
            "a measurement needs at least one function, at least one repeat and no negative"
            f" warm-up, not {len(fns)}, {repeats} and {turns}"
        )
    if strangers := [name for name in warm if name not in fns]:
        raise ValueError(
            f"the warm-up runs {strangers[0]!r}, which is not measured: choose from"
            f" {', '.join(map(repr, fns))}"
        )

    def in_turn(of: dict) -> dict:
        made = {}
        for name, fn in of.items():
            _seed(seed)
            seconds, result = timed(fn, device)
            made[name] = seconds if result is None else result
        return made

    plan = [warm] * turns + [fns] * repeats
    if label:
        plan = progress(plan, label)
    kept = [in_turn(of) for of in plan][turns:]
    return {name: [made[name] for made in kept] for name in fns}


def interleave(
    fns: dict[str, Callable[[], object]],
    *,
    warmup: int = 1,
    repeats: int = 5,
    seed: int = 0,
    device: str = "cpu",
    flops: dict | None = None,
    bytes: dict | None = None,
    hardware: Hardware | None = None,
) -> dict[str, Measurement]:
    """How long several functions take, in turn: `rounds`, summarised.

    A function may return its own seconds (a float) to be timed inside; all else it returns is
    dropped.
    """
    took = rounds(
        {name: partial(_own_seconds, fn) for name, fn in fns.items()},
        warmup=warmup,
        repeats=repeats,
        seed=seed,
        device=device,
    )
    return {
        name: summarise(
            seconds,
            flops=(flops or {}).get(name),
            bytes=(bytes or {}).get(name),
            hardware=hardware,
            device=device,
        )
        for name, seconds in took.items()
    }


def _own_seconds(fn: Callable[[], object]) -> float | None:
    result = fn()
    return result if isinstance(result, float) else None


def multiple(slow: Measurement, fast: Measurement) -> float:
    """How many times faster: the ratio of medians of one interleaved run."""
    return slow.median / fast.median


@dataclass(frozen=True)
class LoopTimes:
    """One generation, prefill and decode apart."""

    first: float  # seconds to the first token (TTFT)
    each: list[float]  # seconds of every further step (TPOT is their median)
    tokens: list[list[int]]

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.first + sum(self.each)


SENTENCE = "A cache keeps a copy of what was slow to get, close to where it is needed again. "


def prompt(tokenizer, tokens: int) -> list[int]:
    """A prompt of so many tokens, for where words change no time: one sentence, over and over."""
    sentence = tokenizer.encode(SENTENCE)
    return (sentence * (tokens // len(sentence) + 1))[:tokens]


def time_decode(
    model, prompts: list[list[int]], new: int, cache: str = "static", captured: bool = True
) -> LoopTimes:
    """Generate `new` tokens for each prompt, greedily and without stopping, with a clock on every
    step. cache, captured and errors: as in `labkit.generate`.
    """
    from labkit import decode

    marks = []
    tokens = []
    start = time.perf_counter()
    # a step that is handed out has chosen its tokens, and so has waited for the device
    for step in decode.stream(model, prompts, new, cache=cache, stop=(), captured=captured):
        marks.append(time.perf_counter())
        tokens.append(step.tokens)
    each = [b - a for a, b in pairwise(marks)]
    return LoopTimes(marks[0] - start, each, decode.replies(tokens))


def hardware(dtype: str = "fp32", device: str = "cpu") -> Hardware:
    """This machine's ceilings, measured: a large matmul by the fastest kernel we have, and a read
    of more memory than any cache holds.
    """
    import torch

    from labkit.dtypes import DTYPES
    from labkit.linear import Linear

    kind = DTYPES[dtype]
    side = 4096 if str(device).startswith("cuda") else 1024
    a = torch.randn(side, side).to(device, kind)
    layer = Linear(side, side).to(device, kind).requires_grad_(False)
    layer.pack()
    big = torch.ones(2**28 // 4 if device == "cpu" else 2**30 // 4, device=device)
    best = {}
    for name, fn in {"matmul": lambda: layer(a), "read": lambda: big.sum()}.items():
        times = []
        for _ in range(6):
            _synchronise(device)
            start = time.perf_counter()
            fn()
            _synchronise(device)
            times.append(time.perf_counter() - start)
        best[name] = min(times[1:])
    return Hardware(
        environment(device).get("gpu") or environment()["cpu"],
        2 * side**3 / best["matmul"],
        big.numel() * 4 / best["read"],
    )


def resident_bytes() -> int:
    """Memory this process holds now (Linux; elsewhere its highest so far)."""
    return _memory("VmRSS")


class PeakMemory:
    """`with PeakMemory() as peak: …`, then `peak.bytes` is the most this process held meanwhile."""

    bytes = 0

    def __enter__(self):
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the highest mark so far
        except OSError:
            pass
        return self

    def __exit__(self, *_):
        self.bytes = _memory("VmHWM")


def _memory(field: str) -> int:
    try:
        line = next(
            x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field)
        )
        return int(line.split()[1]) * 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


def _seed(seed: int) -> None:
    import random

    random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _synchronise(device: str) -> None:
    if str(device).startswith("cuda"):
        import torch

        torch.cuda.synchronize()

"""Checks of chapter 01: where the work goes.

Each returns what was right, or raises Wrong with what to look at.
"""

import math

import numpy as np

from labkit import formulas
from labkit.checks import call, expect
from labkit.formulas import Hardware
from labkit.published import presets
from labkit_labs.ch01_where_the_work_goes.protocols import (
    MILLISECONDS,
    NEW,
    OLD,
    TRUTH,
    Machine,
)

H100 = Hardware("H100", 989e12, 3.35e12)


def token_flops(f):
    """01.1: FLOPs of one decoded token, from a model's sizes."""
    for name, context in (("smollm2-135m", 1), ("smollm2-135m", 4000), ("llama3-8b", 8192)):
        c = presets[name]
        want, got = formulas.decode_flops(c, context), call(f, c, context)
        pairs = 4 * c.n_layers * c.n_heads * c.head_dim * context
        table = 2 * c.vocab_size * c.d_model
        where = f"{name} at {context:,} tokens"
        expect(
            got != want - pairs,
            f"{where}: {got:,} are the matrices alone. The query also meets {context:,} keys, and"
            " as many values are added up, in every layer and head.",
        )
        expect(
            got != want + table,
            f"{where}: {got:,} counts the embedding as if it were multiplied. A row of it is looked"
            " up, which costs no FLOP.",
        )
        expect(
            got != 2 * formulas.parameters(c),
            f"{where}: {got:,} is the rule of thumb, two for each parameter. Norms are parameters,"
            " and so is an embedding that isn't the head too: no token is multiplied with them. And"
            " attention over the context is work without a parameter.",
        )
        expect(
            got != want - pairs // 2,
            f"{where}: {got:,} pays once for each key. The query is matched with it, and its value"
            " is added up as well.",
        )
        expect(
            got != want + 4 * c.n_layers * c.d_model * c.head_dim * (c.n_heads - c.n_kv_heads),
            f"{where}: {got:,} makes keys and values for all {c.n_heads} query heads. Only"
            f" {c.n_kv_heads} have their own.",
        )
        expect(
            2 * got != want,
            f"{where}: {got:,} is half of it: a weight costs a multiplication and an addition.",
        )
        expect(
            got != want - pairs + pairs * c.n_kv_heads // c.n_heads,
            f"{where}: {got:,} counts {c.n_kv_heads} heads for attention. They are stored, but all"
            f" {c.n_heads} query heads look.",
        )
        expect(got == want, f"{where}: {got:,}, expected {want:,}.")
    return "matrices twice, the embedding free, and four for each layer, head, number and token."


def step_intensity(f):
    """01.2: FLOPs for each byte of a decode step."""
    for name, batch, context, size in (
        ("llama3-8b", 1, 8000, 2),
        ("llama3-8b", 64, 8000, 2),
        ("smollm2-135m", 16, 1024, 4),
    ):
        c, dtype = presets[name], {2: "bf16", 4: "fp32"}[size]
        flops = batch * formulas.decode_flops(c, context)
        weights = formulas.decode_bytes(c, 0, 1, dtype)
        caches = formulas.kv_cache_bytes(c, context, batch, dtype)
        got = float(call(f, flops, weights, caches / batch, batch))
        where = f"{name}, {batch} requests of {context:,} tokens"
        expect(
            batch == 1 or not np.isclose(got, flops / (batch * weights + caches)),
            f"{where}: {got:.1f} reads the weights {batch} times. One reading serves all requests"
            " of the step.",
        )
        expect(
            batch == 1 or not np.isclose(got, flops / (weights + caches / batch)),
            f"{where}: {got:.1f} reads one cache for {batch} requests. Each has its own.",
        )
        expect(
            batch == 1 or not np.isclose(got, batch * flops / (weights + caches)),
            f"{where}: {got:.1f} counts the requests twice. The FLOPs are those of the whole step.",
        )
        expect(
            not np.isclose(got, flops / weights),
            f"{where}: {got:.1f} leaves the caches out.",
        )
        expect(
            not np.isclose(got, (weights + caches) / flops),
            f"{where}: {got:.2g} is bytes for each FLOP: turn it over.",
        )
        want = flops / (weights + caches)
        expect(np.isclose(got, want), f"{where}: {got:.2f}, expected {want:.2f} FLOPs a byte.")
    return "weights once, a cache for each request, FLOPs over bytes."


def first_batch(f):
    """01.3: the batch from which a step waits for arithmetic, or infinity."""
    for name, context in (("llama3-8b", 128), ("llama3-8b", 32_000), ("gpt2-124m", 1000)):
        c = presets[name]
        got = call(f, c, context, H100)

        def computes(batch, c=c, context=context):
            flops = batch * formulas.decode_flops(c, context)
            return flops / formulas.decode_bytes(c, context, batch) >= H100.ridge

        most = 100_000
        want = next((b for b in range(1, 2000) if computes(b)), math.inf)
        where = f"{name} at {context:,} tokens"
        if want == math.inf:
            expect(
                got == math.inf,
                f"{where}: not {got}. At {most:,} requests a byte still gets"
                f" {intensity(c, context, most):.0f} FLOPs, and the ridge is {H100.ridge:.0f}:"
                " their caches grow with them. Return infinity where no batch is enough.",
            )
            continue
        expect(
            got != math.inf,
            f"{where}: there is such a batch. Look beyond {H100.ridge:.0f} requests.",
        )
        expect(
            computes(got),
            f"{where}: {got} requests come to {intensity(c, context, got):.0f} FLOPs a byte, below"
            f" the ridge of {H100.ridge:.0f}. Caches are read, too.",
        )
        expect(
            got == want,
            f"{where}: {got} is enough, and not the first that is.",
        )
    return "found where there is one, and infinity where every request brings its own bytes."


def intensity(config, context, batch) -> float:
    flops = batch * formulas.decode_flops(config, context)
    return flops / formulas.decode_bytes(config, context, batch)


CASES = [
    # flops, bytes, launches, machine's FLOP/s, bytes/s, seconds of a launch, limit
    ("a prompt of 4,000 tokens", 6e13, 1.6e10, 300, 989e12, 3.35e12, 5e-6, "arithmetic"),
    ("one user", 1.6e10, 1.6e10, 300, 989e12, 3.35e12, 5e-6, "memory"),
    ("a small model, one user", 3e8, 2.7e8, 600, 989e12, 3.35e12, 5e-6, "launches"),
    ("the same on a slow processor", 3e8, 5.4e8, 1500, 1.7e11, 1.7e10, 1.6e-6, "memory"),
    ("the small model in one launch", 3e8, 2.7e8, 1, 989e12, 3.35e12, 5e-6, "memory"),
]


def bottleneck(f):
    """01.4: which of the three a step waits for."""
    for name, flops, read, launches, peak, speed, each, want in CASES:
        got = call(f, flops, read, launches, peak, speed, each)
        expect(
            got in ("arithmetic", "memory", "launches"),
            f'return "arithmetic", "memory" or "launches", not {got!r}.',
        )
        expect(
            not (got == "arithmetic" and want != "arithmetic" and flops >= read),
            f"{name}: more FLOPs than bytes does not make it arithmetic. Compare seconds: the"
            " machine does many FLOPs in the time that a byte takes.",
        )
        expect(
            not (want == "launches" and got != "launches"),
            f"{name}: the launches alone take {launches * each * 1e6:,.0f} µs. Are they longer than"
            " the other two?",
        )
        expect(
            got == want,
            f"{name}: it waits for {want}, not {got}: {flops / peak:.1e} s of arithmetic,"
            f" {read / speed:.1e} s of reading, {launches * each:.1e} s of launches.",
        )
    return "three times, the longest of them named, for five machines and loads."


def fair_multiple(f):
    """01.5: a measurement that keeps the rules, on a machine that breaks them all."""
    machine = Machine()
    got = float(call(f, machine))
    runs = machine.calls
    expect(
        not np.isclose(got, 1.0, atol=0.005),
        f"{got:.2f}: handing work over takes both versions equally long. Let the machine wait"
        " before you look at its clock.",
    )
    expect(runs >= 12, f"{runs} runs in all: one unlucky run would decide. Repeat each version.")
    expect(
        got < 2,
        f"{got:.2f}: the first run of all is cold and counts. Run both versions once before the"
        " clock matters.",
    )
    want = (MILLISECONDS[OLD] + Machine.launch) / (MILLISECONDS[NEW] + Machine.launch)
    expect(
        got > 1,
        f"{got:.2f}: the new version is the faster one. Divide the old one's time by it.",
    )
    expect(
        abs(got / want - 1) < 0.015,
        f"{got:.3f} is {abs(got / want - 1):.0%} off. This machine gets hot, so the versions must"
        " take turns; and somebody else runs on it, so a mean must not decide.",
    )
    got = float(call(f, Unlucky()))
    expect(
        abs(got / TRUTH - 1) < 0.03,
        f"{got:.2f} where somebody else always meets the same version: a few long runs decide your"
        " number. What do they leave alone?",
    )
    got = float(call(f, Warming()))
    expect(
        abs(got / TRUTH - 1) < 0.03,
        f"{got:.2f} on a machine that gets a little slower with each call. The versions must take"
        " turns, or the second pays for the first.",
    )
    expect(
        call(f, Swapped()) < 1,
        "it says the same when the two versions are exchanged: measure, don't recall.",
    )
    return f"{want:.2f} times, on machines that are cold, hot, busy and asynchronous."


class Unlucky(Machine):
    """Somebody else runs at each tenth call, which is always the same version's where two take
    turns.
    """

    others = 10, 4.0
    hot = 1, 1.0


class Warming(Machine):
    """Each call takes half a percent longer than the one before."""

    others = 1, 1.0

    def hand_over(self, version, tokens=300):
        self.hot = 1, 1.005**self.calls
        super().hand_over(version, tokens)


class Swapped(Machine):
    """What is called old is the new one."""

    def hand_over(self, version, tokens=300):
        super().hand_over({OLD: NEW, NEW: OLD}[version], tokens)


CHECKS = {
    "01.1": token_flops,
    "01.2": step_intensity,
    "01.3": first_batch,
    "01.4": bottleneck,
    "01.5": fair_multiple,
}

"""CH04-CROSSOVER: from how many new tokens on it pays to make keys and values again.

One layer of DeepSeek-V2-Lite's shape attends from 1 to 512 new tokens to a full cache, in three
ways that give the same numbers: absorbed, re-projected, and from keys and values that were kept, as
plain multi-head attention would. What is timed is attention over the cache; what makes the new
tokens' own queries and latents is the same in all three and left out.
"""

import math
import statistics
from functools import partial
from itertools import pairwise

import torch

from labkit import ModelConfig, bench, formulas, plotting
from labkit.lab import Lab
from labkit.ops import attend
from labkit.step import Step
from labkit.tables import only, progress, where
from labkit_labs.ch04_mla.absorbed import LITE
from labkit_labs.common import layer

WAYS = ("absorbed", "re-projected", "kept heads")


def costs(c: ModelConfig, new: int, context: int) -> dict:
    """way -> FLOPs of attending from `new` tokens to `context` in one layer."""
    f = formulas.symbols
    H = c.n_heads
    up = 2 * c.kv_lora_rank * H * (c.qk_nope_head_dim + c.v_head_dim)
    over_latents = f.latent_decode_flops(new, context, H, c.kv_lora_rank, c.qk_rope_head_dim)
    over_heads = f.latent_prefill_flops(
        new, context, H, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    )
    return {
        # queries in, results out: once for each new token
        "absorbed": up * new + over_latents,
        # keys and values: once for each cached token
        "re-projected": up * context + over_heads,
        "kept heads": over_heads,
    }


def held(c: ModelConfig, context: int) -> dict:
    """way -> numbers that one layer's cache holds."""
    latents = context * (c.kv_lora_rank + c.qk_rope_head_dim)
    key = c.qk_nope_head_dim + c.qk_rope_head_dim
    return {
        "absorbed": latents,
        "re-projected": latents,
        "kept heads": context * c.n_heads * (key + c.v_head_dim),
    }


def crossing(c: ModelConfig, context: float = math.inf) -> float:
    """New tokens at which both ways cost the same FLOPs; for an endless context C (En + Ev) over
    2C - En - Ev.
    """
    size = c.qk_nope_head_dim + c.v_head_dim
    up = c.kv_lora_rank * size
    return up / (2 * c.kv_lora_rank - size + up / context)


def measured_crossing(ratios: dict[int, float]) -> float:
    """New tokens at which re-projected and absorbed take the same time: between the two counts
    where the ratio of their times passes 1, on a line in logarithms. NaN where it does not.
    """
    points = sorted(ratios.items())
    for (few, above), (many, below) in pairwise(points):
        if above > 1 >= below:
            share = math.log(above) / (math.log(above) - math.log(below))
            return few * (many / few) ** share
    return math.nan


def crossing_by_seconds(rows: list[dict]) -> float:
    """The same sum in seconds, of one context's rows: what making all keys and values takes, over
    what a new token saves by them. NaN where it saves nothing.
    """
    few, many = (f(r["new"] for r in rows) for f in (min, max))
    time = lambda way, new: only(rows, way=way, new=new)["median"]
    making = time("re-projected", few) - time("kept heads", few)
    saved = (time("absorbed", many) - time("kept heads", many)) / many
    return making / saved if saved > 0 else math.nan


def attentions(mixer, new: int, context: int, device: str) -> dict:
    """way -> a function that attends from the last `new` of `context` tokens: [new,H,Ev]."""
    draw = torch.Generator(device).manual_seed(0)
    noise = partial(torch.randn, generator=draw, device=device)
    q = noise(new, mixer.H, mixer.nope + mixer.turn)
    latents = noise(1, context, 1, mixer.C + mixer.turn)
    positions = torch.arange(context, device=device)[None]
    step = Step.of([(0, context - new, [0] * new)], device)
    # what plain multi-head attention would have kept: keys and values of every head
    latent, turned = latents.split([mixer.C, mixer.turn], 3)
    kv = torch.einsum("rsgc,hec->rshe", latent, mixer.kv_up)
    k, v = kv.split([mixer.nope, mixer.v_dim], 3)
    k, v = torch.cat([k, turned.expand(-1, -1, mixer.H, -1)], 3), v.contiguous()
    ways = {
        "absorbed": partial(mixer.absorbed, q, latents, positions, step),
        "re-projected": partial(mixer.reprojected, q, latents, positions, step),
        "kept heads": partial(attend, q, k, v, positions, step, mixer.scale),
    }
    return {way: torch.inference_mode()(fn) for way, fn in ways.items()}


def run(device, *, contexts, new, repeats):
    """A row for each context, number of new tokens, and way."""
    mixer = layer.make(LITE, device=device)
    rows = []
    cases = [(context, n) for context in contexts for n in new]
    for context, n in progress(cases, "new tokens"):
        ways = attentions(mixer, n, context, device)
        outs = {way: fn() for way, fn in ways.items()}
        largest = outs["absorbed"].abs().max()
        gaps = {w: ((o - outs["absorbed"]).abs().max() / largest).item() for w, o in outs.items()}
        # a few rounds less where one takes long
        took = bench.rounds(
            {way: partial(_seconds, fn, device) for way, fn in ways.items()},
            repeats=repeats if n < 128 else max(2, repeats - 2),
            device=device,
        )
        ratios = [b / a for a, b in zip(took["absorbed"], took["re-projected"])]
        for way in WAYS:
            m = bench.summarise(took[way], flops=costs(LITE, n, context)[way], device=device)
            rows.append(
                m.to_row(
                    context=context,
                    new=n,
                    way=way,
                    ratio=statistics.median(ratios),
                    ratio_low=min(ratios),
                    ratio_high=max(ratios),
                    gap=gaps[way],
                    flops_ratio=costs(LITE, n, context)["re-projected"]
                    / costs(LITE, n, context)["absorbed"],
                    cache_bytes=4 * held(LITE, context)[way],
                    derived=crossing(LITE, context),
                )
            )
    for context in contexts:
        of = where(rows, context=context)
        found = measured_crossing({r["new"]: r["ratio"] for r in of})
        by_seconds = crossing_by_seconds(of)
        for r in of:
            r["by_seconds"] = None if math.isnan(by_seconds) else by_seconds
            r["measured"] = None if math.isnan(found) else found
    return rows


def _seconds(fn, device: str) -> float:
    return bench.timed(fn, device)[0]


def go(rows):
    for r in rows:
        where_ = f"{r['new']} new tokens over {r['context']:,}, {r['way']}"
        if not r["gap"] <= 1e-3:
            return (
                f"{where_}: differs from absorbed by {r['gap']:.1e} of the largest output:"
                " the three ways must be one function, so look at scale, mask and the"
                " order of the parts"
            )
        if r["flops"] != costs(LITE, r["new"], r["context"])[r["way"]]:
            return f"{where_}: {r['flops']:,} FLOPs are not what the formula says: count again"


def pays(rows):
    for r in rows:
        if r["new"] == 1 and r["context"] >= 2000 and r["ratio"] < 5:
            return (
                f"at {r['context']:,} tokens absorbing one new token is only {r['ratio']:.1f} times"
                " as fast as re-projecting, where 5 is usual: are keys still made for all of them?"
            )
        if r["new"] == 512 and r["ratio"] > 1:
            return (
                f"at {r['context']:,} tokens absorbing still wins for 512 new tokens"
                f" ({r['ratio']:.2f} times as fast): by FLOPs it should lose from"
                f" {r['derived']:.0f} on, so look whether both ways run the same matrix products"
            )


def plot(rows):
    context = max(r["context"] for r in rows)
    new = sorted({r["new"] for r in rows})
    per_token = {
        way: [1e3 * only(rows, context=context, new=n, way=way)["median"] / n for n in new]
        for way in WAYS
    }
    return plotting.lines(
        new,
        per_token,
        log_x=True,
        log_y=True,
        x_label="new tokens in a step",
        y_label="milliseconds for each of them",
        alt=f"Milliseconds per new token in one MLA layer with {context:,} tokens in all, from"
        f" {new[0]} to {new[-1]} new tokens in a step: "
        + "; ".join(f"{way} {ms[0]:.2f} to {ms[-1]:.2f}" for way, ms in per_token.items()),
    )


def notice(rows):
    r = max(rows, key=lambda r: r["context"])
    found = f"at {r['measured']:.0f}" if r["measured"] else "not reached in the sizes of this run"
    return (
        "Both ways read the same latents. Re-projecting pays once for each cached token, absorbing"
        f" a little more for each pair of tokens. At {r['context']:,} tokens of context they cost"
        f" the same FLOPs at {r['derived']:.0f} new tokens. The clocks cross where the ratio passes"
        f" 1, {found}: absorbing is one tall product for all heads, and a processor does more of"
        " its FLOPs in a second."
    )


LAB = Lab(
    title="When not to absorb",
    objective=(
        "Time absorbed, re-projected and plainly kept attention from 1 to 512 new tokens, and find"
        " where the first two cross."
    ),
    asks="Do three ways give one answer, and does the cheaper one change sides as FLOPs say?",
    notice=notice,
    columns={
        "context": "context",
        "new": "new tokens",
        "way": "attention",
        "median": "seconds|.5f",
        "iqr": "quartiles apart|.5f",
        "flops": "FLOPs|,",
        "ratio": "re-projected / absorbed|.2f",
        "ratio_low": "lowest round|.2f",
        "ratio_high": "highest round|.2f",
        "flops_ratio": "the same in FLOPs|.2f",
        "gap": "largest difference|.1e",
        "cache_bytes": "cache bytes|,",
        "derived": "crossing, FLOPs|.0f",
        "by_seconds": "crossing, three speeds|.0f",
        "measured": "crossing, clock|.0f",
    },
    run=run,
    sizes={
        "full": {
            "contexts": [2048, 8000],
            "new": [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512],
            "repeats": 7,
        },
        "quick": {"contexts": [512], "new": [1, 16, 128], "repeats": 2},
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=2,
)

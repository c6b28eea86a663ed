"""CH02-FLASH: what attention costs in memory and time, with and without the T x T scores.

Two ways to the same numbers on one layer of SmolLM2's shape: scores written out, and torch's fused
kernel (tiles and online softmax inside). Peak memory is measured in a process of its own. All on
the CPU, whatever the device. Beside it a few tokens go through the course's own tiles: their trace
drives the player and the clip.
"""

from labkit import bench, plotting
from labkit.lab import Lab, Recorded
from labkit.tables import only, progress, series
from labkit_labs.ch02_kv_cache.memory import growth

HEADS, HEAD_DIM = 9, 64  # SmolLM2's
KINDS = ("written out", "fused")
SMALL = {"tokens": 12, "head_dim": 4, "tile": 4}  # to watch: the page's example, and its clip's


def attend(kind: str, T: int):
    """A function that does one causal attention over T tokens."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, HEADS, T, HEAD_DIM, generator=generator)
    causal = torch.ones(T, T, dtype=torch.bool).tril()

    def written_out():
        # in one expression: a name would keep one square more alive
        scores = (q @ k.transpose(-1, -2) / HEAD_DIM**0.5).masked_fill(~causal, float("-inf"))
        return scores.softmax(-1) @ v

    def fused():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return {"written out": written_out, "fused": fused}[kind]


def warm(kind: str, T: int):
    """The same, once a small one has been done."""
    attend(kind, 64)()
    return attend(kind, T)


def small_example():
    """A few tokens in tiles, recorded."""
    import numpy as np

    from labkit.trace import record_attention

    shape = (3, SMALL["tokens"], SMALL["head_dim"])
    q, k, v = np.random.default_rng(0).standard_normal(shape)
    return record_attention(q, k, v, SMALL["tile"])


def run(device, *, contexts, repeats):
    """A row for each context and kind."""
    rows = []
    for T in progress(contexts, "contexts"):
        fns = {kind: attend(kind, T) for kind in KINDS}
        gap = (fns["written out"]() - fns["fused"]()).abs().max().item()
        times = bench.interleave(fns, repeats=repeats)
        for kind, m in times.items():
            rows.append(
                m.to_row(
                    kind=kind,
                    context=T,
                    peak_bytes=growth(warm, kind, T),
                    score_bytes=HEADS * T * T * 4,
                    gap=gap,
                    multiple=bench.multiple(times["written out"], m),
                )
            )
    return Recorded(rows, online_softmax=small_example())


def go(rows):
    for r in rows:
        if not r["gap"] <= 1e-4:
            return f"at {r['context']:,} tokens the two differ by {r['gap']:.1e}: look at the mask"
        if r["kind"] == "fused" and r["context"] >= 2048:
            other = only(rows, kind="written out", context=r["context"])
            if r["peak_bytes"] >= other["peak_bytes"]:
                return (
                    f"at {r['context']:,} tokens the fused kernel takes as much memory as the"
                    " scores written out: look which kernel torch chose"
                )


def plot(rows):
    contexts = sorted({r["context"] for r in rows})
    megabytes = series(rows, "kind", "peak_bytes", 1e-6)
    return plotting.lines(
        contexts,
        megabytes,
        x_label="tokens",
        y_label="MB at the peak",
        alt=f"Peak memory of one attention over {contexts[0]:,} to {contexts[-1]:,} tokens: "
        + "; ".join(
            f"{kind} from {mb[0]:,.1f} to {mb[-1]:,.1f} MB" for kind, mb in megabytes.items()
        ),
    )


def notice(rows):
    short = min(r["context"] for r in rows)
    long = max(r["context"] for r in rows)
    megabytes = series(rows, "kind", "peak_bytes", 1e-6)
    grows = {kind: f"from {mb[0]:,.1f} to {mb[-1]:,.1f} MB" for kind, mb in megabytes.items()}
    return (
        "The fused kernel saves at most half of the multiplications (tiles behind the diagonal)."
        f" What it saves is bytes: from {short:,} to {long:,} tokens, {long / short:.0f} times the"
        f" context, the written-out form's memory grows {grows['written out']}, the fused one's"
        f" {grows['fused']}. At {long:,} tokens that is"
        f" {megabytes['fused'][-1] / megabytes['written out'][-1]:.1%} of it."
    )


LAB = Lab(
    title="Online softmax: the scores that are never written",
    objective=(
        "Compare attention with its scores written out to the fused kernel: same numbers, other"
        " memory."
    ),
    asks="Are the two attentions one function, and does the fused one need less memory?",
    notice=notice,
    columns={
        "context": "tokens",
        "kind": "attention",
        "median": "seconds|.4f",
        "multiple": "times faster|.1f",
        "peak_bytes": "peak bytes|,",
        "score_bytes": "of T x T scores|,",
        "gap": "largest difference|.1e",
    },
    run=run,
    sizes={
        "full": {"contexts": [256, 512, 1024, 2048, 4096], "repeats": 7},
        "quick": {"contexts": [256, 512], "repeats": 2},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=2,
    cpu_only=True,
)

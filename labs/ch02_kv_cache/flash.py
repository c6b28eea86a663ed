"""CH02-FLASH: what attention costs in memory and time, with and without the T x T scores.

Two ways to the same numbers on one layer of SmolLM2's shape: scores written out, and torch's fused
kernel (tiles and online softmax inside). Peak memory is measured in a process of its own.
"""

from labkit.lab import Lab

CONTEXTS = [256, 512, 1024, 2048, 4096]


def attend(kind: str, T: int):
    """One causal attention of 9 heads of 64, SmolLM2's, over T tokens."""
    import torch
    import torch.nn.functional as F

    q, k, v = torch.randn(3, 1, 9, T, 64, generator=torch.Generator().manual_seed(0))
    causal = torch.ones(T, T, dtype=torch.bool).tril()

    def written_out():
        scores = (q @ k.transpose(-1, -2) / 8).masked_fill(~causal, float("-inf"))
        return scores.softmax(-1) @ v

    def fused():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return {"written out": written_out, "fused": fused}[kind]


def peak(kind: str, T: int) -> int:
    """Bytes the process grew by while attending once, in this process: call it in a fresh one."""
    from labkit import bench

    attend(kind, 64)()
    fn = attend(kind, T)
    before = bench.resident_bytes()
    with bench.PeakMemory() as measured:
        fn()
    return max(0, measured.bytes - before)


def run(device="cpu", quick=False):
    import multiprocessing

    import torch

    from labkit import bench
    from labkit.tables import progress

    torch.set_num_threads(1)
    rows = []
    for T in progress(CONTEXTS[:2] if quick else CONTEXTS, "contexts"):
        fns = {kind: attend(kind, T) for kind in ("written out", "fused")}
        gap = (fns["written out"]() - fns["fused"]()).abs().max().item()
        times = bench.interleave(fns, repeats=2 if quick else 7)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            grown = {kind: pool.apply(peak, (kind, T)) for kind in fns}
        for kind, m in times.items():
            rows.append(
                m.to_row(
                    kind=kind,
                    context=T,
                    peak_bytes=grown[kind],
                    score_bytes=9 * T * T * 4,
                    gap=gap,
                    multiple=bench.multiple(times["written out"], m),
                )
            )
    return rows


def go(rows):
    for r in rows:
        if not r["gap"] <= 1e-4:
            return f"at {r['context']:,} tokens the two differ by {r['gap']:.1e}: look at the mask"
        other = next(o for o in rows if o["context"] == r["context"] and o["kind"] == "written out")
        if r["kind"] == "fused" and r["context"] >= 2048 and r["peak_bytes"] >= other["peak_bytes"]:
            return (
                f"at {r['context']:,} tokens the fused kernel takes as much memory as the scores"
                " written out: look which kernel torch chose"
            )


def plot(rows):
    from labkit import plotting

    contexts = sorted({r["context"] for r in rows})
    series = {
        kind: [
            next(r["peak_bytes"] for r in rows if r["kind"] == kind and r["context"] == T) / 1e6
            for T in contexts
        ]
        for kind in ("written out", "fused")
    }
    return plotting.lines(
        contexts,
        series,
        x_label="tokens",
        y_label="MB at the peak",
        alt=(
            "Peak memory of one attention by context: written out "
            "it grows with the square of the context, fused with the context."
        ),
    )


LAB = Lab(
    asks="Are the two attentions one function, and does the fused one need less memory?",
    title="Online softmax: the scores that are never written",
    minutes=2,
    objective=(
        "Compare attention with its scores written out to the fused kernel: same numbers, other"
        " memory."
    ),
    notice=(
        "The fused kernel saves at most half of the multiplications (tiles behind the diagonal)."
        " What it saves is bytes: four times the context costs the written-out form about fifteen"
        " times the memory, and the fused one three to six times. At 4,096 tokens the fused one"
        " takes less than a hundredth."
    ),
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
    plot=plot,
    go=go,
)

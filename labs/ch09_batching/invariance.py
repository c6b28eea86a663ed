"""CH09-INVARIANCE: does a request's company change its reply?

The same requests alone and in batches, in fp32, bf16 and int8.
"""

from labkit import plotting
from labkit.lab import Lab
from labkit.tables import listed, progress, where

SHARED = 256  # tokens of the system prompt, which are left out
EQUAL = 20  # tokens of a prompt, where all have equally many
BATCHES = (2, 4, 8, 16)


def models(device: str) -> dict:
    """dtype -> model."""
    from labkit import quant
    from labkit.weights import smollm2

    plain, tokenizer = smollm2("fp32", device, packed=False)
    smoothed = quant.smooth(plain, tokenizer.encode(quant.read_text("calibration")))
    return {
        "fp32": smollm2("fp32", device)[0],
        "bf16": smollm2("bf16", device)[0],
        "w8a8": quant.quantize(smoothed, "w8a8"),
    }


def emulated(dtype: str, device: str) -> bool:
    """Is this bf16 on a processor that has no arithmetic for it?"""
    from labkit.linear import has_bf16

    return dtype == "bf16" and device == "cpu" and not has_bf16()


def decode(model, prompts: list[list[int]], new: int):
    """Greedy replies of a batch, and the logits behind every token: [new,R,V]."""
    import torch

    from labkit.decode import replies, stream

    tokens = []
    logits = []
    for step in stream(model, prompts, new, stop=()):
        tokens.append(step.tokens)
        logits.append(step.logits.float().clone())
    return replies(tokens), torch.stack(logits)


def compare(alone: list, replies: list[list[int]], logits) -> dict:
    """How far logits moved while both had the same past, and how much of the replies stayed: up to
    their first other token.

    alone: of the first requests, (reply, logits [new,V]) each. logits: [new,R,V] of the batch.
    """
    gap = 0.0
    same = []
    new = len(logits)
    for i, (reply, before) in enumerate(alone):
        same.append(next((t for t in range(new) if replies[i][t] != reply[t]), new))
        past = same[i] + 1
        gap = max(gap, (logits[:past, i] - before[:past]).abs().max().item())
    return {
        "gap": gap,
        "same_tokens": sum(same) / new / len(same),
        "same_replies": sum(n == new for n in same) / len(same),
    }


def one_layer(model, device: str) -> dict[int, float]:
    """The first row's output of one linear layer: largest difference between alone and among n
    rows, by n.
    """
    import torch

    layer = model.blocks[0].mixer.qkv
    x = torch.randn(BATCHES[-1], model.config.d_model, generator=torch.Generator().manual_seed(0))
    x = x.to(device, model.dtype)
    with torch.inference_mode():
        return {n: (layer(x[:n])[:1] - layer(x[:1])).abs().max().item() for n in BATCHES}


def run(device, *, batches, watched, new, new_emulated):
    """Rows by dtype: of one layer, of prompts of equal length, and of mixed.

    watched: of so many requests the replies are compared. new: tokens of a reply. new_emulated:
    where bf16 is emulated, which is slow.
    """
    from labkit_labs.common import workload

    mixed = [job.prompt[SHARED:] for job in workload.jobs()[: batches[-1]]]
    equal = [prompt[:EQUAL] for prompt in mixed]
    rows = []
    for dtype, model in progress(models(device).items(), "dtypes"):
        length = new_emulated if emulated(dtype, device) else new
        rows += [
            {"what": "one layer", "dtype": dtype, "batch": n, "gap": gap}
            for n, gap in one_layer(model, device).items()
        ]
        for what, prompts, sizes in (
            ("prompts of equal length", equal, batches[-1:]),
            ("prompts of mixed length", mixed, batches),
        ):
            singles = [decode(model, [prompt], length) for prompt in prompts[:watched]]
            for batch in sizes:
                alone = [(replies[0], logits[:, 0]) for replies, logits in singles[:batch]]
                found = compare(alone, *decode(model, prompts[:batch], length))
                rows.append(
                    {
                        "what": what,
                        "dtype": dtype,
                        "batch": batch,
                        "requests": len(alone),
                        "new": length,
                        **found,
                    }
                )
    return rows


def go(rows):
    for r in rows:
        if r["dtype"] == "fp32" and r.get("same_tokens", 1) < 1:
            return (
                f"in fp32 only {r['same_tokens']:.0%} of the tokens stay in a batch of {r['batch']}"
                f" (logits off by {r['gap']:.1e}): above 1e-3 look at masks and positions, below it"
                " at how close the two best tokens were"
            )


def plot(rows):
    gaps = {}
    for r in where(rows, what="prompts of mixed length"):
        # a logarithmic axis has no 0
        gaps.setdefault(r["dtype"], {})[r["batch"]] = max(r["gap"], 1e-7)
    return plotting.lines(
        list(next(iter(gaps.values()))),
        {dtype: list(by_batch.values()) for dtype, by_batch in gaps.items()},
        log_y=True,
        x_label="requests in the batch",
        y_label="largest change of a logit",
        alt="Largest change of a logit against the request alone, by batch: "
        + "; ".join(
            f"{dtype} " + ", ".join(f"{gap:.1e} at {batch}" for batch, gap in by_batch.items())
            for dtype, by_batch in gaps.items()
        ),
    )


def notice(rows):
    mixed = where(rows, what="prompts of mixed length")

    def largest(rows, dtype):
        return max(r["gap"] for r in where(rows, dtype=dtype))

    stay = [
        f"{min(r['same_tokens'] for r in where(mixed, dtype=dtype)):.0%} in {dtype}"
        for dtype in ("fp32", "bf16", "w8a8")
    ]
    layers = [
        f"{largest(where(rows, what='one layer'), dtype):.1e} in {dtype}"
        for dtype in ("fp32", "w8a8")
    ]
    return (
        "Another number of rows can make a matrix product add in another order, so in floating"
        " point a request's logits may depend on its company. A text stays while they move by less"
        " than the lead of its best token: with prompts of mixed length by at most"
        f" {largest(mixed, 'fp32'):.1e} in fp32, {largest(mixed, 'bf16'):.1e} in bf16 and"
        f" {largest(mixed, 'w8a8'):.1e} in w8a8. Of the tokens {listed(stay)} stay in the batch"
        " that changes most. In whole numbers sums have no order: alone and among others a"
        f" layer's output is apart by at most {listed(layers)}. What still moves there is"
        " attention, which adds in another order, and rounding to 8 bits makes a large step of it."
    )


LAB = Lab(
    title="Batch invariance",
    objective=(
        "Decode the same requests alone and beside 1 to 15 others; measure how far their logits"
        " move, and how many greedy tokens stay."
    ),
    asks="Are the tokens in fp32 those of the request alone, whatever the batch?",
    notice=notice,
    columns={
        "what": "what",
        "dtype": "dtype",
        "batch": "batch",
        "gap": "largest change|.1e",
        "new": "tokens",
        "same_tokens": "tokens that stay|.1%",
        "same_replies": "replies that stay|.0%",
    },
    run=run,
    sizes={
        "full": {"batches": BATCHES, "watched": 4, "new": 64, "new_emulated": 16},
        "quick": {"batches": BATCHES[:1], "watched": 1, "new": 3, "new_emulated": 3},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=3,
)

"""CH09-INVARIANCE: does a request's company change its reply?

The same requests alone and in batches, in fp32, bf16 and int8.
"""

from labkit.lab import Lab

SHARED, SIZES = 256, (2, 4, 8, 16)


def models(device: str) -> dict:
    """dtype -> (model, tokens of a reply). bf16 without the processor's own arithmetic is emulated,
    slowly.
    """
    from labkit import quant
    from labkit.linear import has_bf16
    from labkit.weights import smollm2

    plain, tokenizer = smollm2("fp32", device, packed=False)
    eight = quant.quantize(
        quant.smooth(plain, tokenizer.encode(quant.text("calibration"))), "w8a8", rows=SIZES[-1]
    )
    return {
        "fp32": (smollm2("fp32", device)[0], 64),
        "bf16": (smollm2("bf16", device)[0], 64 if has_bf16() or device != "cpu" else 16),
        "w8a8": (eight, 64),
    }


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
    """
    gap, same, new = 0.0, [], len(logits)
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
    x = torch.randn(SIZES[-1], model.config.d_model, generator=torch.Generator().manual_seed(0))
    x = x.to(device, model.dtype)
    with torch.inference_mode():
        return {n: (layer(x[:n])[:1] - layer(x[:1])).abs().max().item() for n in SIZES}


def run(device="cpu", quick=False):
    import torch

    from labkit.tables import progress
    from labkit_labs.common import workload as serving

    torch.set_num_threads(1)
    sizes, watched = (SIZES[:1], 1) if quick else (SIZES, 4)
    mixed = [job.prompt[SHARED:] for job in serving.jobs()[: sizes[-1]]]
    rows = []
    for dtype, (model, new) in progress(models(device).items(), "dtypes"):
        new = 3 if quick else new
        rows += [
            {"what": "one layer", "dtype": dtype, "batch": n, "gap": gap}
            for n, gap in one_layer(model, device).items()
        ]
        for lengths, prompts, batches in (
            ("equal", [p[:20] for p in mixed], sizes[-1:]),
            ("mixed", mixed, sizes),
        ):
            singles = [decode(model, [p], new) for p in prompts[:watched]]
            for batch in batches:
                alone = [(replies[0], logits[:, 0]) for replies, logits in singles[:batch]]
                found = compare(alone, *decode(model, prompts[:batch], new))
                rows.append(
                    {
                        "what": f"prompts of {lengths} length",
                        "dtype": dtype,
                        "batch": batch,
                        "requests": len(alone),
                        "new": new,
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
    from labkit import plotting

    series = {}
    for r in rows:
        if r["what"] == "prompts of mixed length":
            series.setdefault(r["dtype"], {})[r["batch"]] = max(r["gap"], 1e-7)
    return plotting.lines(
        list(next(iter(series.values()))),
        {dtype: list(gaps.values()) for dtype, gaps in series.items()},
        log_y=True,
        x_label="requests in the batch",
        y_label="largest change of a logit",
        alt="Largest change of a logit against the request alone, by batch: "
        + "; ".join(
            f"{dtype} " + ", ".join(f"{gap:.1e} at {batch}" for batch, gap in gaps.items())
            for dtype, gaps in series.items()
        ),
    )


LAB = Lab(
    asks="Are the tokens in fp32 those of the request alone, whatever the batch?",
    title="Batch invariance",
    minutes=3,
    objective=(
        "Decode the same requests alone and beside 1 to 15 others; measure how far their logits"
        " move, and how many greedy tokens stay."
    ),
    notice=(
        "Another number of rows makes a matrix product add in another order, so in floating point a"
        " request's logits depend on its company. In fp32 they move by less than the lead of the"
        " best token, and the text stays. In whole numbers sums have no order: W8A8's layers do not"
        " move by a bit. With prompts of mixed length attention still adds in another order, and"
        " rounding to 8 bits makes a large step of it."
    ),
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
    plot=plot,
    go=go,
)

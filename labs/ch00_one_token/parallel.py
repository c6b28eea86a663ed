"""CH00-PARALLEL: the losses of a text, at all positions in one pass and one position at a time.

In training the whole text is known, so one pass scores every position. Asked for one position after
the other, as when it writes, the same model gives the same losses and takes a pass for each. The
control is a pass without the mask: there a position sees the token that it has to predict.
"""

from functools import partial

import numpy as np

from labkit import bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import only

PARALLEL, CACHED, ONE_BY_ONE = "in parallel", "in sequence, cached", "in sequence"
UNMASKED = "in parallel, no mask"


def in_parallel(model, tokens):
    """Nats at each position but the first, from one pass over all that have a next token."""
    from labkit_labs.common import corpus

    return corpus.losses(model, tokens).numpy()


def in_sequence(model, tokens, cache):
    """The same, a pass for each position: over all tokens so far, or over the newest alone."""
    import torch

    from labkit.step import Step

    losses = []
    with torch.inference_mode():
        caches = model.caches(cache, 1, len(tokens))
        for t in range(1, len(tokens)):
            fed = (0, 0, tokens[:t]) if cache == "none" else (0, t - 1, tokens[t - 1 : t])
            step = Step.of([fed], model.device)
            logits = model(step, caches, step.last)[-1].float()
            losses.append(float(logits.logsumexp(-1) - logits[tokens[t]]))
    return np.array(losses)


def unmasked(model, tokens):
    """One pass in which every position sees all others; in NumPy, where the mask is one line."""
    from labkit.reference import TinyGPT, softmax
    from labkit_labs.ch00_one_token.watched import Watched

    class Unmasked(Watched):
        def look(self, q, k, v, pos):  # as if all stood at the end
            return super().look(q, k, v, np.full_like(pos, pos[-1]))

    p = softmax(Unmasked(model.config, TinyGPT.of(model).weights).forward(tokens)[:-1])
    return -np.log(p[np.arange(len(tokens) - 1), tokens[1:]])


def work(config, tokens, way):
    """FLOPs: every pass in parallel scores all its positions, one in sequence scores its last."""
    scored = 2 * config.d_model * config.vocab_size
    if way in (PARALLEL, UNMASKED):
        return formulas.prefill_flops(config, tokens) + (tokens - 1) * scored
    if way == CACHED:
        return sum(formulas.decode_flops(config, t) for t in range(1, tokens))
    return sum(formulas.prefill_flops(config, t) for t in range(1, tokens))


def run(device, *, tokens, repeats):
    """A row for each way. tokens: of the text. repeats: rounds."""
    from labkit.weights import smollm2
    from labkit_labs.common import corpus

    model, tokenizer = smollm2("fp32", device, packed=False)
    text = corpus.prose(tokenizer, tokens)
    ways = {
        PARALLEL: partial(in_parallel, model),
        CACHED: partial(in_sequence, model, cache="static"),
        ONE_BY_ONE: partial(in_sequence, model, cache="none"),
        UNMASKED: partial(unmasked, model),
    }
    runs = bench.rounds(
        {way: partial(bench.timed, partial(f, text), device) for way, f in ways.items()},
        repeats=repeats,
        warmup={way: partial(bench.timed, partial(f, text[:8]), device) for way, f in ways.items()},
        label="rounds",
    )
    made = {
        way: bench.summarise(
            [seconds for seconds, _ in each], flops=work(model.config, tokens, way)
        )
        for way, each in runs.items()
    }
    losses = {way: each[-1][1] for way, each in runs.items()}
    return [
        m.to_row(
            way=way,
            tokens=tokens,
            passes=1 if way in (PARALLEL, UNMASKED) else tokens - 1,
            nll=float(losses[way].mean()),
            gap=float(np.abs(losses[way] - losses[PARALLEL]).max()),
            times_slower=bench.multiple(m, made[PARALLEL]),
            times_work=m.flops / made[PARALLEL].flops,
        )
        for way, m in made.items()
    ]


def go(rows):
    for way in (CACHED, ONE_BY_ONE):
        gap = only(rows, way=way)["gap"]
        if not gap < 1e-2:
            return (
                f"{way} a loss differs by {gap:.1e} nats from the one in parallel: look at the"
                " positions, and at which logits score which token"
            )
    gap = only(rows, way=UNMASKED)["gap"]
    if not gap > 0.1:
        return (
            f"without the mask no loss moves by more than {gap:.1e} nats: then the comparison would"
            " not see a wrong mask either; look whether it is off"
        )


def pays(rows):
    slower = only(rows, way=ONE_BY_ONE)["times_slower"]
    if slower < 2:
        return (
            f"in sequence takes {slower:.1f} times as long as in parallel: look whether it runs a"
            " pass for each position"
        )


def plot(rows):
    slow, cached = (only(rows, way=way) for way in (ONE_BY_ONE, CACHED))
    ratios = {
        f"{r['way']}: {what}": r[key]
        for r in (slow, cached)
        for what, key in (("seconds", "times_slower"), ("FLOPs", "times_work"))
    }
    return plotting.bars(
        ratios,
        x_label="times what the losses take in parallel",
        form="{:.1f}",
        alt="Times what the losses take in parallel: "
        + ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items()),
    )


def notice(rows):
    slow, cached, control = (only(rows, way=w) for w in (ONE_BY_ONE, CACHED, UNMASKED))
    return (
        f"The same {slow['passes']} losses, to {slow['gap']:.0e} nats. In sequence they take"
        f" {slow['times_slower']:.0f} times as long for {slow['times_work']:.0f} times the"
        f" arithmetic; with a cache {cached['times_slower']:.0f} times as long for"
        f" {cached['times_work']:.1f} times the arithmetic: one token at a time leaves a machine"
        f" waiting. Without the mask losses differ by up to {control['gap']:.1f} nats: the mask is"
        " what makes the two the same."
    )


LAB = Lab(
    title="Trained in parallel, used in sequence",
    objective=(
        "Score every position of a text in one pass, and in a pass for each position; compare the"
        " losses, the seconds and the work."
    ),
    asks=(
        "Are the losses the same to a hundredth of a nat, and others without the mask; and does one"
        " pass for each position take at least twice as long?"
    ),
    notice=notice,
    columns={
        "way": "losses",
        "passes": "passes",
        "nll": "nats per token|.3f",
        "gap": "largest difference|.0e",
        "median": "seconds|.2f",
        "iqr": "iqr|.2f",
        "times_slower": "times as long|.1f",
        "times_work": "times the FLOPs|.1f",
    },
    run=run,
    sizes={"full": {"tokens": 128, "repeats": 3}, "quick": {"tokens": 24, "repeats": 1}},
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=1.5,
)

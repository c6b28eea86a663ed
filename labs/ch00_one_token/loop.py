"""CH00-LOOP: how long the course's own NumPy loop takes for a token.

SmolLM2 in `labkit.reference.TinyGPT`, written to be read. It runs the whole text for every token;
then with its cache; then with one thing changed, found with a profiler: attention multiplies by a
64-bit number, and from there on all is computed in 64 bits, weights turned into 64 bits included.
"""

from functools import partial

import numpy as np

from labkit import bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import only, progress, series

AS_IT_IS, IN_32 = "as it is", "all in 32 bits"


def models():
    """name -> SmolLM2 in NumPy."""
    from labkit.reference import TinyGPT
    from labkit.weights import smollm2
    from labkit_labs.ch00_one_token.watched import Watched

    smol, tokenizer = smollm2("fp32", "cpu", packed=False)
    whole = TinyGPT.of(smol)
    return {AS_IT_IS: whole, IN_32: Watched(smol.config, whole.weights)}, tokenizer


def next_token(model, text, cached: bool):
    """A function that makes the token behind a text, from all of it or from its last token."""
    from labkit.reference import Cache

    if not cached:
        return lambda: model.forward(text)[-1]
    cache = Cache(model.config.n_layers)
    model.forward(text[:-1], cache)
    kept = list(cache.keys), list(cache.values)

    def step():
        cache.keys, cache.values = (list(each) for each in kept)
        return model.forward(text[-1:], cache)[-1]

    return step


def run(device, *, contexts, repeats):
    """A row for each number of tokens, each model, with and without its cache."""
    numpy, tokenizer = models()
    rows = []
    for context in progress(contexts, "contexts"):
        text = bench.prompt(tokenizer, context)
        steps = {
            (way, cached): next_token(model, text, cached)
            for way, model in numpy.items()
            for cached in (False, True)
        }
        runs = bench.rounds(
            {key: partial(bench.timed, step) for key, step in steps.items()}, repeats=repeats
        )
        right = runs[AS_IT_IS, False][-1][1]
        made = {key: bench.summarise([s for s, _ in each]) for key, each in runs.items()}
        rows += [
            m.to_row(
                way=way,
                cache=cached,
                context=context,
                milliseconds=1e3 * m.median,
                multiple=bench.multiple(made[AS_IT_IS, False], m),
                gap=float(np.abs(runs[way, cached][-1][1] - right).max()),
                bits=8 * runs[way, cached][-1][1].itemsize,
                gflops_per_second=flops(numpy[way].config, context, cached) / m.median / 1e9,
            )
            for (way, cached), m in made.items()
        ]
    return rows


def flops(config, context, cached):
    """Of one step. The NumPy loop scores every position that it feeds."""
    if cached:
        return formulas.decode_flops(config, context)
    scored = 2 * config.d_model * config.vocab_size
    return formulas.prefill_flops(config, context) + (context - 1) * scored


def go(rows):
    for r in rows:
        if not r["gap"] < 1e-2:
            return (
                f"{r['way']}, {r['context']} tokens: logits differ by {r['gap']:.1e}: look at the"
                " dtype, and at what the cache holds"
            )
        if r["bits"] != (32 if r["way"] == IN_32 else 64):
            return (
                f"{r['way']} the logits have {r['bits']} bits: look for a number of 64 bits that"
                " takes all others along"
            )


def pays(rows):
    longest = max(r["context"] for r in rows)
    for way in (AS_IT_IS, IN_32):
        naive, cached = (only(rows, way=way, cache=c, context=longest) for c in (False, True))
        if cached["milliseconds"] > naive["milliseconds"] / 2:
            return (
                f"{way}, at {longest} tokens, the cache makes a token"
                f" {naive['milliseconds'] / cached['milliseconds']:.1f} times as fast: look whether"
                " it feeds one token"
            )


def plot(rows):
    named = [r | {"line": f"{r['way']}, {'cached' if r['cache'] else 'all again'}"} for r in rows]
    lines = series(named, "line", "milliseconds")
    contexts = sorted({r["context"] for r in rows})
    return plotting.lines(
        contexts,
        lines,
        x_label="tokens of text",
        y_label="milliseconds for one more",
        log_x=True,
        log_y=True,
        alt=f"Milliseconds for one more token after {', '.join(map(str, contexts))} tokens: "
        + "; ".join(
            f"{name} {', '.join(f'{ms:.0f}' for ms in each)}" for name, each in lines.items()
        ),
    )


def notice(rows):
    contexts = sorted({r["context"] for r in rows})
    at = lambda context, way=AS_IT_IS, cache=False: only(
        rows, way=way, cache=cache, context=context
    )["milliseconds"]
    first, last = contexts[0], contexts[-1]
    return (
        f"One more token takes {at(first):,.0f} ms after {first} tokens and {at(last):,.0f} after"
        f" {last}: it runs all of them again. In 32 bits throughout it takes {at(last, IN_32):,.0f}"
        f" after {last}, {at(last) / at(last, IN_32):.1f} times less, for the same logits; with the"
        f" cache on top {at(last, IN_32, True):,.0f}, and hardly more than after {first}"
        f" ({at(first, IN_32, True):,.0f})."
    )


LAB = Lab(
    title="A token of the NumPy loop",
    objective=(
        "Time one token of the course's own NumPy model by the length of the text, with and without"
        " its cache, and with one needless 64-bit number taken out. NumPy takes all cores."
    ),
    asks=(
        "Are the logits the same in all ways, and does the cache make a token at least twice as"
        " fast after the longest text?"
    ),
    notice=notice,
    columns={
        "way": "NumPy",
        "cache": "cache",
        "context": "tokens of text",
        "milliseconds": "ms for one more|,.0f",
        "iqr": "iqr, s|.3f",
        "multiple": "times faster|.1f",
        "gflops_per_second": "GFLOP/s|.1f",
        "gap": "logits differ by|.0e",
    },
    run=run,
    sizes={
        "full": {"contexts": [16, 64, 256], "repeats": 3},
        "quick": {"contexts": [4, 12], "repeats": 1},
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=1,
    cpu_only=True,
)

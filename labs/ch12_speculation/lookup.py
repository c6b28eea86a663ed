"""CH12-LOOKUP: guesses that cost nothing, taken from the text so far: six kinds of task, one user
at a time.
"""

from dataclasses import replace

from labkit.lab import Lab, Recorded

COPY = "Correct the spelling of this text and change nothing else:\n\n"
CODE = (
    (
        'def mean(numbers):\n    """The mean of a list of numbers."""\n    if not numbers:\n       '
        ' raise ValueError("a number is needed")\n    return sum(numbers) / len(numbers)\n\n\ndef'
        ' largest(numbers):\n    """The largest of a list of numbers."""\n'
    ),
    (
        "def test_a_new_cache_is_empty():\n    cache = Cache(layers=4)\n    assert cache.length(0)"
        " == 0\n\n\ndef test_append_adds_one_token():\n"
    ),
)


def paragraphs() -> list[str]:
    """The longer paragraphs of the course's text."""
    from labkit.quant import text

    return [p for p in text("course").split("\n\n") if len(p) > 150]


def tasks() -> dict[str, list[str]]:
    """task -> what two users ask for."""
    passages = ["\n\n".join(paragraphs()[i : i + 2]) for i in (1, 4)]
    return {
        "copy-editing": [COPY + p for p in passages],
        "summary with quotes": [
            f"Summarize this text. Quote its key sentences word for word:\n\n{p}" for p in passages
        ],
        "code completion": [f"Complete this Python code:\n\n```python\n{code}```" for code in CODE],
        "question on a text": [
            f"{p}\n\nAnswer from this text: what is it about, and why does that matter?"
            for p in passages
        ],
        "translation": [
            (
                "Translate into English: Der Hund schläft. Die Katze sitzt auf dem Tisch und sieht"
                " den Hund an."
            ),
            (
                "Translate into French: The price of wheat rose by 12% in March; economists had"
                " expected 8%."
            ),
        ],
        "free chat": [
            "What should I think about before I adopt a dog?",
            "Tell me a story about a lighthouse keeper who finds a letter.",
        ],
    }


def copied(reply: list[int], prompt: list[int]) -> float:
    """Share of the reply's runs of 4 tokens that stand in its prompt."""
    runs = lambda tokens: [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    known = set(runs(prompt))
    return sum(r in known for r in runs(reply)) / max(1, len(runs(reply)))


def run(device="cpu", quick=False):
    import torch

    from labkit import bench
    from labkit.tables import progress
    from labkit.weights import smollm2
    from labkit_labs.ch12_speculation.watch import acceptance, engine, serve

    torch.set_num_threads(1)
    model, tokenizer = smollm2("fp32", device)
    new, rounds, users = (5, 1, 1) if quick else (48, 5, 2)
    prompts = {
        task: [tokenizer.chat(text[:200] if quick else text) for text in texts[:users]]
        for task, texts in tasks().items()
    }
    # users come one after another
    engines = {(task, way): engine(model, 1, way) for task in prompts for way in (None, "ngram")}
    for (task, _), one in engines.items():
        # reads the prompts, which stay in the blocks: drafts can't make a first token come sooner
        serve(one, prompts[task], 1)
    runs, rows = {key: [] for key in engines}, []
    for _ in progress(range(rounds), "rounds"):
        for (task, way), one in engines.items():
            runs[task, way].append(serve(one, prompts[task], new))
    for task, asked in prompts.items():
        without, took = (
            bench.summarise([sum(s.decodes) for s in runs[task, way]]) for way in (None, "ngram")
        )
        last = runs[task, "ngram"][-1]
        tokens = sum(len(reply) - 1 for reply in last.tokens)  # after the first one
        rows.append(
            took.to_row(
                task=task,
                new=tokens,
                copied=sum(map(copied, last.tokens, asked)) / len(asked),
                acceptance=acceptance(last.checks),
                tokens_per_forward=tokens / len(last.decodes),
                without=tokens / without.median,
                tokens_per_second=tokens / took.median,
                multiple=bench.multiple(without, took),
                same_tokens=last.tokens == runs[task, None][-1].tokens,
            )
        )
    return Recorded(rows, speculation_lookup=copied_passage(model, tokenizer))


def copied_passage(model, tokenizer):
    """The checks of one copied passage, recorded, with the reply and the words of every draft."""
    from labkit_labs.ch12_speculation.watch import engine, serve

    one = engine(model, 1, "ngram")
    served = serve(one, [tokenizer.chat(tasks()["copy-editing"][0])], 64)
    trace = one.trace("speculation")
    reply = served.tokens[0]
    drafted = [i for _, drafts, _ in served.checks for i in drafts]
    words = {str(i): tokenizer.decode([i]) for i in reply + drafted}
    return replace(trace, meta=trace.meta | {"reply": reply, "words": words})


def go(rows):
    for r in rows:
        if not r["same_tokens"]:
            return (
                f"{r['task']}: guesses changed the tokens; at the first that differs, compare the"
                " check's logits with those of single steps"
            )
    of = {r["task"]: r["tokens_per_forward"] for r in rows}
    if of["copy-editing"] < of["free chat"]:
        return (
            f"copy-editing takes {of['copy-editing']:.2f} tokens from a forward, free chat"
            f" {of['free chat']:.2f}: look at what is looked up"
        )


def plot(rows):
    from labkit import plotting

    times = {r["task"]: r["multiple"] for r in rows}
    return plotting.bars(
        times,
        x_label="times as fast with prompt lookup",
        form="{:.2f}",
        highlight="copy-editing",
        alt="Speed with prompt lookup over speed without: "
        + ", ".join(f"{task} {x:.2f}" for task, x in times.items()),
    )


LAB = Lab(
    asks=(
        "Does every task give the tokens that it gives without guesses, and copying more of them a"
        " forward than chatting?"
    ),
    title="Prompt lookup on six kinds of task",
    minutes=5,
    objective=(
        "Decode for one user at a time, with and without guesses from the text so far, on six kinds"
        " of task; see where they are right."
    ),
    notice=(
        "The tokens are the same, always. Where a reply repeats its prompt, a forward gives"
        " several; where it says something new, there is little to look up, and the engine's switch"
        " keeps the loss small. A small model that goes round in circles is easy to guess, too."
    ),
    columns={
        "task": "task",
        "new": "new tokens",
        "copied": "copied from the prompt|.0%",
        "acceptance": "acceptance|.0%",
        "tokens_per_forward": "tokens a forward|.2f",
        "without": "tokens/s without|.1f",
        "tokens_per_second": "with|.1f",
        "multiple": "times as fast|.2f",
        "same_tokens": "same tokens",
    },
    run=run,
    plot=plot,
    go=go,
)

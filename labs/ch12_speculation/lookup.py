"""CH12-LOOKUP: guesses that cost nothing, taken from the text so far: six kinds of task, one user
at a time.
"""

from dataclasses import replace
from functools import partial

from labkit import bench, plotting
from labkit.lab import Lab, Recorded
from labkit.tables import only

# what is recorded goes on with this, and has so many drafts a step
CODE = """\
def area(width, height):
    return width * height

def volume(width, height, depth):
    return"""
WATCHED = 6
RUN = 4  # tokens that stand in the prompt in this order are copied


def copied(reply: list[int], prompt: list[int]) -> float:
    """Share of the reply's runs of 4 tokens that stand in its prompt."""

    def runs(tokens):
        return [tuple(tokens[i : i + RUN]) for i in range(len(tokens) - RUN + 1)]

    known = set(runs(prompt))
    return sum(r in known for r in runs(reply)) / max(1, len(runs(reply)))


def run(device, *, users, characters, new, repeats):
    """A row for each task, and the checks of a few lines of code.

    users: of each task, one after another. characters: kept of what they ask; None = all. new:
    tokens of a reply.
    """
    from labkit.weights import smollm2
    from labkit_labs.ch12_speculation import watch
    from labkit_labs.common.tasks import tasks

    model, tokenizer = smollm2("fp32", device)
    prompts = {
        task: [tokenizer.chat(text[:characters]) for text in texts[:users]]
        for task, texts in tasks().items()
    }
    engines = {
        (task, guess): watch.engine(model, 1, guess)
        for task in prompts
        for guess in (None, "ngram")
    }

    def serve(new):
        return {
            (task, guess): partial(watch.serve, one, prompts[task], new)
            for (task, guess), one in engines.items()
        }

    # warm engines have read the prompts, which stay in the blocks: drafts can't make a first token
    # come sooner
    runs = bench.rounds(serve(new), repeats=repeats, warmup=serve(1), label="rounds")
    took = {
        key: bench.summarise([sum(served.decodes) for served in each]) for key, each in runs.items()
    }
    rows = []
    for task, asked in prompts.items():
        without = took[task, None]
        guessed = took[task, "ngram"]
        last = runs[task, "ngram"][-1]
        tokens = sum(len(reply) - 1 for reply in last.tokens)  # after the first one
        rows.append(
            guessed.to_row(
                task=task,
                new=tokens,
                copied=sum(map(copied, last.tokens, asked)) / len(asked),
                acceptance=watch.acceptance(last.checks),
                tokens_per_forward=tokens / len(last.decodes),
                without=tokens / without.median,
                tokens_per_second=tokens / guessed.median,
                multiple=bench.multiple(without, guessed),
                same_tokens=last.tokens == runs[task, None][-1].tokens,
            )
        )
    return Recorded(rows, speculation_lookup=written_code(model, tokenizer))


def written_code(model, tokenizer):
    """The checks of a few lines of code, recorded, with the reply and the words of every draft: few
    drafts a step, so that each can be read, and always as many.
    """
    from labkit_labs.ch12_speculation import watch

    one = watch.engine(model, 1, "ngram", drafts=WATCHED)
    served = watch.serve(one, [tokenizer.encode(CODE)], 30)
    trace = one.trace("speculation")
    reply = served.tokens[0]
    drafted = [i for _, drafts, _ in served.checks for i in drafts]
    words = {str(i): tokenizer.decode([i]) for i in reply + drafted}
    return replace(trace, meta=trace.meta | {"prompt": CODE, "reply": reply, "words": words})


def go(rows):
    for r in rows:
        if not r["same_tokens"]:
            return (
                f"{r['task']}: guesses changed the tokens; at the first that differs, compare the"
                " check's logits with those of single steps"
            )
    copy = only(rows, task="copy-editing")["tokens_per_forward"]
    chat = only(rows, task="free chat")["tokens_per_forward"]
    if copy < chat:
        return (
            f"copy-editing takes {copy:.2f} tokens from a forward, free chat"
            f" {chat:.2f}: look at what is looked up"
        )


def plot(rows):
    times = {r["task"]: r["multiple"] for r in rows}
    return plotting.bars(
        times,
        x_label="times as fast with prompt lookup",
        form="{:.2f}",
        highlight="copy-editing",
        alt="Speed with prompt lookup over speed without: "
        + ", ".join(f"{task} {x:.2f}" for task, x in times.items()),
    )


def notice(rows):
    most = max(rows, key=lambda r: r["tokens_per_forward"])
    least = min(rows, key=lambda r: r["tokens_per_forward"])
    slowest = min(rows, key=lambda r: r["multiple"])

    def told(r):
        return (
            f"{r['task']} repeats its prompt in {r['copied']:.0%} of its reply, and a forward gives"
            f" {r['tokens_per_forward']:.2f} tokens, for {r['multiple']:.2f} times the speed"
        )

    return (
        f"Guesses change no token. Where there is most to look up, {told(most)}; where there is"
        f" least, {told(least)}. The engine's switch is there to bound the loss:"
        f" the slowest, {slowest['task']}, has {slowest['multiple']:.2f} times the speed. A small"
        " model that goes round in circles is easy to guess, too."
    )


LAB = Lab(
    title="Prompt lookup on six kinds of task",
    objective=(
        "Decode for one user at a time, with and without guesses from the text so far, on six kinds"
        " of task; see where they are right."
    ),
    asks=(
        "Does every task give the tokens that it gives without guesses, and copying more of them a"
        " forward than chatting?"
    ),
    notice=notice,
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
    sizes={
        "full": {"users": 2, "characters": None, "new": 48, "repeats": 5},
        "quick": {"users": 1, "characters": 200, "new": 5, "repeats": 1},
    },
    threads=1,
    go=go,
    plot=plot,
    minutes=5,
)

"""CH07-MEMORY: a memory that is told something new about a name it knows.

Texts such as `a3 f0 a5 … a?` name a letter's digit, sometimes again with another one, and then ask:
the last digit counts. A small model of one gated delta layer learns it, with a matrix of 8 by 8.
Beside that matrix stands one that takes the same keys, values and step sizes and only adds them up,
as plain linear attention does. Its trace drives the chapter's player.
"""

from dataclasses import replace

from labkit.lab import Lab, Recorded
from labkit.tables import progress, series
from labkit.tables import where as rows_where

NAMES = "abcdefgh"
DIGITS = "01234567"
WORDS = NAMES + DIGITS  # a token's number is its place
TOLD, KNOWN = 8, 4  # what a text says, and about how many names
TEXTS = 48  # of one training step
MEMORIES = {"delta rule": "state", "only adds": "plain"}


def config():
    """One delta layer, one head of 8 by 8."""
    from labkit_labs.common import recall

    return recall.SHELL.replace(
        vocab_size=len(WORDS),
        n_layers=1,
        layer_types=("delta",),
        delta_n_key_heads=1,
        delta_n_value_heads=1,
        delta_key_dim=8,
        delta_value_dim=8,
    )


def texts(n: int, generator):
    """(tokens [n,T], where they ask [n,KNOWN], the right tokens [n,KNOWN]): every name is told at
    least once, and asked once.
    """
    import torch

    names = torch.rand(n, len(NAMES), generator=generator).topk(KNOWN).indices
    which = torch.cat(
        [
            torch.arange(KNOWN).expand(n, -1),
            torch.randint(KNOWN, (n, TOLD - KNOWN), generator=generator),
        ],
        dim=1,
    )
    which = which.gather(1, torch.rand(n, TOLD, generator=generator).argsort(1))
    digits = len(NAMES) + torch.randint(len(DIGITS), (n, TOLD), generator=generator)
    newest = torch.zeros(n, KNOWN, dtype=torch.long)
    for told in range(TOLD):  # in order: the last one stays
        newest.scatter_(1, which[:, told, None], digits[:, told, None])
    asks = torch.rand(n, KNOWN, generator=generator).argsort(1)
    said = torch.stack([names.gather(1, which), digits], dim=2).flatten(1)
    tokens = torch.cat([said, names.gather(1, asks)], dim=1)
    where = torch.arange(2 * TOLD, 2 * TOLD + KNOWN).expand(n, -1)
    return tokens, where, newest.gather(1, asks)


def answers(model, tokens, where):
    """Logits [n,KNOWN,V] where the texts ask."""
    from labkit import Step

    step = Step.of([(row, 0, ids) for row, ids in enumerate(tokens.tolist())], model.device)
    said = model(step, model.caches("none", *tokens.shape)).view(*tokens.shape, -1)
    return said.gather(1, where.to(said.device)[..., None].expand(-1, -1, said.shape[2]))


def trained(steps: int, device: str):
    """A model that has learned for so many steps to answer."""
    import torch
    import torch.nn.functional as F

    from labkit import GPT

    torch.manual_seed(0)
    model = GPT(config()).to(device)
    data = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), 6e-3, betas=(0.9, 0.95), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda done: min((done + 1) / 50, 1, max(0.05, (1 - done / steps) / 0.4))
    )
    for _ in progress(range(steps), "training steps"):
        tokens, where, right = texts(TEXTS, data)
        loss = F.cross_entropy(answers(model, tokens, where).flatten(0, 1), right.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
    return model.eval()


def asked_again(steps) -> list[dict]:
    """For each name of a recorded text: how often it was told, how large its last value is, and by
    how much each memory misses it once all is told.
    """
    import numpy as np

    told = {}  # a name is written where its digit is read
    for name, digit in zip(steps[0 : 2 * TOLD : 2], steps[1 : 2 * TOLD : 2]):
        told.setdefault(name.token, []).append(digit)
    last = steps[2 * TOLD - 1]
    found = []
    for times in told.values():
        key, value = np.array(times[-1].key), np.array(times[-1].value)
        missed = {
            memory: np.linalg.norm(key @ np.array(getattr(last, name)) - value)
            for memory, name in MEMORIES.items()
        }
        found.append({"told": len(times), "size": np.linalg.norm(value), **missed})
    return found


def run(device, *, training, recorded):
    """A row for each memory and how often a name was told, over so many recorded texts; and the
    trace of the first.

    training: steps that the model learns.
    """
    import torch

    from labkit.traces.state import record_state

    model = trained(training, device)
    tokens, where, right = texts(max(recorded, 500), torch.Generator().manual_seed(1))
    with torch.inference_mode():
        rightly = (answers(model, tokens, where).argmax(2).cpu() == right).float().mean().item()

    def decode(ids: list[int]) -> str:
        return WORDS[ids[0]]

    traces = [
        record_state(model, ids, decode=decode)
        for ids in progress(tokens[:recorded].tolist(), "texts")
    ]
    found = [each for trace in traces for each in asked_again(trace.steps)]
    rows = []
    for told in sorted({each["told"] for each in found} & {1, 2, 3}):
        alike = rows_where(found, told=told)
        for memory in MEMORIES:
            rows.append(
                {
                    "told": told,
                    "memory": memory,
                    "error": float(sum(e[memory] for e in alike) / sum(e["size"] for e in alike)),
                    "names": len(alike),
                    "rightly": rightly,
                }
            )
    asked = {str(k): WORDS[i] for k, i in zip(where[0].tolist(), right[0].tolist())}
    first = replace(traces[0], meta=traces[0].meta | {"asked": asked})
    return Recorded(rows, state_recall=first)


def go(rows):
    by = series(rows, "memory", "error")
    for told, exact, adds in zip(sorted({r["told"] for r in rows}), *by.values(), strict=True):
        if told > 1 and exact >= adds:
            return (
                f"of what it was told {told} times the delta rule is off by {exact:.0%}, mere"
                f" adding by {adds:.0%}: look at what is written, it must be the value less the"
                " answer"
            )


def notice(rows):
    by = series(rows, "memory", "error")
    exact, adds = by["delta rule"], by["only adds"]
    many = rows[-1]["told"]
    return (
        f"Told once, a name's digit comes back {exact[0]:.0%} off from the delta rule's memory and"
        f" {adds[0]:.0%} off from the one that only adds. Told {many} times, the last digit counts:"
        f" {exact[-1]:.0%} and {adds[-1]:.0%}. Adding keeps the old ones under the same key; the"
        f" delta rule asks first and writes the difference. The model answers"
        f" {rows[0]['rightly']:.0%} of the questions rightly."
    )


LAB = Lab(
    title="A memory that is told something new",
    objective="Write into a matrix by the delta rule and by mere adding, and overwrite some of it.",
    asks="Does the delta rule's memory take back what is no longer true?",
    notice=notice,
    columns={
        "told": "times told",
        "memory": "memory",
        "error": "off by, of the value|.0%",
        "names": "names",
        "rightly": "the model is right|.0%",
    },
    run=run,
    sizes={
        "full": {"training": 400, "recorded": 40},
        "quick": {"training": 4, "recorded": 4},
    },
    threads=1,
    go=go,
    minutes=1,
    cpu_only=True,
)

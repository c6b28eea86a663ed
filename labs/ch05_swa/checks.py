"""Checks of chapter 05, sliding windows.

Each returns what was right, or raises Wrong with what to look at.
"""

import numpy as np

from labkit import formulas, reference
from labkit.checks import call, expect
from labkit.published import presets
from labkit_labs.ch05_swa import rings

WINDOW, CHUNK = 1024, 512


def slots_needed(answer):
    """05.1: the slots of a ring for chunks and decode."""
    expect(
        isinstance(answer, (int, np.integer)) and not isinstance(answer, bool),
        f"slots are counted in whole numbers, not {answer!r}.",
    )
    expect(
        answer != WINDOW,
        f"{answer:,} are enough for decode. While a chunk is written, its own first token has not"
        " looked yet.",
    )
    expect(
        answer != WINDOW + CHUNK,
        f"{answer:,} work, and so do fewer. Does the window hold the query's own token?",
    )
    expect(
        answer != 2 * WINDOW,
        f"{answer:,} work here, and so do fewer. Count from the oldest key that is needed to the"
        " last one written.",
    )
    expect(
        answer >= WINDOW + CHUNK - 1,
        f"with {answer:,} a chunk overwrites a key that its first token still looks at.",
    )
    expect(answer == WINDOW + CHUNK - 1, f"{answer:,} work, and so do fewer.")
    return "the first token's whole window, and the chunk behind it."


def positions(f):
    """05.2: which position lies in each slot."""
    for newest, slots in ((3, 8), (7, 8), (8, 8), (21, 8), (4, 1), (0, 3)):
        want = np.full(slots, -1)
        for p in range(newest + 1):
            want[p % slots] = p
        got = np.asarray(call(f, newest, slots))
        where = f"{slots} slots, token {newest} written last"
        expect(got.shape == (slots,), f"{where}: give one position a slot, not shape {got.shape}.")
        same = np.array_equal(got, want)
        expect(
            same or newest < slots or not np.array_equal(got, np.arange(slots)),
            f"{where}: these are the slots' own numbers, right only until the ring goes round.",
        )
        expect(
            same or not np.array_equal(np.where(got < 0, -1, got), want),
            f"{where}: {got.min()} lies nowhere. Give -1 for an empty slot.",
        )
        expect(
            same or slots == 1 or not np.array_equal(np.sort(got), np.sort(want)),
            f"{where}: the right positions, in other slots. Position p lies in slot p % {slots}.",
        )
        expect(
            (got <= newest).all(),
            f"{where}: position {got.max()} has not been written yet.",
        )
        expect(same, f"{where}: {got.tolist()}, where {want.tolist()} lie.")
    return "before the ring is full, when it is, and after it has gone round."


def held_and_reserved(f):
    """05.3: bytes held and bytes reserved."""
    for name, tokens in (("gpt-oss-20b", 8192), ("gemma3-27b", 131_072), ("gpt-oss-20b", 100)):
        c = presets[name]
        got = call(f, c, tokens)
        where = f"{name}, {tokens:,} tokens"
        expect(
            isinstance(got, tuple) and len(got) == 2,
            f"{where}: return two numbers, held and reserved, not {got!r}.",
        )
        held, reserved = got
        want = formulas.kv_cache_bytes(c, tokens)
        full = 2 * 2 * c.n_kv_heads * c.head_dim * tokens * c.n_layers
        expect(
            reserved * 2 != full,
            f"{where}: {reserved:,} reserved is half. A key and a value, of two bytes a number.",
        )
        expect(
            reserved * c.n_layers != full, f"{where}: {reserved:,} reserved is one layer's share."
        )
        expect(
            reserved == full,
            f"{where}: {reserved:,} reserved, expected {full:,}: all layers, at full length.",
        )
        expect(
            held == want or tokens >= c.window or held <= reserved,
            f"{where}: {held:,} held is more than there is. What does a layer keep of a text that"
            " is shorter than its window?",
        )
        expect(
            held == want or held != reserved,
            f"{where}: held is as much as reserved. What does a sliding layer keep?",
        )
        expect(
            held == want,
            f"{where}: {held:,} held, expected {want:,}: {c.types.count('full')} full layers and"
            f" {c.types.count('sliding')} sliding ones.",
        )
    return "gpt-oss-20b at 8,192 tokens, 32 times: 6.54 GB held, 12.88 GB reserved."


def smallest_window(f):
    """05.4: the smallest window with which layers hear of a token."""
    for layers, back in ((3, 9), (2, 95), (32, 131_040), (5, 1), (1, 7), (4, 10)):
        got = call(f, layers, back)
        where = f"{layers} layers, {back:,} tokens back"
        expect(got == int(got), f"{where}: a window is a whole number of tokens, not {got}.")
        heard = lambda window: formulas.receptive_field(layers, window) - 1  # noqa: B023
        expect(got >= 1, f"{where}: a window holds at least the query's own token, not {got}.")
        expect(
            got != back + 1 or heard(got - 1) < back,
            f"{where}: {got:,} is what one layer needs alone. Layers hand on what they have heard.",
        )
        expect(
            heard(got) >= back,
            f"{where}: with {got:,} a token hears of {heard(got):,} before it. How many does one"
            " more layer add, and does the window hold the query's own token?",
        )
        expect(
            heard(got - 1) < back,
            f"{where}: {got:,} reaches, and so does {got - 1:,}.",
        )
    return "back to the first of Mistral's 131,041 tokens, and wherever it does not divide."


def slot(f):
    """05.5: the slot of a position in a ring that keeps its first tokens."""
    for slots, keep in ((8, 4), (6, 1), (5, 0), (260, 4)):
        got = [call(f, p, slots, keep) for p in range(4 * slots)]
        where = f"{slots} slots, {keep} kept"
        expect(
            all(isinstance(g, (int, np.integer)) for g in got),
            f"{where}: a slot's number is a whole one, not {got[0]!r}.",
        )
        expect(
            got[:keep] == list(range(keep)),
            f"{where}: the first positions lie in {got[:keep]}, and not each in its own slot.",
        )
        expect(
            min(got) >= 0 and max(got) < slots,
            f"{where}: position {int(np.argmax(got))} gets slot {max(got)}; the last one is"
            f" {slots - 1}.",
        )
        late = [p for p in range(keep, len(got)) if got[p] < keep]
        expect(
            not late,
            f"{where}: position {late[0] if late else 0} takes slot {got[late[0]] if late else 0},"
            " which was to be kept for ever.",
        )
        room = slots - keep
        near = [p for p in range(keep, len(got) - room + 1) if len(set(got[p : p + room])) < room]
        expect(
            not near,
            f"{where}: of {room} neighbours from position {near[0] if near else 0} on two share a"
            " slot, while another is never used.",
        )
    return "the first stay, all others go round, and no slot is idle."


# -- 05.6: prompts through rings, right and wrong --------------------------------------------------


class Reader:
    """What the exercise is given: (prompt, chunk) -> which tokens come out right."""

    def __init__(self, slots: int, window: int = 4):
        self.slots = slots
        self.window = window
        self.asked: list[tuple[int, int]] = []

    def __call__(self, prompt: int, chunk: int):
        self.asked.append((prompt, chunk))
        draw, pos = np.random.default_rng(prompt).standard_normal, np.arange(prompt)
        q = draw((prompt, 2, 8))
        k, v = draw((2, prompt, 1, 8))
        want = reference.attention(q, k, v, pos, pos, self.window)
        sizes = [min(chunk, prompt - a) for a in range(0, prompt, chunk)]
        with np.errstate(invalid="ignore"):  # a query that sees nothing at all
            got = rings.fed(rings.Ring(self.slots, 1, 8), q, k, v, sizes, self.window)
        return np.abs(got - want).max((1, 2)) < 1e-6


def holds(f):
    """05.6: the test of a ring for its longest step."""
    for longest in (1, 3, 5, 8):
        enough = 4 + longest - 1
        ask = lambda reader: bool(call(f, reader, longest))  # noqa: B023
        where = f"a window of 4, steps of up to {longest}"
        expect(
            ask(Reader(enough)) and ask(Reader(enough + 3)),
            f"{where}: it refuses a ring of {enough} slots, which is right.",
        )
        small = Reader(enough - 1)
        passed = ask(small)
        steps = [min(chunk, prompt) for prompt, chunk in small.asked]
        expect(
            not passed or max(steps, default=0) >= longest,
            f"{where}: it passes a ring of {enough - 1} slots, one too few. No step that it feeds"
            f" is of {longest}.",
        )
        expect(
            not passed or any(prompt > chunk for prompt, chunk in small.asked),
            f"{where}: it passes a ring of {enough - 1} slots, one too few. A prompt in one step"
            " has nothing to lose.",
        )
        expect(
            not passed or any(prompt > 4 for prompt, _ in small.asked),
            f"{where}: it passes a ring of {enough - 1} slots, one too few. No prompt that it feeds"
            " is longer than the window.",
        )
        expect(
            not passed,
            f"{where}: it passes a ring of {enough - 1} slots, one too few. Which token of a chunk"
            " looks back furthest behind the chunk, and is it looked at?",
        )
    return "a ring with one slot too few is caught, and one that is large enough passes."


CHECKS = {
    "05.1": slots_needed,
    "05.2": positions,
    "05.3": held_and_reserved,
    "05.4": smallest_window,
    "05.5": slot,
    "05.6": holds,
}

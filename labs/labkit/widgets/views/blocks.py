"""An engine's memory: who holds which block, and each request's block table."""

from __future__ import annotations

from itertools import accumulate, groupby

from labkit.tables import listed
from labkit.traces import Trace
from labkit.traces.blocks import BlocksStep
from labkit.widgets.scene import Box, Meter, Scene

# at most so many blocks -> side by side
WIDTHS = ((8, 4), (12, 6), (16, 8), (64, 16))
WIDEST = 24


def scene(trace: Trace) -> Scene:
    """Which blocks are held, shared, kept or free; what was copied, evicted and given back, and how
    much of the memory holds tokens.
    """
    steps, n, size = trace.steps, trace.meta["n_blocks"], trace.meta["block_size"]
    tables = [_numbered(s.tables) for s in steps]
    requests = sorted({r for table in tables for r in table})
    across = next((width for most, width in WIDTHS if n <= most), WIDEST)
    top = 2 * -(-n // across)  # rows of memory: numbers and blocks, in turn
    longest = max((len(blocks) for table in tables for blocks in table.values()), default=1)
    boxes = [box for b in range(1, n + 1) for box in _block(b, across, steps, tables)]
    boxes.append(Box(-1, "label", 0, top, max(across, longest), 1, "block tables"))
    for y, r in enumerate(requests, top + 1):
        boxes += _table(r, y, steps, tables)
    return Scene(
        label="Memory",
        axes=f"{n} blocks of {size} tokens; below, whose they are in order",
        columns=max(across, longest),
        rows=top + 1 + len(requests),
        boxes=boxes,
        says=[_say(k, steps, tables) for k in range(len(steps))],
        meters=_meters(steps, tables, n, size),
        legend=[
            ("held", "now", "changed in this step"),
            ("held", "past", "held by one"),
            ("shared", "past", "shared"),
            ("kept", "past", "kept for its contents"),
            ("slot", "past", "free"),
            ("lost", "past", "evicted, or given back"),
        ],
        head=["request", "blocks", "tokens", "places"],
        readings=[_readings(s, table, size) for s, table in zip(steps, tables)],
        row=1.4,
        down=["" for _ in range(top + 1)] + [f"r{r}" for r in requests],
    )


def _numbered(of: dict) -> dict[int, list[int] | int]:
    """By request; a trace that was stored has words where a live one has numbers."""
    return {int(id): value for id, value in of.items()}


def _holders(block: int, table: dict) -> list[int]:
    return [r for r, blocks in table.items() if block in blocks]


def _runs(values: list):
    """(first step, end, value) of each run of equal values."""
    at = 0
    for value, run in groupby(values):
        end = at + len(list(run))
        yield at, end if end < len(values) else None, value
        at = end


def _block(b: int, across: int, steps: list[BlocksStep], tables: list[dict]) -> list[Box]:
    """One block through all steps: its number, and under it who holds it."""
    x, y = (b - 1) % across, 2 * ((b - 1) // across)
    boxes = [Box(-1, "label", x, y, 1, 1, str(b)), Box(-1, "slot", x, y + 1, 1, 1)]
    states = [(_holders(b, table), b in step.kept and "kept") for step, table in zip(steps, tables)]
    for first, end, (holders, kept) in _runs(states):
        look = "shared" if len(holders) > 1 else "held"
        if holders:
            boxes.append(Box(first, look, x, y + 1, 1, 1, _names(holders), end))
        elif kept:
            boxes.append(Box(first, "kept", x, y + 1, 1, 1, "kept", end))
    for k, step in enumerate(steps):
        for source, target in step.copied:
            if target == b:
                boxes.append(Box(k, "held", x, y, 1, 1, f"{source}→{b}", k + 1))
        if b in step.evicted:
            boxes.append(Box(k, "lost", x, y, 1, 1, f"✕ {b}", k + 1))
    return boxes


def _names(requests: list[int]) -> str:
    return " ".join(f"r{r}" for r in requests)


def _table(r: int, y: int, steps: list[BlocksStep], tables: list[dict]) -> list[Box]:
    """One request's row: its blocks in order, what it gives back, and when it waits or is done."""
    boxes = []
    longest = max(len(table.get(r, [])) for table in tables)
    for i in range(longest):
        cells = [table[r][i] if i < len(table.get(r, [])) else None for table in tables]
        boxes += [
            Box(first, "held", i, y, 1, 1, str(block), end)
            for first, end, block in _runs(cells)
            if block
        ]
    states = []
    for step, table in zip(steps, tables):
        before = states[-1] if states else "to come"
        if r in table:
            states.append("runs")
        elif r in step.preempted:
            states.append("set back")
        elif before in ("set back", "waits"):
            states.append("waits")
        else:
            states.append("to come" if before == "to come" else "done")
    for first, end, state in _runs(states):
        if state == "set back":
            boxes += [
                Box(first, "lost", i, y, 1, 1, f"✕ {block}", end)
                for i, block in enumerate(tables[first - 1].get(r, []))
            ]
        elif state in ("waits", "done"):
            look = {"waits": "waiting", "done": "label"}[state]
            boxes.append(Box(first, look, 0, y, 1, 1, state, end))
    return boxes


def _say(k: int, steps: list[BlocksStep], tables: list[dict]) -> str:
    step, table = steps[k], tables[k]
    before = tables[k - 1] if k else {}
    found = step.hit_tokens - (steps[k - 1].hit_tokens if k else 0)
    come = [r for r in table if r not in before]
    gone = [r for r in before if r not in table and r not in step.preempted]
    parts = []
    if come:
        verb = _is(come, "enters", "enter")
        if {r for earlier in steps[:k] for r in earlier.preempted}.issuperset(come):
            verb = _is(come, "comes back", "come back")
        reuse = f" and {_is(come, 'finds', 'find')} **{found}** tokens in memory" if found else ""
        parts.append(f"{_list(come)} {verb}{reuse}.")
    for source, target in step.copied:
        parts.append(f"To write into block {source}, which is shared, it is **copied** to {target}")
        held = any(target in blocks for blocks in table.values())
        parts[-1] += "." if held else "; full, the copy is the same text, and given up."
    if step.evicted:
        blocks = listed(step.evicted)
        parts.append(f"No block is free: block {blocks}, kept longest, is **evicted**.")
    if step.preempted:
        given = {b for r in step.preempted for b in before.get(r, [])}
        parts.append(
            f"Blocks run out: {_list(step.preempted)}, the last to enter, is"
            f" **preempted** and gives back {listed(sorted(given)) if given else 'its row'}."
        )
    if gone:
        parts.append(f"{_list(gone)} {_is(gone, 'is', 'are')} done.")
    for r in table:
        had = before.get(r, [])
        for old, same in zip(had, table[r]):
            if old != same:
                parts.append(f"r{r} gives up block {old}: block {same} has the same text.")
        if had and (more := table[r][len(had) :]):
            parts.append(f"r{r} takes block {listed(more)}.")
    if not parts:
        parts.append(f"{_list(table)} {_is(table, 'writes', 'write')} where there is room.")
    held = len({b for blocks in table.values() for b in blocks})
    parts.append(f"Held {held}, kept {len(step.kept)}, free {step.free}.")
    return " ".join(parts)


def _list(requests: list[int]) -> str:
    return listed(f"r{r}" for r in requests)


def _is(some: list | dict, one: str, many: str) -> str:
    return one if len(some) == 1 else many


def _meters(steps: list[BlocksStep], tables: list[dict], n: int, size: int) -> list[Meter]:
    held = [len({b for blocks in table.values() for b in blocks}) for table in tables]
    filled = [_filled(step, table, size) for step, table in zip(steps, tables)]
    evicted = list(accumulate(len(s.evicted) for s in steps))
    preempted = list(accumulate(len(s.preempted) for s in steps))
    empty = [blocks * size - tokens for blocks, tokens in zip(held, filled)]
    return [
        Meter("blocks held", held, n),
        Meter("blocks kept", [len(s.kept) for s in steps], n),
        Meter("blocks free", [s.free for s in steps], n),
        Meter("places held and empty", empty, n * size),
        Meter("tokens found so far", [s.hit_tokens for s in steps], steps[-1].hit_tokens),
        Meter("evicted so far", evicted, n),
        Meter("preempted so far", preempted, n),
    ]


def _filled(step: BlocksStep, table: dict, size: int) -> int:
    """Tokens that lie in held blocks; a block that is shared counts once."""
    tokens = _numbered(step.tokens)
    filled = {}
    for r, blocks in table.items():
        for i, block in enumerate(blocks):
            here = min(size, max(0, tokens[r] - i * size))
            filled[block] = max(here, filled.get(block, 0))
    return sum(filled.values())


def _readings(step: BlocksStep, table: dict, size: int) -> list[list[str]]:
    tokens = _numbered(step.tokens)
    return [
        [f"r{r}", " ".join(map(str, blocks)), str(tokens[r]), str(len(blocks) * size)]
        for r, blocks in sorted(table.items())
    ]

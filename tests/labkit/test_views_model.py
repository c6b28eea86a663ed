"""What the players of a window, a router and a state show at a step is what the trace says."""

import pytest

from labkit import formulas, traces
from labkit.traces.routing import RoutingStep
from labkit.widgets import play
from labkit.widgets.views import scene, state, window

NAMES = {
    "window": "ch05/window_ring",
    "routing": "ch06/routing_characters",
    "state": "ch07/state_recall",
}
STORED = {kind: traces.stored(name) for kind, name in NAMES.items()}
each_kind = pytest.mark.parametrize("kind", STORED)


def alive(shown, now: int, *looks: str) -> list:
    """The boxes that stand on the picture at a step."""
    there = [b for b in shown.boxes if b.step <= now and (b.until is None or now < b.until)]
    return [b for b in there if not looks or b.look in looks]


def meters(shown, now: int) -> dict:
    return {m.label: m.values[now] for m in shown.meters}


@each_kind
def test_a_stored_trace_is_small_and_its_player_light(kind):
    trace = STORED[kind]
    assert trace.kind == kind and len(trace.steps) >= 12
    size = traces.path_of(NAMES[kind]).stat().st_size
    assert size < 100_000
    player = play(trace)
    assert len(player.still) < 60_000 and len(player.says) == len(trace.steps)


@each_kind
def test_nothing_lies_outside_its_grid(kind):
    shown = scene(STORED[kind])
    for box in shown.boxes:
        assert box.x >= 0 and box.width >= 1 and box.x + box.width <= shown.columns
        assert box.y >= 0 and box.height >= 1 and box.y + box.height <= shown.rows
    assert len(shown.down) <= shown.rows and len(shown.across) in (0, shown.columns)
    assert all(0 <= v <= m.full for m in shown.meters for v in m.values)


# -- window ----------------------------------------------------------------------------------------


def test_each_slot_shows_who_lies_in_it_and_whether_it_is_seen():
    trace = STORED["window"]
    shown, wide = scene(trace), len(trace.meta["words"]) // trace.meta["slots"]
    for now, step in enumerate(trace.steps):
        ring = [b for b in alive(shown, now, "held", "kept") if b.y == window.RING]
        held = {slot: position for slot, position in enumerate(step.held) if position >= 0}
        assert {b.x // wide: int(b.text) for b in ring} == held
        assert sorted(int(b.text) for b in ring if b.look == "held") == step.seen
        assert sorted(int(b.text) for b in ring if b.step == now and b.look == "held") == step.fed
        gone = {b.x // wide: int(b.text) for b in alive(shown, now, "lost")}
        # the slots that were free come first
        assert gone == dict(zip(step.written[len(step.written) - len(step.lost) :], step.lost))


def test_bars_reach_as_far_back_as_the_layers_hear():
    trace = STORED["window"]
    shown = scene(trace)
    for now, step in enumerate(trace.steps):
        bars = alive(shown, now, "mark")
        assert [(b.x, b.x + b.width - 1) for b in bars] == [(r, step.fed[-1]) for r in step.reach]
        assert [b.text for b in bars] == [str(b.width) for b in bars]
    last = meters(shown, -1)
    assert last["tokens heard of, at most 16"] == formulas.receptive_field(3, 6) == 16
    assert last["tokens overwritten"] == 24 - 8
    assert (last["bytes of a ring"], last["bytes of a full cache"]) == (8 * 128, 24 * 128)


def test_a_window_says_what_moved():
    says = scene(STORED["window"]).says
    assert says[2].startswith("Tokens 6–8 take **slots 6, 7, 0** and overwrite token 0: the ring")
    assert says[-1] == (
        "Token 23, “on”, takes **slot 7** and overwrites token 15. Token 23 sees 6 tokens; through"
        " 3 layers it hears of **16** of 24."
    )


# -- routing ---------------------------------------------------------------------------------------


def test_each_choice_stands_in_its_row_with_its_weight():
    trace = STORED["routing"]
    shown, rows = scene(trace), len(trace.steps)
    for now in range(rows):
        boxes = [b for b in alive(shown, now, "solid", "held") if b.y < rows]
        assert sorted((b.y, b.x, b.text) for b in boxes) == sorted(
            (k, expert, f"{weight:.2f}".removeprefix("0"))
            for k, step in enumerate(trace.steps[: now + 1])
            for expert, weight in zip(step.experts, step.weights)
        )
        best = [b.x for b in boxes if b.look == "solid"]
        assert best == [step.experts[0] for step in trace.steps[: now + 1]]


def test_the_row_below_counts_the_load_and_shows_the_union():
    trace = STORED["routing"]
    shown, rows = scene(trace), len(trace.steps)
    X, A = trace.meta["experts"], trace.meta["active"]
    for now, step in enumerate(trace.steps):
        below = sorted((b for b in alive(shown, now) if b.y == rows), key=lambda b: b.x)
        assert [int(b.text) for b in below] == step.load
        assert sum(b.look == "held" for b in below) == step.touched
        counted = meters(shown, now)
        assert counted["experts touched"] == step.touched
        assert counted["kB of experts read"] * 1000 == step.read_bytes
        formula = formulas.experts_read(X, A, now + 1)
        assert counted["by the formula, if even"] == pytest.approx(formula, abs=0.005)


def test_a_forward_counts_anew():
    """A second one reads its experts again."""
    first, second = STORED["routing"].steps[:2]
    load = [int(expert in second.experts) for expert in range(8)]
    steps = [first, RoutingStep(1, "x", second.experts, [0.6, 0.4], load, 2, 99)]
    shown = scene(traces.Trace("routing", "a test", STORED["routing"].meta, steps))
    assert [
        int(b.text) for b in sorted((b for b in alive(shown, 1) if b.y == 2), key=lambda b: b.x)
    ] == load
    assert shown.says[1].startswith("Forward 2: ") and "**2** of 8" in shown.says[1]
    assert meters(shown, 1)["by the formula, if even"] == 2


# -- state -----------------------------------------------------------------------------------------


def squares(shown) -> dict:
    return {(b.x, b.y): b.level for b in shown.boxes if b.look == "level"}


def test_every_square_is_its_number_and_both_memories_have_one_scale():
    steps = STORED["state"].steps
    dk, dv = len(steps[0].key), len(steps[0].value)
    full = max(abs(n) for s in steps for m in (s.state, s.plain) for row in m for n in row)
    level = squares(scene(STORED["state"]))
    assert len(level) == dk + 2 * (dk * dv + 3 * dv)
    for k, step in enumerate(steps):
        for i in range(dk):
            assert level[state.KEY, i][k] == step.key[i]
            for x, matrix in ((state.LEFT, step.state), (state.LEFT + dv + 1, step.plain)):
                row = [level[x + j, i][k] * full for j in range(dv)]
                assert row == pytest.approx(matrix[i])


def test_the_rows_below_are_what_each_memory_answers():
    steps = STORED["state"].steps
    dk, dv = len(steps[0].key), len(steps[0].value)
    level = squares(scene(STORED["state"]))

    def asked(matrix, key) -> list[float]:
        return [sum(k * row[j] for k, row in zip(key, matrix)) for j in range(dv)]

    def answers(x: int, k: int, scale: float = 1) -> list[list[float]]:
        return [[scale * level[x + j, dk + 1 + i][k] for j in range(dv)] for i in range(3)]

    # the scale, from a row whose numbers are known
    scale = max(map(abs, steps[0].value)) / max(map(abs, answers(state.LEFT, 0)[1]))
    for k, step in enumerate(steps):
        before, value, after = answers(state.LEFT, k, scale)
        assert before == pytest.approx(step.before) and after == pytest.approx(step.after)
        assert value == pytest.approx(step.value)
        before, value, after = answers(state.LEFT + dv + 1, k, scale)
        assert value == pytest.approx(step.value)
        assert after == pytest.approx(asked(step.plain, step.key))
        if k:  # of rounded numbers
            assert before == pytest.approx(asked(steps[k - 1].plain, step.key), abs=0.02)


def test_a_state_says_what_was_repaired_and_what_the_model_answers():
    trace = STORED["state"]
    shown = scene(trace)
    for k, (step, said) in enumerate(zip(trace.steps, shown.says)):
        assert f"off by **{step.error:.0%}**" in said and f"**{step.left:.0%}** stay" in said
        right = trace.meta["asked"].get(str(k))
        assert ("The model says" in said) == (right is not None)
        if right:
            assert said.endswith("rightly." if step.next == right else f"where {right} is right.")
        counted = meters(shown, k)
        assert counted["bytes of the layer's states"] == trace.meta["state_bytes"]
        per_token = trace.meta["cache_bytes_per_token"]
        assert counted["bytes of all keys and values"] == (k + 1) * per_token

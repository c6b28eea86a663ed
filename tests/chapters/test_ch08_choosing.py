"""Chapter 08: tricks are caught, designs fail for the reason given."""

import json
import math

import pytest
import torch
from manim import Circle, Rectangle

import labkit
from animations.scenes.ch08_choosing import CONTEXT, LIMITS, TWIN, TradeoffMap, computed
from animations.stage.audit import inspect
from animations.stage.style import GOLD, NAVY
from labkit import formulas, results
from labkit.lab import labs
from labkit_labs.ch08_choosing import (
    fair,
    guide,
    matched,
    pretraining,
    quality,
    reading,
    shell,
    situation,
    slope,
    text,
    tradeoffs,
)
from labkit_labs.common import recall
from tests.cases import quick_rows, reads_well, report, stored
from tests.chapters.ch08_choosing import SITUATIONS


@pytest.mark.parametrize("trick", fair.TRICKS)
def test_each_trick_is_caught_by_its_own_check_and_by_no_other(trick):
    setup = fair.Setup(prompt=24)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        _, theirs, ours = fair.compare(*fair.rig(setup, setup, trick), "cpu", 1)
        assert [name for name in fair.CHECKS if fair.check(name, theirs, ours)] == [trick]
        assert torch.get_num_threads() == 3  # it gives back what it took
    finally:
        torch.set_num_threads(before)


def test_one_shell_counts_the_lines_that_differ():
    rows = {r["variant"]: r for r in quick_rows("CH08-SHELL")}
    assert [rows[v]["mixer_lines"] for v in ("GQA", "MQA", "SWA", "MoE")] == [0] * 4
    assert rows["MLA"]["mixer_lines"] > 20 and rows["MoE"]["ffn_lines"] > 20
    assert (
        rows["GQA"]["bytes_a_token"] * 4 == rows["MHA"]["bytes_a_token"]
        and rows["SWA"]["bytes_a_further_token"] == 0
    )
    assert shell.differing(labkit.ffn.SwiGLU, labkit.ffn.SwiGLU) == 0


def test_a_design_fails_for_the_reason_given():
    meets = lambda **target: {r["design"]: r for r in pretraining.run(**target)}
    rows = meets(gpu="H100", context=32768, users=16, tokens_per_second=30.0)
    assert rows["MHA, G = 32"]["why_not"] == "fits 3 users" and rows["GQA, G = 4"]["meets"]
    assert rows["GQA 8, 32 experts, 4 active"]["why_not"] == "its weights don't fit"
    # bound by bytes
    seconds = formulas.decode_bytes(pretraining.BASE, 32768, 16) / 3.35e12
    assert rows["GQA, G = 8"]["reaches"] == pytest.approx(1 / seconds)
    assert meets(users=4, tokens_per_second=1e4)["MQA, G = 1"]["why_not"].startswith("reads ")
    with pytest.raises(ValueError, match="must be above 0"):
        meets(users=0)


def test_a_target_that_no_design_meets_is_a_stop():
    rows = pretraining.run(gpu="L4", context=131072, users=64)
    assert "change the target before you train" in labs()["CH08-PRETRAINING"].go(rows)


# -- what each memory can recall ---------------------------------------------------------


def test_a_quick_run_trains_every_variant_and_ranks_none():
    rows = quick_rows("CH08-QUALITY")
    assert [r["variant"] for r in rows] == list(recall.INSIDES)
    assert all(r["verdict"].startswith("not ranked") for r in rows) and quality.go(rows) is None
    assert "DeltaNet wide" in quality.plot(rows).alt
    chart = quality.plot_pairs(rows)
    assert "<svg" in chart._repr_html_() and "DeltaNet wide" in chart.alt


def test_what_a_thousand_steps_came_to():
    """Stored, for other sums train to other weights: only a small state and a window forget."""
    rows = {r["variant"]: r for r in results.load("ch08/quality")["rows"]}
    assert list(rows) == list(recall.INSIDES)
    forget = {name for name, r in rows.items() if r["verdict"] == "forgets"}
    assert forget == {"SWA", "DeltaNet"}
    for name, r in rows.items():
        assert r["steps"] == recall.STEPS and r["seeds"] == 3
        assert (r["recall_min"] > recall.LEARNED) == (name not in forget)


@pytest.mark.parametrize(
    "scores,steps,says",
    [
        ([1.0, 0.99, 0.96], quality.STEPS, "recalls"),
        ([0.3, 0.2, 0.4], quality.STEPS, "forgets"),
        ([1.0, 0.99, 0.4], quality.STEPS, "depends on the seed"),
        ([1.0, 1.0, 1.0], quality.STEPS - 1, "not ranked: 999 of 1000 steps"),
    ],
)
def test_a_verdict_needs_every_seed_and_every_step(scores, steps, says):
    assert quality.verdict(scores, steps, recall.LEARNED) == says


# -- what each makes of text ---------------------------------------------------------------


def test_every_reader_works_with_as_many_parameters_and_the_twin_is_the_same_design():
    configs = reading.variants()
    active = [formulas.active_parameters(config) for config in configs.values()]
    assert max(active) < 1.005 * min(active)
    assert configs[reading.TWIN] == configs["MHA"] and reading.TWIN == text.AGAIN
    assert set(configs) == {reading.TWIN, *recall.INSIDES} - {"DeltaNet wide"}


def test_a_readers_loss_by_position_adds_up_to_its_loss(monkeypatch):
    monkeypatch.setattr(reading, "texts", lambda: [torch.arange(3000) % 76] * 2)
    torch.manual_seed(0)
    model = labkit.GPT(reading.variants()["SWA"]).eval()
    found = reading.held_out(model, 40)
    sizes = [b - a for a, b in zip((0, *reading.BLOCKS), reading.BLOCKS)]
    parts = sum(n * found[f"to_{b}"] for n, b in zip(sizes, reading.BLOCKS))
    assert parts / reading.CHARACTERS == pytest.approx(found["nats"], abs=1e-4)


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ([1.50, 1.55, 1.60], "not told apart"),  # one seed is as the controls are
        ([1.60, 1.61, 1.62], "worse"),
        ([1.40, 1.41, 1.42], "better"),
        # on one side of both, but no further off than these are from each other
        ([1.531, 1.532, 1.533], "not told apart"),
    ],
)
def test_a_variant_is_ranked_only_beyond_what_twins_differ_by(seeds, says):
    def row(seeds):
        return {"nats": seeds[1], "least": seeds[0], "most": seeds[2]}

    controls = [row([1.50, 1.51, 1.52]), row([1.49, 1.52, 1.53])]
    assert text.verdict(row(seeds), controls, text.STEPS) == says
    assert text.verdict(row(seeds), controls, 2) == f"not ranked: 2 of {text.STEPS} steps"


def test_what_the_page_says_of_text():
    """Lower is not a longer memory: most of the gap is there where a window sees everything."""
    rows = {r["variant"]: r for r in stored("ch08/text")}
    verdicts = {name: r["verdict"] for name, r in rows.items()}
    assert {n for n, v in verdicts.items() if v == "better"} == {
        "SWA",
        "SWA hybrid",
        "DeltaNet",
        "DeltaNet hybrid",
    }
    assert [n for n, v in verdicts.items() if v == "worse"] == ["MLA"]
    assert all(r["seeds"] == 5 for r in rows.values())
    whole, window = rows["MHA"], rows["SWA"]
    assert recall.INSIDES["SWA"]["window"] > 8
    assert whole["to_8"] - window["to_8"] > 0.5 * (whole["nats"] - window["nats"]) > 0
    assert whole["to_32"] < whole["to_128"]  # nothing is gained from further back


# -- what an engine does for each ----------------------------------------------------------


def test_the_engine_says_what_it_does_without():
    assert all(matched.served("MHA").values()) and all(matched.served("MLA").values())
    without = {
        name: [k for k, v in matched.served(name).items() if not v] for name in recall.INSIDES
    }
    assert without["SWA"] == without["SWA hybrid"] == ["freeing what no layer sees"]
    assert without["DeltaNet hybrid"] == ["prefix reuse", "checked drafts", "going back"]


# -- the guide -----------------------------------------------------------------------------


@pytest.mark.parametrize(("known", "change", "rule", "said_too"), SITUATIONS)
def test_the_guide_in_twenty_situations(known, change, rule, said_too):
    advice = guide.ask(situation.Situation(**known))
    assert (advice.change, advice.rule) == (change, rule)
    others = {rule: wish for rule, wish, _ in advice.conflicts}
    assert said_too.items() <= others.items()
    assert all(why for *_, why in advice.conflicts)
    assert reads_well(advice.sentence.replace("**", ""))
    assert advice.why and advice.price and advice.rollback and advice.numbers
    if advice.change in situation.DESIGNS:
        assert "go back if" in advice.rollback and "lines of its own" in advice.price


def test_many_of_them_are_conflicts_or_change_nothing_and_every_rule_wins_somewhere():
    assert len(SITUATIONS) == 20
    assert sum(bool(others) for *_, others in SITUATIONS) >= 5
    assert sum(change == "change nothing" for _, change, *_ in SITUATIONS) >= 5
    # "give up least" is how one of two remedies wins, under that one's name
    assert {rule for *_, rule, _ in SITUATIONS} == set(guide.RULES) - {"give up least"}
    assert {c for _, c, *_ in SITUATIONS} >= set(situation.DESIGNS)


def test_what_a_remedy_promises_is_what_the_formulas_say():
    advice = guide.ask(situation.Situation("room"))
    fewer = labkit.presets["llama3-8b"].replace(n_kv_heads=4)
    fit = formulas.largest_batch(fewer, 80e9, 32768)
    assert f"{fit} users fit instead of 13" in advice.why
    assert {"what": "users that fit", "now": "13", "then": str(fit), "from": "formulas"} in (
        advice.numbers
    )


def test_a_remedy_that_the_card_cannot_hold_never_wins():
    for users in (16, 64, 256):
        for gpu in ("L4", "H100", "H200"):
            s = situation.Situation("room", gpu=gpu, users=users)
            advice = guide.ask(s)
            if advice.change in situation.DESIGNS and advice.rule != "one change at a time":
                assert (
                    situation.Case(s).numbers(situation.design(s.config, advice.change))[
                        "largest_batch"
                    ]
                    >= users
                )


def test_no_published_model_shares_a_head_among_more_queries_than_the_guide_does():
    shared = {
        name: c.n_heads // c.n_kv_heads
        for name, c in labkit.presets.items()
        if {"full", "sliding"} & set(c.types)
    }
    assert max(shared.values()) == situation.SHARED
    assert situation.design(labkit.presets["llama3-70b"], "GQA") is None
    assert situation.design(labkit.presets["deepseek-v3"], "MLA") is None
    assert situation.design(labkit.presets["gpt2-124m"], "MLA") is None
    assert situation.design(labkit.presets["mixtral-8x7b"], "MoE") is None


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({"limit": "rooms"}, "no limit is called 'rooms'; did you mean 'room'?"),
        ({"text": "far"}, "no kind of text is called 'far'"),
        ({"needs": ("prefix",)}, "no service is called 'prefix'"),
        ({"asked": "GQA 8"}, "did you mean 'GQA'?"),
        ({"context": 0}, "context must be a whole number >= 1, not 0"),
        ({"users": 2.5}, "users must be a whole number >= 1, not 2.5"),
        ({"tokens_per_second": 0}, "tokens_per_second must be above 0"),
        ({"gpu": "H1000"}, "did you mean 'H100'?"),
        ({"model": "llama8"}, "no model is called 'llama8'"),
    ],
)
def test_a_situation_that_makes_no_sense_is_refused_in_one_sentence(known, says):
    with pytest.raises(ValueError) as raised:
        situation.Situation(**known)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_heads": 12, "n_kv_heads": 5}, "12 query heads can't share 5 key/value heads"),
        (
            {"layer_types": ("sliding",) * 32, "window": 0},
            "a window of at least 1 token, not 0",
        ),
        ({"n_experts": 8, "n_active_experts": 9, "d_expert": 8}, "can't use 9 of 8 experts"),
        (
            {"layer_types": ("mla",) * 32, "kv_lora_rank": 0},
            "kv_lora_rank must be a whole number >= 1, not 0",
        ),
    ],
)
def test_a_setting_that_makes_no_sense_leaves_the_picture_before_it(changes, says):
    def drawn(changes):
        config = labkit.presets["llama3-8b"].replace(**changes)
        return {"series": [formulas.weight_bytes(config)], "say": "fine"}

    good = {"n_kv_heads": 4}
    shown = guide.kept(drawn, [{}, good, changes])
    assert shown["series"] == drawn(good)["series"] and says in shown["say"]
    assert "\n" not in shown["say"]
    assert guide.kept(drawn, [changes, good])["say"] == "fine"
    with pytest.raises(ValueError, match="No such model"):
        guide.kept(drawn, [changes])


# -- what a further token costs ------------------------------------------------------------


def test_a_further_token_waits_for_bytes_or_for_arithmetic():
    """What the page says of the stored rows: two groups, and in each one speed."""
    rows = {r["variant"]: r for r in slope.slope(results.load("ch08/matched")["rows"])}
    assert rows["GQA"]["bytes"] == rows["MHA"]["bytes"] / 2 == 2 * 2 * 8 * 128 * 4
    assert rows["MLA"]["bytes"] == 2 * (512 + 64) * 4
    assert rows["MQA"]["flops"] == rows["GQA"]["flops"] == rows["MHA"]["flops"]
    assert rows["MLA"]["flops"] == 2 * 2 * 16 * (2 * 512 + 64) == 4.25 * rows["GQA"]["flops"]
    reading = [rows[n]["bytes_per_second"] for n in ("MHA", "MHA again", "GQA", "SWA hybrid")]
    computing = [rows[n]["flops_per_second"] for n in ("MQA", "MLA")]
    assert max(reading) < 1.1 * min(reading) and max(computing) < 1.1 * min(computing)
    assert max(rows[n]["bytes_per_second"] for n in ("MQA", "MLA")) < 0.6 * min(reading)


# -- the map ---------------------------------------------------------------------------------


def at(name: str) -> dict:
    return results.row("ch08/matched", variant=name, context=CONTEXT)


def read_off(made, name: str) -> tuple[float, float]:
    """(MiB, times MHA's speed) where a dot stands, by the numbers on the two axes."""

    def by(axis: int, ticks: dict[float, float]) -> float:
        low, high = min(ticks), max(ticks)
        way = (made.dots[name].get_center()[axis] - ticks[low]) / (ticks[high] - ticks[low])
        return low * (high / low) ** way

    up = {float(t.text[:-1]): t.middle[1] for t in made.ticks if t.text.endswith("×")}
    across = {float(t.text): t.middle[0] for t in made.ticks if t.text.isdigit()}
    return by(0, across), by(1, up)


def test_each_dot_stands_where_its_row_says():
    made = report(TradeoffMap).scene
    assert set(made.dots) == {r["variant"] for r in stored("ch08/matched")}
    for name in made.dots:
        mib, speed = read_off(made, name)
        assert mib == pytest.approx(at(name)["cache_bytes"] / 2**20, rel=0.03)
        assert speed == pytest.approx(at(name)["multiple"], rel=0.005)


def test_the_map_says_the_numbers_of_its_rows():
    seen, made = report(TradeoffMap).texts, report(TradeoffMap).scene
    speed = {name: at(name)["multiple"] for name in made.dots}
    less = at("GQA")["cache_bytes"] / at("MLA")["cache_bytes"]
    said = " ".join(m.sentence for m in made.moments)
    assert f"{speed['GQA']:.1f} times as fast" in said and f"{less:.1f} times less" in said
    assert f"{speed['MQA']:.1f} to {speed['DeltaNet']:.1f} times as fast" in said
    assert {f"{at(n)['own_lines']} lines" for n in ("MLA", "DeltaNet", "MoE")} <= seen
    recalled = {n: results.row("ch08/quality", variant=n) for n in made.recalled}
    assert {f"{recalled[n]['recall']:.0%}" for n in ("SWA", "DeltaNet")} <= seen
    assert f"chance: {speed[TWIN] - 1:.0%}" in seen and f"limit: {LIMITS[1]} MiB" in seen
    assert results.where(at("MHA").document) + ", 1 thread" in seen


def test_what_is_left_under_the_limit_alone_keeps_its_colour():
    made = report(TradeoffMap).scene
    kept = {n for n, dot in made.dots.items() if dot.get_fill_color() == NAVY}
    fits = {n for n in made.recalled if at(n)["cache_bytes"] <= LIMITS[0] * 2**20}
    holds = {n for n in fits if results.row("ch08/quality", variant=n)["verdict"] == "recalls"}
    assert kept == holds == {"MQA", "MLA"}


def test_the_line_is_that_of_bytes_and_mla_computes_more_than_its_bytes_tell():
    """By the formulas, of the very designs that were measured."""
    configs = matched.variants()
    read = {n: formulas.decode_bytes(c, CONTEXT, 1, "fp32") for n, c in configs.items()}
    made = report(TradeoffMap).scene
    for name in configs:
        line = made.by_bytes_alone(at(name)["cache_bytes"])
        assert line == pytest.approx(read["MHA"] / read[name], rel=0.03)
        assert (at(name)["multiple"] < 0.8 * line) == (name == "MLA")
    mla, mha = configs["MLA"], configs["MHA"]
    grows = [
        formulas.decode_flops(c, 2 * CONTEXT) - formulas.decode_flops(c, CONTEXT)
        for c in (mla, mha)
    ]
    assert computed() == pytest.approx(grows[0] / grows[1], rel=1e-6)
    assert "two layers, 1,024 wide" in " ".join(report(TradeoffMap).texts)
    assert (mha.n_layers, mha.d_model) == (2, 1024)


def test_one_thing_is_gold_at_a_time():
    most = []

    class Watched(TradeoffMap):
        def move(self, *animations, **given):
            super().move(*animations, **given)
            parts = [m for top in self.mobjects for m in top.get_family()]
            shapes = [m for m in parts if isinstance(m, Circle | Rectangle)]
            most.append(sum(m.get_fill_color() == GOLD for m in shapes))

    inspect(Watched)
    assert max(most) == 1 and most.count(1) > 12


def moved(folder, change):
    """The two results as the clip reads them, on another machine and with other numbers."""
    for name in ("matched", "quality"):
        document = results.load(f"ch08/{name}") | {"name": f"ch08/{name}"}
        change(name, document["rows"])
        cpu = {"cpu": "Intel(R) Xeon(R) Processor", "cores": 2, "capability": "AVX512"}
        document["env"] |= cpu | {"threads": 1}
        path = folder / f"ch08/{name}.intel-xeon-2core.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))


def test_the_map_follows_other_rows(tmp_path, monkeypatch):
    def change(name, rows):
        for i, row in enumerate(rows):
            if name == "matched" and row["variant"] != "MHA":
                row["multiple"] *= 1 + 0.002 * (i % 3)
                row["own_lines"] *= 2

    moved(tmp_path, change)
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    other = inspect(TradeoffMap)
    assert other.findings == []
    assert "Intel(R) Xeon(R) Processor, 2 cores, AVX512, 1 thread" in other.texts
    assert f"{at('MLA')['own_lines']} lines" in other.texts
    assert math.isclose(read_off(other.scene, "MQA")[1], at("MQA")["multiple"], rel_tol=0.005)


@pytest.mark.parametrize(
    ("result", "variant", "values", "says"),
    [
        ("matched", "MLA", {"multiple": 3.0}, "as fast as GQA"),
        ("matched", "MoE", {"cache_bytes": 1}, "saves no cache"),
        ("matched", "MQA", {"multiple": 5.0}, "fastest two"),
        ("matched", "MQA", {"cache_bytes": 2**28}, "MQA and MLA are left"),
        ("matched", "SWA", {"cache_bytes": 2**21}, "only DeltaNet fits"),
        ("quality", "SWA", {"verdict": "recalls"}, "fastest two"),
    ],
)
def test_rows_that_tell_another_story_are_refused(
    result, variant, values, says, tmp_path, monkeypatch
):
    def change(name, rows):
        for row in rows:
            if name == result and row["variant"] == variant:
                row.update(values)

    moved(tmp_path, change)
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=says):
        inspect(TradeoffMap)


# -- the widgets ---------------------------------------------------------------------------


def test_the_map_joins_what_none_beats_on_all_three():
    for context in (1024, 16384):
        rows = [r for r in stored("ch08/matched") if r["context"] == context]
        best = tradeoffs.frontier(rows)
        assert "MQA" in best and not {"MHA", "GQA", "MLA", matched.AGAIN} & set(best)
    assert best == ["DeltaNet", "MQA"]  # the one that forgets is not beaten on bytes
    slower = [r | {"median": 1.0} if r["variant"] == "MQA" else r for r in rows]
    assert "MLA" in tradeoffs.frontier(slower)
    shown = tradeoffs.places(16384)
    assert list(shown["series"][tradeoffs.TWIN]) == [matched.AGAIN]
    assert set(shown["series"][tradeoffs.LOSES]) == {"SWA", "DeltaNet"}


def test_the_guides_picture_marks_its_advice_and_none_where_nothing_changes():
    asked = {"context": 32768, "users": 16, "text": "exact"}
    shown = tradeoffs.advised("room", **asked, training="pretraining")
    assert shown["mark"] == "GQA" and shown["series"]["GQA"][0] == 26
    assert tradeoffs.advised("room", **asked, training="none")["mark"] is None
    shown = tradeoffs.advised(tradeoffs.UNMEASURED, **asked, training="none")
    assert shown["mark"] is None and "Measure first" in shown["say"]


@pytest.mark.parametrize(
    "setting", ["5 KV heads", "a window of 0", "a latent of 0", "9 of 8 experts"]
)
def test_a_settings_price_stays_where_the_setting_makes_no_sense(setting):
    names = list(tradeoffs.SETTINGS)
    before = names[names.index(setting) - 1]
    shown, good = tradeoffs.priced(setting, 4), tradeoffs.priced(before, 4)
    assert shown["series"] == good["series"] and "No such model" not in good["say"]
    assert reads_well(shown["say"].replace("**", ""))

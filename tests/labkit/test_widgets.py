"""Widgets without a browser: what they compute, ship, refuse, and show where no script runs."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from itertools import accumulate
from pathlib import Path

import nbformat
import numpy as np
import pytest

from course.widgets import classic
from labkit import palette, results, widgets
from labkit.traces import Trace
from labkit.traces.attention import record_attention
from labkit.traces.decode import DecodeStep
from labkit.widgets import base, bet, explore, markup, numbers, panel, play, plot, scene, views
from tests import sphinxes

ROOT = Path(__file__).parents[2]


def line(**options):
    """A small explore of two grids, one of numbers and one of words."""
    x = [1, 10, 100]

    def fn(slope, kind):
        here = [slope * v for v in x]
        return {
            "series": {"here": here, "there": [y + 1 for y in here]},
            "say": f"**{slope}** of {kind}",
            "mark": (10, slope * 10),
        }

    return explore(
        fn,
        **{"title": "Lines", "grids": {"slope": [1, 2, 3], "kind": ["a", "b"]}, "x": x, **options},
    )


def bundle(w) -> dict:
    """What a widget gives to IPython."""
    shown = w._repr_mimebundle_()
    return shown[0] if isinstance(shown, tuple) else shown


def decode(cache: str, prompt=3, new=4):
    held = 0
    steps = []
    for k in range(new):
        fed = prompt + k if cache == "none" or k == 0 else 1
        written = 0 if cache == "none" else fed
        held += written
        steps.append(DecodeStep(f" t{k}", ["x"] * fed, fed, prompt + k, written, held))
    return Trace(
        "decode", "test", {"cache": cache, "prompt": ["a", " b", "\n"][:prompt], "layers": 1}, steps
    )


def tiles(T=8, tile=2):
    return record_attention(*np.random.default_rng(0).normal(size=(3, T, 4)), tile=tile)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A results folder with one measured ratio."""
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    results.save(
        "ch02/baseline",
        [{"variant": "cached", "multiple": 17.26}, {"variant": "naive", "multiple": 1.0}],
        into=tmp_path,
    )


def test_importing_the_widgets_loads_no_torch():
    code = (
        "import sys, labkit.widgets; assert 'torch' not in sys.modules and 'matplotlib' not in"
        " sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "value, unit, words",
    [
        (1_342_177_280, "bytes", "1.34 GB"),
        (327_680, "bytes", "328 kB"),
        (999_600, "bytes", "1 MB"),
        (12, "bytes", "12 B"),
        (0, "bytes", "0 B"),
        (0.00421, "seconds", "4.21 ms"),
        (2.5e-7, "seconds", "250 ns"),
        (1.2e13, "FLOPs", "12 TFLOP"),
        (3.35e12, "bytes/s", "3.35 TB/s"),
        (0.3838, "%", "38.4%"),
        (17.3, "×", "17.3×"),
        (8192, "tokens", "8,192 tokens"),
        (1, "requests", "1 request"),
        (0.123456, "", "0.1235"),
        (131072.0, "", "131,072"),
        (3.2e-6, "", "3.2e-6"),
        (-1.5, "", "-1.5"),
        (None, "", "–"),
        ("llama", "", "llama"),
        (True, "", "on"),
    ],
)
def test_numbers_are_written_for_people(value, unit, words):
    assert numbers.as_text(value, unit) == words.replace(" ", numbers.GAP)


def test_shipped_numbers_are_rounded_and_never_nan():
    values = [1.23456, 123456, 1234567, np.float32(0.5), np.nan, math.inf, None]
    assert numbers.rounded(values) == [1.235, 123456, 1235000, 0.5, None, None, None]
    assert numbers.rounded(np.arange(3)) == [0, 1, 2]


def test_every_choice_is_computed_and_params_and_result_follow_the_reader():
    w = line(start={"slope": 2})
    assert len(w.answers) == len(w.spec["answers"]) == 6
    assert w.params == {"slope": 2, "kind": "a"}
    assert w.answers[0].series[1] == [2, 11, 101]
    w.index = [2, 1]
    assert w.params == {"slope": 3, "kind": "b"}
    assert w.result["series"]["here"] == [3, 30, 300]


def picture_of(w, choice: int) -> dict:
    """What the browser draws for one choice."""
    which, _ = w.spec["answers"][choice]
    return w.spec["pictures"][which]


def test_the_axis_is_fixed_over_all_answers():
    w = line(lines={"limit": 400})
    ends = [picture_of(w, 2 * slope)["d"][0].split()[-1] for slope in range(3)]
    # 100, 200 and 300 on an axis to 400, counted from the top
    assert ends == ["750", "500", "250"]
    assert picture_of(w, 0)["mark"] == [round(1000 * 9 / 99), 975]
    assert '<line x1="0" x2="100%" y1="0%" y2="0%" class="lk-limit">' in w.still


def test_a_line_breaks_at_a_gap_and_a_value_alone_is_a_dot():
    scale = plot.Scale(0, 10)
    assert plot.line([0, 500, 750, 1000], [0, 5, None, 10], scale) == "M0 1000 500 500M1000 0h0"
    assert plot.line([0, 1000], [None, None], scale) == ""


def test_bars_stand_side_by_side_and_parts_of_a_whole_on_each_other():
    def boxes(chart):
        w = explore(
            lambda n: {"a": [1, 2], "b": [n, None]},
            title="t",
            grids={"n": [3]},
            x=["x", "y"],
            chart=chart,
        )
        return [
            [tuple(map(int, re.findall(r"\d+", box))) for box in path.split("z") if box]
            for path in picture_of(w, 0)["d"]
        ]

    # left, top, width, height, width; of 800 thousandths in two groups
    assert boxes("bar") == [
        [(50, 667, 200, 333, 200), (550, 333, 200, 667, 200)],
        [(250, 0, 200, 1000, 200)],
    ]
    assert boxes("stack") == [
        [(50, 750, 400, 250, 400), (550, 500, 400, 500, 400)],
        [(50, 0, 400, 750, 400)],
    ]


def test_answers_that_look_alike_share_their_picture():
    w = explore(lambda a, b: [a * b] * 2, title="t", grids={"a": [1, 2], "b": [1, 2]}, x=[0, 1])
    assert [which for which, _ in w.spec["answers"]] == [0, 1, 1, 2]
    assert len(w.spec["pictures"]) == 3


@pytest.mark.parametrize(
    "low, high", [(1, 9), (3e6, 1.4e12), (0.001, 0.002), (5, 5), (1, 1e9), (9.4e6, 9.5e6)]
)
def test_logarithmic_axes_hold_their_values_and_have_few_ticks(low, high):
    first, last, ticks = plot.decades(low, high)
    assert first <= low * 1.001 and high * 0.999 <= last and first < last and 2 <= len(ticks) <= 8


def test_one_number_per_name_becomes_bars():
    w = explore(
        lambda heads: {"MHA": 32 * heads, "GQA": 8 * heads}, title="Heads", grids={"heads": [1, 2]}
    )
    assert "lk-bars" in w.still and '<th scope="row">MHA</th><td>32</td>' in w.still
    assert w.answers[1].series == [[64, 16]]
    assert picture_of(w, 1)["y"] == [["64", "16"]]
    assert w.spec["answers"][0][1] == "MHA <b>32</b>, GQA <b>8</b>."


@pytest.mark.parametrize(
    "options, message",
    [
        ({"grids": {}}, "at least one grid"),
        ({"grids": {"slope": [], "kind": ["a"]}}, "'slope' has no values"),
        ({"start": {"slope": 9}}, "not in its grid"),
        ({"labels": {"slop": "x"}}, "names 'slop'"),
        ({"chart": "pie"}, "chart must be one of"),
        ({"x": [1, 2]}, "3 values for here, but x has 2"),
        ({"x": None}, "needs `x`"),
        ({"log_y": True, "lines": {"none": 0}}, "above zero"),
        ({"chart": "bar", "lines": {"below": -1}}, "stand on zero"),
        ({"log_x": True, "x": ["a", "b", "c"], "chart": "bar"}, "log_x needs"),
        ({"x": ["a", "b", "c"]}, "a mark needs an x axis of numbers"),
    ],
)
def test_bad_explores_are_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        line(**options)


def test_a_table_too_heavy_is_refused_before_it_is_computed():
    calls = []

    def heavy(a, b):
        calls.append(a)
        return list(np.random.default_rng(a).random(1000))

    with pytest.raises(
        ValueError,
        match=(
            r"10,000 choices would put .* kB on the page, over the limit of 300 kB \(max_bytes\):"
            r" use fewer values"
        ),
    ):
        explore(
            heavy,
            title="Heavy",
            grids={"a": list(range(100)), "b": list(range(100))},
            x=list(range(1000)),
        )
    assert len(calls) == 1


def test_an_error_in_the_function_says_which_choice_it_was():
    with pytest.raises(ZeroDivisionError) as e:
        explore(lambda n: [1 / n], title="t", grids={"n": [1, 0]}, x=[0])
    assert "n=0" in e.value.__notes__[0]


def test_series_must_be_the_same_for_every_choice():
    with pytest.raises(ValueError, match=r"n=2.*\['b'\].*\['a'\]"):
        explore(
            lambda n: {"a" if n == 1 else "b": [n, n]}, title="t", grids={"n": [1, 2]}, x=[0, 1]
        )


def counts(words: str) -> list[int]:
    """How many keys a sentence says were computed, read back and stored."""
    said = r"computes \*\*(\d+)\*\*.* reads \*\*(\d+)\*\*.* stores (\d+)"
    return [int(n) for n in re.search(said, words).groups()]


def test_a_decode_trace_becomes_boxes_totals_and_sentences():
    w = play(decode("none"), compare=decode("static"))
    naive, cached = w.scenes
    assert [meter.label for meter in cached.meters] == [
        "keys computed so far",
        "keys read back so far",
        "keys stored so far",
    ]
    assert [meter.values[-1] for meter in naive.meters] == [3 + 4 + 5 + 6, 0, 0]
    assert [meter.values[-1] for meter in cached.meters] == [6, 3 + 4 + 5, 6]
    assert naive.meters[0].full == cached.meters[0].full == 18, "bars are drawn to one scale"
    for shown, says in zip(w.scenes, zip(*w.says)):
        told = [counts(words) for words in says]
        totals = [list(accumulate(column)) for column in zip(*told)]
        assert [meter.values for meter in shown.meters] == totals, "both count the same thing"
    assert cached.boxes[-2:] == [
        scene.Box(3, "computed", 5, 3, 1, 1),
        scene.Box(3, "read", 0, 3, 5, 1),
    ]
    assert "computes **1** key, reads **5** back" in w.says[3][1]
    assert cached.words[2] == ("⏎", -1)


def test_an_attention_trace_becomes_tiles():
    w = play(tiles())
    (shown,) = w.scenes
    looks = [box.look for box in shown.boxes]
    assert shown.columns == shown.rows == 8
    assert (looks.count("tile"), looks.count("skipped")) == (10, 6)
    assert "skipped" in w.says[1][0]
    # counted from 1, as in the clip
    assert w.says[0][0].startswith("Queries 1–2 meet keys 1–2.")
    assert shown.readings[-1][-1][0] == "8"
    _, _, factor, held, square = shown.meters
    assert factor.values[0] is None, "the first tile has nothing to rescale"
    assert held.label == "scores held on chip" and set(held.values) == {2 * 2, 0}
    assert set(square.values) == {8 * 8} and held.full == square.full == 8 * 8


def test_many_queries_of_a_tile_are_counted_not_listed():
    readings = play(tiles(24, 12)).spec["readings"]
    assert {len(table) for table in readings[0]} == {9}
    assert readings[0][0][-1] == ["and 4 more", "", ""]


def test_tables_of_readings_are_equally_long():
    """The browser writes one over the other."""
    ragged = play(tiles(7, 3)).spec["readings"][0]
    assert {len(table) for table in ragged} == {3}
    assert ragged[-1][1:] == [["–", "", ""]] * 2


def test_long_traces_are_drawn_as_runs_not_cells():
    assert play(decode("static", 3, 4)).scenes[0].cells
    assert not play(decode("static", 3, 60)).scenes[0].cells
    box = scene.Box(0, "read", 2, 5, 3, 1)
    assert scene.outline(box, cells=True).count("z") == 3
    assert scene.outline(box, cells=False) == "M2.03 5.03h2.94v0.94h-2.94z"


def test_a_scene_that_has_finished_waits_for_the_other():
    w = play(decode("static", 3, 2), compare=decode("none", 3, 4))
    assert w.says[3][0] == "**KV cache** has finished."
    assert w.spec["shares"][0][1:] == [w.spec["shares"][0][1]] * 3


def test_every_look_of_a_box_has_a_style_and_no_other_can_be_drawn():
    sheet = base.asset("widgets.css")
    assert all(f".lk-k-{look}" in sheet for look in scene.LOOKS)
    shown = views.scene(decode("none"))
    with pytest.raises(ValueError, match="no box looks 'gold'"):
        replace(shown, boxes=[scene.Box(0, "gold", 0, 0, 1, 1)])


def test_a_view_is_found_by_its_name(tmp_path, monkeypatch):
    """A new kind of picture is one file; nothing else lists it."""
    trace = decode("static", 3, 1)
    (tmp_path / "other.py").touch()
    monkeypatch.setattr(views, "__path__", [str(tmp_path)])
    with pytest.raises(
        ValueError, match="no view draws 'decode' traces yet.* a player shows other"
    ):
        play(trace)
    (tmp_path / "decode.py").write_text(
        "from labkit.widgets.scene import Box, Meter, Scene\n\n\n"
        "def scene(trace):\n"
        "    boxes = [Box(0, 'tile', 0, 0, 1, 1)]\n"
        "    meters = [Meter('waiting', [1], 1)]\n"
        "    return Scene('Engine', 'rows', 1, 1, boxes, ['waits.'], meters, legend=[])\n"
    )
    monkeypatch.delitem(sys.modules, "labkit.widgets.views.decode", raising=False)
    assert play(trace).says == [["waits."]]


@pytest.mark.parametrize(
    "traces, options, message",
    [
        ([Trace("decode", "s", {"prompt": []}, [])], {}, "no steps"),
        ([decode("none"), tiles()], {}, "one kind"),
        ([decode("none")], {"labels": ["a", "b"]}, "1 traces need 1 labels"),
        ([decode("none", 3, 40)], {"max_bytes": 1000}, "record a shorter run"),
    ],
)
def test_bad_plays_are_refused_in_one_sentence(traces, options, message):
    with pytest.raises(ValueError, match=message):
        play(traces[0], compare=traces[1] if len(traces) > 1 else None, **options)


def test_a_bet_resolves_its_key_and_says_where_the_number_comes_from(stored):
    w = bet(
        "How much faster?",
        'row("ch02/baseline", variant="cached")["multiple"] | .1f',
        unit="×",
        low=1,
        high=100,
    )
    assert w.answer == 17.3 and w.spec["truth"] == "measured"
    assert "<b>17.3×</b>" in w.still
    assert "Measured on" in w.provenance and w.provenance in unescape(w.still)
    assert w.off_by is None
    w.guess, w.stage = 34.6, "locked"
    assert w.off_by == pytest.approx(2)


def test_a_bet_on_a_formula_shows_the_formula():
    w = bet(
        "Bytes per token?",
        'kv_cache_bytes(presets["llama3-70b"], 1)',
        unit="bytes",
        low=1e3,
        high=1e7,
    )
    assert w.answer == 327680
    assert "328\u00a0kB" in w.still
    assert "kv_cache_bytes" in w.provenance


def test_a_slider_says_at_each_place_how_far_off_it_is():
    w = bet("How many?", answer=17.3, unit="×", low=1, high=1000)
    guesses, texts, verdicts = (w.spec[name] for name in ("guesses", "texts", "verdicts"))
    assert len(guesses) == len(texts) == len(verdicts) == 101
    assert (guesses[0], texts[0], verdicts[0]) == (1, "1×", "<b>17 times</b> too low.")
    assert (guesses[-1], texts[-1], verdicts[-1]) == (1000, "1,000×", "<b>58 times</b> too high.")
    near = [g for g, said in zip(guesses, verdicts) if said == "well judged."]
    assert near and all(1 / 1.15 < g / 17.3 < 1.15 for g in near)
    assert w.spec["at"] == pytest.approx(math.log10(17.3) / 3, abs=1e-3)
    share = bet("What share?", answer=0.3, unit="%", low=0, high=1, log=False).spec
    assert share["verdicts"][30] == "exactly right." and share["verdicts"][50] == "20% too high."


def test_no_bet_in_the_book_starts_near_its_answer():
    """A slider starts at its low end (see test_widgets_browser): an answer near it would show."""
    bets = [
        call
        for path in (ROOT / "book").rglob("*.md")
        for call in re.findall(r"widgets\.bet\(.*?\)\n", path.read_text(), re.S)
    ]
    assert bets
    for call in bets:
        spec = eval(call, {"widgets": widgets}).spec
        assert spec["kind"] == "options" or spec["at"] > 0.2, call


def test_a_bet_among_options():
    w = bet("Which?", answer="b", options=["a", "b"])
    assert w.answer == "b" and w.spec["verdicts"] == ["not so.", "right."]


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "needs an answer"),
        ({"answer": 5}, "low < high"),
        ({"answer": 5, "low": 10, "high": 20}, "off the slider"),
        ({"answer": 5, "low": 0, "high": 20}, "above zero"),
        ({"answer": "c", "options": ["a", "b"]}, "must be one of"),
        ({"answer_key": 'row("nothing")["x"]', "low": 1, "high": 2}, "no result is stored"),
    ],
)
def test_bad_bets_are_refused_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        bet("How many?", **options)


@pytest.mark.parametrize(
    "w, words",
    [
        (
            line(),
            [
                "Lines",
                "Shown for slope 1 · kind a.",
                "<b>1</b> of a",
                '<path class="lk-s0"',
                '<th scope="row">10</th><td>10</td><td>11</td>',
                "<circle",
            ],
        ),
        (
            play(decode("static")),
            ["KV cache", "Shown after the last of 4 steps.", 'data-t="now"', "<td>6</td>"],
        ),
        (
            bet("Which <one>?", answer="b", options=["a", "b"], explain="Because."),
            ["Which &lt;one&gt;?", "<summary>Show the answer</summary>", "<b>b</b>", "Because."],
        ),
        (
            panel(stored={"bytes": 'kv_cache_bytes(presets["smollm2-135m"], 1) | ,'}),
            ["alive in Colab and Jupyter only", "<b>23,040</b>"],
        ),
    ],
)
def test_every_widget_can_stand_still(w, words):
    html = w.still
    assert all(word in html for word in words) and "lk-still" in html
    assert not any(f"<{control}" in html for control in ("input", "select", "button", "script"))
    data = bundle(w)
    assert data["text/html"] == html and "application/vnd.jupyter.widget-view+json" in data


def test_bold_text_is_escaped():
    assert markup.bold("a **<b>** & c") == "a <b>&lt;b&gt;</b> &amp; c"


def test_colours_come_from_the_palette_only():
    own = base.asset("widgets.css", "common.js", "explore.js", "play.js", "bet.js")
    assert not any(
        colour.lower() in own.lower()
        for theme in palette.PALETTE.values()
        for colour in [*map(str, theme.values()), *theme["series"]]
    )
    assert "#" not in base.asset("widgets.css") and "--lk-ink: #" in base.stylesheet()


def test_the_stylesheet_survives_the_sites_minifier():
    """rcssmin takes away a space before a colon, which would turn `a :hover` into `a:hover`."""
    assert not re.search(r"[^\s{};,>+~] +:", base.asset("widgets.css"))


class Letters:
    def encode(self, text):
        return [ord(c) % 256 for c in text]

    def decode(self, ids):
        return "".join(chr(97 + i % 26) for i in ids)


def test_the_panel_runs_a_model_and_keeps_its_runs():
    import torch

    import labkit

    loaded = []

    def load(dtype):
        loaded.append(dtype)
        return (
            labkit.GPT(labkit.presets["tiny"]).to(
                {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
            ),
            Letters(),
        )

    w = panel(load, prompt="abc")
    w.new.value, w.batch.value = 4, 2
    w.button.click()
    w.cache.value = "none"
    w.button.click()
    w.precision.value = "bf16"
    run = w.run()
    assert (
        loaded == ["fp32", "bf16"]
        and len(w.runs) == 3
        and run["first"] > 0
        and run["tokens_per_second"] > 0
    )
    assert (
        w.runs[0]["text"] == w.runs[1]["text"]
        and w.runs[0]["text"] in w.reply.value
        and "no cache, fp32, batch 2, 3 + 4 tokens" in w.table.value
    )


def test_the_panel_survives_a_bad_prompt():
    import labkit

    w = panel(lambda dtype: (labkit.GPT(labkit.presets["tiny"]), Letters()), prompt="")
    w.button.click()
    assert "empty" in w.status.value and not w.button.disabled and not w.runs


TOC = "# Page\n\n```{toctree}\npanel\n```"


def notebook(*widgets, text="# Page"):
    """A notebook that was run, as myst-nb sees it."""
    cells, state = [], {}
    for w in widgets:
        data = bundle(w)
        cells.append(
            nbformat.v4.new_code_cell(
                "w", outputs=[nbformat.v4.new_output("display_data", data=data)], execution_count=1
            )
        )
        for part in [w, *getattr(w, "children", ())]:
            state[part.model_id] = {
                "model_name": part._model_name,
                "model_module": part._model_module,
                "state": part.get_state(),
            }
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), *cells])
    page.metadata.language_info = {"name": "python", "pygments_lexer": "python"}
    page.metadata.widgets = {
        "application/vnd.jupyter.widget-state+json": {
            "version_major": 2,
            "version_minor": 0,
            "state": state,
        }
    }
    return json.loads(json.dumps(page, default=str))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two pages built by Sphinx: one with widgets, one with a panel alone."""
    source = tmp_path_factory.mktemp("site")
    (source / "index.ipynb").write_text(
        json.dumps(notebook(line(), line(title="More lines"), play(decode("static")), text=TOC))
    )
    (source / "conf.py").write_text("")
    (source / "panel.ipynb").write_text(json.dumps(notebook(panel())))
    config = {
        "extensions": ["myst_nb", "course.widgets"],
        "nb_execution_mode": "off",
        "nb_ipywidgets_js": {"widget-host.js": {}},
        "html_static_path": [str(ROOT / "book" / "_static" / "widget-host.js")],
        "html_theme": "basic",
        "exclude_patterns": ["_build"],
    }
    out = source / "_build"
    sphinxes.build(source, out, config, warningiserror=True)
    return out


def test_a_page_carries_still_pictures_and_links_each_module_once(site):
    page = (site / "index.html").read_text()
    views = 'type="application/vnd.jupyter.widget-view+json"'
    assert page.count('class="lk-mount"') == page.count('lk-still" role') == page.count(views) == 3
    state = json.loads(page.split('widget-state+json">')[1].split("</script>")[0])
    modules = re.findall(r'<script defer="defer" src="_static/lk-(\w+)\.js', page)
    assert len(state["state"]) == 3 and len(modules) == len(set(modules)) == 2
    assert page.rindex("_static/lk-") < page.index("_static/widget-host.js")
    for widget in state["state"].values():
        assert widget["state"]["_esm"] in modules
        assert not {"_css", "still"} & set(widget["state"]), "the page has them elsewhere"
    sheet = next(
        part.split('"')[0] for part in page.split('href="')[1:] if "lk-widgets" in part
    ).split("?")[0]
    assert (site / sheet).read_text() == base.stylesheet() and "widget-host.js" in page


@pytest.mark.parametrize(
    "module", ["import x from './x.js';\nexport default x;", "export const a = 1;", ""]
)
def test_a_module_that_is_no_single_file_is_refused(module):
    with pytest.raises(ValueError, match="one file with one `export default`"):
        classic(module)


def test_a_panel_alone_leaves_no_script_on_the_page(site):
    page = (site / "panel.html").read_text()
    assert (
        "alive in Colab and Jupyter only" in page
        and "vnd.jupyter" not in page
        and "widget-host.js" not in page
        and "lk-widgets" in page
    )

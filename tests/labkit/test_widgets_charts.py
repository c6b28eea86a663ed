"""Points, matrices and histograms: where things stand, counted again by plain arithmetic."""

import itertools
import json
import math
import re
from fractions import Fraction

import numpy as np
import pytest

from labkit import formulas, presets
from labkit.widgets import base, explore
from labkit.widgets.charts import labels

MODELS = [name for name in presets if not name.startswith("tiny")][:12]


def fleet(**options):
    """Twelve real models: what their cache holds, what a step reads."""

    def fn(context, batch):
        groups = {"every token": {}, "a window, or a state": {}}
        for name in MODELS:
            config = presets[name]
            windowed = name.startswith(("mistral", "gemma", "gpt-oss", "qwen3-next"))
            groups["a window, or a state" if windowed else "every token"][name] = (
                formulas.kv_cache_bytes(config, context, batch=batch),
                formulas.decode_bytes(config, context, batch=batch),
            )
        return {"series": groups, "mark": "llama3-8b"}

    return explore(
        fn,
        **{
            "title": "What is held, what is read?",
            "grids": {"context": [1024, 8192, 131072], "batch": [1, 64]},
            "chart": "points",
            "units": {"x": "bytes", "y": "bytes"},
            "labels": {"batch": "requests"},
            "x_label": "bytes of cache",
            "y_label": "bytes read",
            "log_x": True,
            "log_y": True,
            "lines": {"one second of an H200": 4.8e12},
            "x_lines": {"an H100": 80e9},
            **options,
        },
    )


def drafts(fn=None, **options):
    """A small map; a point goes missing, the chosen one and the frontier change."""

    def told(cost):
        points = {"n-gram": (1, 1.5), "tree": (4, 3 - cost), "exit": None if cost else (2, 0.5)}
        return {
            "series": points,
            "mark": "n-gram" if cost else "tree",
            "frontier": ["n-gram", "tree"],
        }

    given = {"title": "Drafts", "grids": {"cost": [0, 1]}, "chart": "points", **options}
    return explore(fn or told, **given)


WORDS = ["the", "cat", "the", "mat"]


def attention(fn=None, **options):
    """A causal square of words, one of them twice; the second answer has numbers below zero."""

    def told(k):
        cells = [[(i + j + 1) / 10 if j <= i else None for j in range(4)] for i in range(4)]
        cells[3][1] = 0.5 - k
        return {"series": cells, "mark": (None, 2 + k)}

    given = {"title": "Who looks?", "grids": {"k": [0, 1]}, "x": WORDS, "rows": WORDS}
    return explore(fn or told, **{**given, "chart": "matrix", **options})


def memory(**options):
    """A matrix too wide for numbers in its cells, of both signs."""
    noise = np.random.default_rng(0).normal(size=(2, 24, 24))
    return explore(
        lambda step: {"series": noise[step], "mark": (step, None)},
        title="Memory",
        grids={"step": [0, 1]},
        chart="matrix",
        x=list(range(24)),
        rows=[f"key {i}" for i in range(24)],
        **options,
    )


WEIGHTS = np.random.default_rng(1).normal(size=(64, 50))


def weights(fn=None, **options):
    """A matrix and the grid that it is rounded to."""

    def told(bits):
        most = 2 ** (bits - 1) - 1
        scale = float(abs(WEIGHTS).max() / most)
        levels = [scale * i for i in range(-most, most + 1)]
        return {"series": WEIGHTS, "x_lines": {"levels": levels, "scale": scale}}

    given = {"title": "Weights", "grids": {"bits": [3, 4]}, "chart": "histogram", **options}
    return explore(fn or told, **given)


def lengths(**options):
    """Counts that were given, of two kinds."""
    return explore(
        lambda k: {"before": [1, 4, 9, 4], "after": [0, k, 15 - k, 3]},
        **{
            "title": "Lengths",
            "grids": {"k": [1, 3]},
            "chart": "histogram",
            "x": [0, 1, 2, 4, 8],
            "lines": {"limit": 20},
            "x_lines": {"cut": 6},
            **options,
        },
    )


CHARTS = {
    "fleet": fleet,
    "drafts": drafts,
    "attention": attention,
    "memory": memory,
    "weights": weights,
    "lengths": lengths,
    "tail": lambda **options: weights(log_y=True, title="Their tail", **options),
}


def picture_of(w, choice: int) -> dict:
    which, _ = w.spec["answers"][choice]
    return w.spec["pictures"][which]


def table(w) -> list[list[str]]:
    """The Numbers of the still picture."""
    body = w.still.split("<tbody>")[1].split("</tbody>")[0]
    rows = body.split("</tr>")[:-1]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_a_point_stands_where_its_numbers_say():
    w = fleet()
    for choice, (context, batch) in enumerate(itertools.product([1024, 8192, 131072], [1, 64])):
        points = picture_of(w, choice)["points"]
        order = [n for group in fleet_groups() for n in group]
        held = [formulas.kv_cache_bytes(presets[n], context, batch=batch) for n in order]
        logs = [math.log10(h) for h in held]
        # a straight line leads from the logarithm to the place: any two points give it
        low, high = min(range(12), key=logs.__getitem__), max(range(12), key=logs.__getitem__)
        slope = (points[high][0] - points[low][0]) / (logs[high] - logs[low])
        for place, log in zip(points, logs):
            assert abs(points[low][0] + slope * (log - logs[low]) - place[0]) <= 1.5


def fleet_groups():
    windowed = [n for n in MODELS if n.startswith(("mistral", "gemma", "gpt-oss", "qwen3-next"))]
    return [n for n in MODELS if n not in windowed], windowed


def test_places_on_linear_axes():
    """x from 0 to 4, y from 0 to 3, counted from the top, in thousandths."""
    assert picture_of(drafts(), 0)["points"] == [[250, 500], [1000, 0], [500, 833]]
    assert picture_of(drafts(), 1)["points"] == [[250, 500], [1000, 333], None]


def test_axes_begin_at_zero_only_where_zero_is_near():
    far = drafts(lambda cost: {"a": (98, 0.1), "b": (99, 1)})
    assert picture_of(far, 0)["points"] == [[0, 900], [1000, 0]]


def test_limits_stand_on_both_axes_and_widen_them():
    w = drafts(lines={"no gain": 6}, x_lines={"budget": 8})
    assert picture_of(w, 0)["points"][1] == [500, 500]
    assert re.search(r'x1="0" x2="100%" y1="0%" y2="0%" class="lk-limit"', w.still)
    assert re.search(r'x1="100%" x2="100%" y1="0" y2="100%" class="lk-limit"', w.still)
    assert ">no gain</text>" in w.still and ">budget</text>" in w.still


def test_the_chosen_point_is_gold_and_a_frontier_joins_names():
    w = drafts()
    assert picture_of(w, 0)["mark"] == [1000, 0] and picture_of(w, 1)["mark"] == [250, 500]
    assert picture_of(w, 0)["d"] == ["", "M250 500 1000 0"]
    assert picture_of(w, 1)["d"] == ["", "M250 500 1000 333"]
    assert w.spec["answers"][1][1] == "n-gram: x <b>1</b>, y <b>1.5</b>."


def test_a_frontier_by_group_has_the_groups_stroke():
    chains = {"a": {"1": (0, 0), "2": (1, 1)}, "b": {"1": (0, 1), "2": (1, 2)}}
    w = drafts(lambda cost: {"series": chains, "frontier": {"b": ["2", "1"]}})
    assert picture_of(w, 0)["d"] == ["", "M1000 0 0 500", ""]
    assert '<path class="lk-s1" d="M1000 0 0 500">' in w.still


def test_groups_differ_in_shape_not_only_in_colour():
    shapes = re.findall(r'class="lk-point"[^>]*><path class="lk-s(\d)" d="([^"]+)"', fleet().still)
    assert len(shapes) == 12 and len(set(shapes)) == 2 and len({d for _, d in shapes}) == 2


def test_the_table_has_the_points_numbers():
    assert table(drafts()) == [
        ["n-gram", "1", "1.5"],
        ["tree", "4", "3"],
        ["exit", "2", "0.5"],
    ]
    assert table(drafts(start={"cost": 1}))[2] == ["exit", "–", "–"]
    assert table(fleet())[0] == ["gpt2-124m", "37.7\u00a0MB", "285\u00a0MB", "every token"]


def overlaps(one, other, room):
    """Do two boxes cover one another at some width? Tried at a hundred widths."""
    if one.bottom <= other.top or other.bottom <= one.top:
        return False
    for step in range(101):
        share = step / 100
        left, right, left2, right2 = (
            a + share * (b - a)
            for a, b in [
                (one.left, one.left_wide),
                (one.right, one.right_wide),
                (other.left, other.left_wide),
                (other.right, other.right_wide),
            ]
        )
        if left < right2 - 1e-9 and left2 < right - 1e-9:
            return True
    return False


def test_no_label_covers_another_at_any_width():
    random = np.random.default_rng(3)
    room = labels.Room(200, 500, 320)
    found = 0
    for _ in range(30):
        places = random.integers(50, 950, size=(12, 2)).tolist()
        words = ["name " + "x" * int(n) for n in random.integers(0, 8, size=12)]
        sides = labels.sides(places, words, room, [])
        if sides is None:
            continue
        found += 1
        boxes = [labels.box(p, labels.SIDES[k], w, room) for p, k, w in zip(places, sides, words)]
        markers = [labels.marker(p, room) for p in places]
        for (i, one), (j, other) in itertools.combinations(enumerate(boxes), 2):
            assert not overlaps(one, other, room), (i, j)
            assert not overlaps(one, markers[j], room) and not overlaps(other, markers[i], room)
    assert found > 20


def test_two_boxes_that_change_sides_are_not_clear():
    """Apart at both ends, but one passes over the other between them."""
    one, other = labels.Box(0, 10, 0, 10, 0, 9), labels.Box(-20, -10, 20, 30, 0, 9)
    assert not one.clear(other) and overlaps(one, other, None)
    assert one.clear(labels.Box(11, 20, 90, 99, 0, 9))


def test_words_are_never_wider_than_we_think():
    from matplotlib import font_manager
    from matplotlib.textpath import TextPath

    widest = font_manager.FontProperties(family="DejaVu Sans", size=labels.SIZE)
    names = [*presets, "MHA", "MLA", "SWA", "MoE", "the cat sat", "EAGLE-3", "110%", "W4A16 (AWM)"]
    for name in names:
        drawn = TextPath((0, 0), name, prop=widest).get_extents().width
        assert drawn <= labels.width(name), name


def test_numbers_and_a_key_stand_where_names_have_no_room():
    crowd = {f"a long name, number {i}": (10 + i % 3, 5 + i // 3) for i in range(12)}
    w = drafts(lambda cost: {"series": crowd | {"far": (1000, 500)}})
    names = re.findall(r'lk-name lk-slim".*?<text[^>]*>([^<]+)<', w.still)
    assert names == [str(i + 1) for i in range(13)]
    assert "<b>13</b> far</span>" in w.still
    roomy = drafts()
    assert "lk-key" not in roomy.still and w.still.count("lk-key") == 1


def boxes(path: str) -> list[tuple]:
    found = re.findall(r"M([-\d.]+) ([-\d.]+)h([-\d.]+)v([-\d.]+)", path)
    return [tuple(map(float, box)) for box in found]


def test_a_squares_area_is_its_number_and_its_cell_is_its_row_and_column():
    w = memory()
    values = np.random.default_rng(0).normal(size=(2, 24, 24))
    full = abs(values).max()
    for choice in (0, 1):
        _, above, below = picture_of(w, choice)["d"]
        seen = np.zeros((24, 24))
        for sign, path in ((1, above), (-1, below)):
            for left, top, width, height in boxes(path):
                assert width == height
                row, column = int((top + height / 2) // 100), int((left + width / 2) // 100)
                assert (left + width / 2) % 100 == (top + height / 2) % 100 == 50
                seen[row, column] = sign * width
        want = 86 * np.sqrt(abs(values[choice]) / full)
        large = want > 6
        assert large.sum() > 400
        assert (abs(abs(seen) - want)[large] <= 0.51).all()
        assert (np.sign(seen) == np.sign(values[choice]))[large].all()


def test_cells_hold_their_numbers_column_by_column_as_the_table_does():
    w = attention()
    first = picture_of(w, 0)
    assert first["y"][1] == ["–", "0.3", "0.4", "0.5"]  # the column of "cat"
    assert first["cells"][1] == ["", "0.3", "0.4", "0.5"]
    assert table(w)[3] == ["mat", "0.4", "0.5", "0.6", "0.7"]
    head = re.findall(r'<th scope="col">(.*?)</th>', w.still)
    assert head[1:] == WORDS
    drawn = re.findall(r'x="([\d.]+)%" y="([\d.]+)%"[^>]*class="lk-cell">([^<]*)<', w.still)
    assert [words for *_, words in drawn] == list(itertools.chain(*first["cells"]))
    assert [float(x) for x, *_ in drawn] == [12.5 + 25 * (k // 4) for k in range(16)]
    assert [int(float(y) // 25) for _, y, _ in drawn] == [k % 4 for k in range(16)]


def test_what_is_below_zero_is_hollow_and_the_legend_says_so():
    w = attention()
    _, above, below = picture_of(w, 1)["d"]
    assert len(boxes(above)) == 9 and len(boxes(below)) == 1
    assert "lk-hollow" in w.still and "below zero" in w.still
    assert "below zero" not in attention(lambda k: [[0.5] * 4] * 4).still


def test_a_marked_row_column_or_cell_is_framed():
    frame = lambda mark: picture_of(
        attention(lambda k: {"series": [[0.5] * 4] * 4, "mark": mark}), 0
    )["d"][0]
    assert boxes(frame((None, 2))) == [(0, 200, 400, 100)]
    assert boxes(frame((1, None))) == [(100, 0, 100, 400)]
    assert boxes(frame((3, 0))) == [(300, 0, 100, 100)]
    assert attention().spec["answers"][0][1] == "the: the largest is <b>0.5</b>, at the."


def test_the_bins_of_a_histogram_hold_all_values():
    w = weights()
    for choice in (0, 1):
        (counts,) = picture_of(w, choice)["y"]
        assert sum(int(count.replace(",", "")) for count in counts) == WEIGHTS.size == 3200
    rows = table(w)
    edges = [tuple(map(Fraction, row[0].split(" to "))) for row in rows]
    assert all(right == left for (_, right), (left, _) in itertools.pairwise(edges))
    for (left, right), row in zip(edges, rows):
        inside = sum(left <= weight < right for weight in WEIGHTS.ravel().tolist())
        assert int(row[1].replace(",", "")) == inside
    assert edges[0][0] <= WEIGHTS.min() and WEIGHTS.max() <= edges[-1][1]
    assert any(left == 0 for left, _ in edges)


def test_values_on_an_edge_are_counted_once():
    values = [0, 0.1, 0.2, 0.3, 0.3, 0.7, 1.0]
    for bins in range(1, 30):
        w = weights(lambda bits: values, bins=bins)
        assert sum(map(int, picture_of(w, 0)["y"][0])) == len(values)
    over = weights(lambda bits: [0, 5, 10.0005], bins=10)  # a hair above ten steps of one
    assert sum(map(int, picture_of(over, 0)["y"][0])) == 3
    alone = weights(lambda bits: [5, 5, 5])
    assert sum(map(int, picture_of(alone, 0)["y"][0])) == 3


def test_levels_are_drawn_from_bottom_to_top_and_listed():
    w = weights()
    outline, levels, scale = picture_of(w, 0)["d"]
    assert outline.startswith("M") and levels.count("v1000") == 7 and scale.count("v1000") == 1
    at = [int(x) for x in re.findall(r"M(\d+) 0v1000", levels)]
    steps = {b - a for a, b in itertools.pairwise(at)}
    assert max(steps) - min(steps) <= 1, "levels are evenly spaced"
    assert picture_of(w, 1)["d"][1].count("v1000") == 15
    top = float(abs(WEIGHTS).max())
    assert picture_of(w, 0)["notes"][1] == f"scale: {top / 3:.4g}"
    assert picture_of(w, 0)["notes"][0].count(",") == 6
    assert '<p class="lk-note">scale: ' in w.still


def test_given_counts_stand_between_their_edges():
    w = lengths()
    before, after = picture_of(w, 0)["d"]
    # edges 0, 1, 2, 4, 8 of 8; heights of 20
    assert before == "M0 1000V950H125V800H250V550H500V800H1000V1000"
    assert after == "M125 1000V950H250V300H500V850H1000V1000"
    assert w.spec["at"] == [62, 188, 375, 750]
    assert table(w)[2] == ["2 to 4", "9", "14"]
    assert w.spec["answers"][0][1].startswith("before: <b>18</b> in all, most at 2 to 4: <b>9</b>.")


def test_one_value_can_be_seen_on_a_logarithmic_axis_of_counts():
    w = weights(lambda bits: [0.0] * 1000 + [9.0], log_y=True, bins=10)
    (outline,) = picture_of(w, 0)["d"]
    # from one half to a thousand: log10(2) of log10(2000)
    assert f"V{1000 - round(1000 * math.log10(2) / math.log10(2000))}" in outline


def test_a_factor_of_ten_can_be_seen_where_labels_leave_it_out():
    w = explore(lambda k: [1, 1e12], title="t", grids={"k": [1]}, x=[0, 1], log_x=False, log_y=True)
    lines = re.findall(r'<line x1="0" x2="100%" y1="([\d.]+)%" y2="[\d.]+%">', w.still)
    assert len(lines) == 13 and len(re.findall('text-anchor="end"', w.still)) == 7


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_stands_still_says_something_and_is_light(name):
    w = CHARTS[name]()
    assert 'role="img" aria-label="' in w.still and "<summary>Numbers</summary>" in w.still
    assert "<b>" in w.spec["answers"][0][1]
    assert len(json.dumps(w.spec)) < 300_000
    assert "NaN" not in json.dumps(w.spec)


def test_the_charts_sheet_survives_the_sites_minifier():
    sheet = base.asset("charts.css")
    assert not re.search(r"[^\s{};,>+~(] +:", sheet) and "#" not in sheet


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "make, fn, options, message",
    [
        (drafts, lambda cost: [1, 2], {}, r"fn\(cost=0\) gives no points: give"),
        (drafts, lambda cost: {}, {}, "gives no points"),
        (drafts, lambda cost: {"a": (1, NAN)}, {}, r"puts a at \(1, nan\): give two finite"),
        (drafts, lambda cost: {"a": (INF, 1)}, {}, "two finite numbers"),
        (drafts, lambda cost: {"a": (1, 2, 3)}, {}, "two finite numbers"),
        (drafts, lambda cost: {"a": 1}, {}, "two finite numbers"),
        (drafts, lambda cost: {"": (1, 2)}, {}, "whose name is '': name it"),
        (drafts, lambda cost: {"a": (1, 1)} if cost else {"b": (1, 1)}, {}, "has the points"),
        (drafts, lambda cost: {"a": None}, {}, "every point is missing"),
        (drafts, lambda cost: {"a": (0, 1)}, {"log_x": True}, "log_x needs values above zero"),
        (drafts, lambda cost: {"a": (0, 1)}, {"x_lines": {"l": NAN}}, "puts 'l' at nan"),
        (drafts, lambda cost: {"series": {"a": (0, 1)}, "mark": "b"}, {}, "the points are a"),
        (
            drafts,
            lambda cost: {"series": {"a": None, "b": (1, 1)}, "mark": "a"},
            {},
            "missing there",
        ),
        (drafts, lambda cost: {"series": {"a": (0, 1)}, "frontier": ["z"]}, {}, "frontier through"),
        (
            drafts,
            lambda cost: {"series": {"g": {"a": (0, 1)}, "h": {"a": (1, 1)}}, "mark": "a"},
            {},
            r"2 points are called so: give \(group, name\)",
        ),
        (drafts, lambda cost: {"series": {"a": (0, 1)}, "marks": "a"}, {}, "gives 'marks', but"),
        (drafts, lambda cost: {f"g{i}": {"a": (0, i)} for i in range(7)}, {}, "7 groups, but"),
        (attention, None, {"x": None}, "explore needs `x`, its columns' names"),
        (attention, None, {"rows": None}, "explore needs `rows`"),
        (attention, lambda k: [[1] * 4] * 3, {}, "3 rows of 4 values, but there are names for 4"),
        (attention, lambda k: [[1] * (4 - k)] * 4, {}, r"k=1\) gives 4 rows of 3 values"),
        (attention, lambda k: [[1] * 4] * 3 + [[1]], {}, "rows of 1 and of 4 values"),
        (attention, lambda k: [[1] * 4] * 3 + [[1, 1, NAN, 1]], {}, "nan in row mat, column the"),
        (attention, lambda k: [[INF] * 4] * 4, {}, "inf in row the, column the"),
        (attention, lambda k: [["a"] * 4] * 4, {}, "'a' in row the"),
        (attention, lambda k: {"series": [[1] * 4] * 4, "mark": (4, 0)}, {}, "below"),
        (attention, lambda k: {"series": [[1] * 4] * 4, "mark": 2}, {}, "the mark 2"),
        (attention, None, {"log_y": True}, "a matrix has no axes for"),
        (attention, lambda k: {str(k): [1] * 4}, {"rows": None}, "has the rows"),
        (weights, lambda bits: [], {}, "gives no values"),
        (weights, lambda bits: [1, NAN, INF], {}, "2 values that are infinite or not a number"),
        (weights, lambda bits: ["a"], {}, "give numbers"),
        (weights, lambda bits: [1, 2], {"x": [0, 1]}, "2 counts, but x has 2 edges, so 1 bins"),
        (weights, lambda bits: [-1], {"x": [0, 1]}, "no bin holds fewer than none"),
        (weights, lambda bits: [1], {"x": [1, 0]}, "two or more, rising"),
        (weights, lambda bits: [1], {"x": [0, INF]}, "two or more, rising"),
        (weights, lambda bits: [1], {"bins": 0}, "needs one or more"),
        (weights, lambda bits: [1], {"log_x": True}, "not logarithmic"),
        (weights, lambda bits: {"series": [1], "x_lines": {"l": [INF]}}, {}, "puts 'l' at inf"),
        (weights, lambda bits: {"series": [1], "x_lines": 3}, {}, "has x_lines 3"),
        (weights, lambda bits: {"series": [1], "x_lines": {str(bits): 1}}, {}, "but the first had"),
        (weights, lambda bits: {"series": [1], "mark": (1, NAN)}, {}, "two finite numbers"),
        (weights, lambda bits: [1, 2], {"log_y": True, "lines": {"l": 0.1}}, "log_y begins at 0.5"),
    ],
)
def test_bad_answers_are_refused_in_one_sentence(make, fn, options, message):
    with pytest.raises(ValueError, match=message):
        make(fn, **options)


def test_a_matrix_too_heavy_is_refused_after_its_first_answer():
    calls = []

    def heavy(a, b):
        calls.append(a)
        return np.random.default_rng(a).random((100, 100))

    grids = {"a": list(range(20)), "b": list(range(20))}
    with pytest.raises(ValueError, match="over the limit of 300 kB"):
        explore(heavy, title="t", grids=grids, chart="matrix", x=[*range(100)], rows=[*range(100)])
    assert len(calls) == 1

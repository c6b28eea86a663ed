"""The formulas in JavaScript give what they give in Python."""

import ast
import dataclasses
import inspect
import json
import random

import pytest

from labkit import formulas, presets
from labkit.formulas import javascript, symbols
from labkit.formulas.typeset import FORMULAS

pytestmark = pytest.mark.site
EXACT = 2**53


@pytest.fixture(scope="module")
def calls(browser):
    """What the script gives for many calls: (function, arguments) each."""
    context = browser.new_context()
    page = context.new_page()
    page.add_script_tag(content=javascript.javascript().replace("const formulas", "var formulas"))

    def run(many: list) -> list:
        return page.evaluate(
            """many => many.map(([name, args]) => {
                const at = name.split(".").reduce((here, part) => here[part], formulas);
                const given = args.map(a => a?.sizes ? new formulas.ModelConfig(a.sizes) : a);
                try { return at(...given); } catch (e) { return e.message; }
            })""",
            many,
        )

    yield run
    context.close()


def same(theirs, ours) -> bool:
    """Whole numbers exactly, where a double holds them; others to twelve digits."""
    if isinstance(ours, dict):
        return theirs.keys() == ours.keys() and all(same(theirs[k], ours[k]) for k in ours)
    if isinstance(ours, int) and abs(ours) < EXACT:
        return theirs == ours
    return theirs == pytest.approx(ours, rel=1e-12, abs=0)


def sizes(config) -> dict:
    return {"sizes": json.loads(json.dumps(dataclasses.asdict(config)))}


@pytest.mark.parametrize("name", presets)
def test_every_preset_has_the_same_costs(calls, name):
    c, asked = presets[name], []
    for function in ("parameters", "active_parameters"):
        asked.append((function, [], getattr(formulas, function)(c)))
    for dtype in formulas.BITS:
        asked.append(("weight_bytes", [dtype], formulas.weight_bytes(c, dtype)))
        for context, batch in ((1, 1), (127, 3), (8192, 32), (100_000, 257)):
            for function in ("kv_cache_bytes", "kv_cache_reserved_bytes", "cache_parts"):
                ours = getattr(formulas, function)(c, context, batch, dtype)
                asked.append((function, [context, batch, dtype], ours))
            asked.append(
                (
                    "decode_bytes",
                    [context, batch, dtype],
                    formulas.decode_bytes(c, context, batch, dtype),
                )
            )
            asked.append(("read_parts", [batch, dtype], formulas.read_parts(c, batch, dtype)))
    for tokens in (0, 1, 1000, 131_072):
        for function in ("decode_flops", "prefill_flops", "activation_bytes"):
            asked.append((function, [tokens], getattr(formulas, function)(c, tokens)))
    for cached in (True, False):
        asked.append(("loop_flops", [30, 9, cached], formulas.loop_flops(c, 30, 9, cached)))
    theirs = calls([[function, [sizes(c), *args]] for function, args, _ in asked])
    wrong = [(a, got) for a, got in zip(asked, theirs) if not same(got, a[2])]
    assert not wrong


def test_ten_thousand_draws_of_every_symbol_give_the_same(calls):
    """Sizes as they occur in models; where a share is asked for, a share."""
    draw, asked = random.Random(0), []
    for function in FORMULAS.values():
        where = "symbols." if function.__module__ == symbols.__name__ else ""
        for _ in range(10_000 // len(FORMULAS) + 1):
            args = {p: drawn(p, draw) for p in inspect.signature(function).parameters}
            if {"X", "A"} <= args.keys():
                args["A"] = min(args["A"], args["X"])
            asked.append((where + function.__name__, list(args.values()), function(**args)))
    assert len(asked) > 10_000
    theirs = calls([[name, args] for name, args, _ in asked])
    wrong = [(a, got) for a, got in zip(asked, theirs) if not same(got, a[2])]
    assert not wrong, wrong[:3]


def drawn(parameter: str, draw: random.Random) -> float:
    if parameter in ("alpha", "c", "e", "r"):
        return draw.uniform(0, 1)
    if parameter in ("I", "peak", "bandwidth", "latency", "p_in", "p_out", "price", "throughput"):
        return draw.uniform(0.01, 1000)
    return draw.randint(1, 100_000 if parameter == "T" else 300)


def test_what_python_refuses_is_refused_in_its_words(calls):
    c = presets["tiny"]
    said = calls(
        [
            ["kv_cache_bytes", [sizes(c), -1]],
            ["read_parts", [sizes(c), 0]],
            ["weight_bytes", [sizes(c), "int7"]],
        ]
    )
    with pytest.raises(ValueError) as refused:
        formulas.kv_cache_bytes(c, -1)
    assert said[0] == str(refused.value)
    with pytest.raises(ValueError) as refused:
        formulas.read_parts(c, 0)
    assert said[1] == str(refused.value)
    # which of them is near, Python alone says
    assert said[2] == "no dtype is called 'int7'; choose from fp32, bf16, fp16, int8, int4"


@pytest.mark.parametrize(
    "code",
    [
        "while n: pass",
        "a = b = 1",
        "a += [1]",
        "a + [1]",
        "a @ 2",
        "~a",
        "f'{a:.2f}'",
        "abs(a)",
        "isinstance(a, set)",
    ],
)
def test_what_would_come_out_otherwise_is_refused_in_its_words(code):
    translator = javascript.Translator({}, set())
    with pytest.raises(NotImplementedError, match="it has no translation"):
        translator.visit(ast.parse(code).body[0])

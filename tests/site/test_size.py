"""Size any model: the page says what `labkit estimate` says, reads a config.json by the same rules,
refuses what it cannot size in one sentence, and its link brings everything back.
"""

import json
import os
import random
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import transformers as hf

from labkit import cli, formulas, hf_sizes, presets
from labkit_labs.common import gpus
from tests.conftest import PHONE
from tests.site.test_formulas_browser import same

pytestmark = pytest.mark.site
PAGE = "book/appendix/size-any-model"
PUBLISHED = [name for name in presets if not name.startswith("tiny")]
SIZED = (
    *("parameters", "active_parameters", "weight_bytes", "cache_held_bytes"),
    *("cache_reserved_bytes", "largest_batch", "ttft_floor", "tpot_floor", "dollars_per_million"),
)
ROPE = {"rope_type": "longrope", "factor": 4.0}  # of no family here, and of no size

# A config of every family that is read, some of them twice; sizes of no published model.
CONFIGS = {
    "gpt2": hf.GPT2Config(n_embd=96, n_head=6, n_layer=5, vocab_size=501),
    "gpt2-wide": hf.GPT2Config(n_embd=96, n_head=6, n_layer=5, n_inner=200),
    "llama": hf.LlamaConfig(hidden_size=512, num_attention_heads=8, num_hidden_layers=6),
    "llama-biased": hf.LlamaConfig(num_key_value_heads=4, attention_bias=True),
    "mistral": hf.MistralConfig(sliding_window=300, num_hidden_layers=7),
    "mistral-full": hf.MistralConfig(sliding_window=None),
    "mixtral": hf.MixtralConfig(num_local_experts=6, num_experts_per_tok=3),
    "qwen3": hf.Qwen3Config(num_hidden_layers=9),
    "qwen3-slides": hf.Qwen3Config(
        use_sliding_window=True, sliding_window=77, max_window_layers=20
    ),
    "qwen3-moe": hf.Qwen3MoeConfig(num_hidden_layers=11, mlp_only_layers=[0, 1]),
    "qwen3-next": hf.Qwen3NextConfig(num_hidden_layers=10),
    "gemma3": hf.Gemma3TextConfig(num_hidden_layers=13),
    "gpt-oss": hf.GptOssConfig(num_hidden_layers=8),
    "deepseek": hf.DeepseekV3Config(num_hidden_layers=12),
    "deepseek-full-rank": hf.DeepseekV3Config(q_lora_rank=None, first_k_dense_replace=1),
}
CONFIGS = {name: json.loads(config.to_json_string(False)) for name, config in CONFIGS.items()}

SET = """given => {
    const form = document.querySelector(".sizer");
    for (const [name, value] of Object.entries(given)) form.elements[name].value = value;
    form.elements.users.dispatchEvent(new Event("input", { bubbles: true }));
    const outputs = [...form.querySelectorAll("output")];
    return {
        error: form.querySelector(".sizer-error").textContent,
        ...Object.fromEntries(outputs.map(o => [o.dataset.size, JSON.parse(o.dataset.value)])),
    };
}"""


@pytest.fixture(scope="module")
def sizer(browser, site):
    """One page for many questions: what it answers to a form filled in so."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site}{PAGE}.html")
    yield lambda **given: page.evaluate(SET, given)
    context.close()


def estimate(capsys, model, q: dict) -> dict:
    options = {"dtype": q["dtype"], "context": q["context"], "gpu": q["gpu"], "gpus": q["gpus"]}
    options |= {"users": q["users"], "price": q["price"], "batch": q["users"]}
    options |= {"cache-dtype": q["cache"]} if q["cache"] else {}
    args = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    cli.main(["estimate", str(model), *args, "--json"])
    return json.loads(capsys.readouterr().out)


def drawn(draw: random.Random) -> dict:
    return {
        "gpu": draw.choice(list(gpus.table()["gpus"])),
        "gpus": draw.choice([1, 1, 2, 8, 500]),
        "dtype": draw.choice(list(formulas.BITS)),
        "cache": draw.choice(["", *formulas.BITS]),
        "context": draw.choice([1, 17, 1000, 8192, 131_072, 1_000_003]),
        "users": draw.choice([1, 3, 64, 1000]),
        "price": draw.choice([0.5, 2, 3.348]),
    }


def check(answer: dict, expected: dict):
    assert answer["error"] == ""
    wrong = {
        key: (answer[key], expected[key])
        for key in SIZED
        if not (answer[key] is expected[key] is None or same(answer[key], expected[key]))
    }
    assert not wrong


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_preset_gets_what_estimate_says(sizer, capsys, name):
    draw = random.Random(name)
    for _ in range(12):
        q = drawn(draw)
        check(sizer(model=name, **q), estimate(capsys, name, q))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_gets_what_estimate_says(sizer, capsys, tmp_path, name):
    draw, path = random.Random(name), tmp_path / "config.json"
    text = json.dumps(CONFIGS[name] | {"rope_scaling": ROPE, "of_tomorrow": {"a": [1]}})
    path.write_text(text)
    for _ in range(6):
        q = drawn(draw)
        check(sizer(model="", config=text, **q), estimate(capsys, path, q))


def test_every_family_has_a_config_here():
    assert {c["model_type"] for c in CONFIGS.values()} == {*hf_sizes.FAMILIES}


def test_a_step_reads_what_estimate_says(sizer, capsys):
    for name, users in product(("llama3-8b", "gpt-oss-20b", "qwen3-0.6b"), (1, 9)):
        q = drawn(random.Random(0)) | {"gpu": "H200", "gpus": 8, "users": users, "context": 999}
        assert same(
            sizer(model=name, **q)["decode_bytes"], estimate(capsys, name, q)["decode_bytes"]
        )


def mutated(config: dict, draw: random.Random) -> dict:
    """A config with some entries lost, null, of another size or of another kind."""
    config = dict(config)
    for name in draw.sample(sorted(config), draw.randint(1, 4)):
        change = draw.choice(["lose", "null", "size", "size", "kind"])
        if change == "lose":
            del config[name]
        elif change == "null":
            config[name] = None
        elif change == "size" and type(config[name]) is int:
            config[name] = draw.choice([0, 1, 2, 3, 64, 96, 128, 4096, -1, 2.5])
        else:
            config[name] = draw.choice(["many", True, False, [], ["sliding_attention"], {}, [5]])
    return config


def test_two_thousand_spoiled_configs_are_read_or_refused_alike(visit):
    """The same numbers, or the same sentence (but for the name that Python finds near)."""
    page = visit().open(PAGE)
    draw = random.Random(14)
    many = [mutated(draw.choice(list(CONFIGS.values())), draw) for _ in range(2000)]
    theirs = page.evaluate(
        """many => many.map(c => {
            try {
                const config = formulas.config_from_sizes(c);
                return [formulas.parameters(config), formulas.active_parameters(config),
                    formulas.kv_cache_bytes(config, 5000, 3), formulas.decode_flops(config, 5000),
                    formulas.kv_cache_reserved_bytes(config, 5000, 3)];
            } catch (e) { return e instanceof RangeError ? e.message : `${e}`; }
        })""",
        many,
    )
    refused = 0
    for config, got in zip(many, theirs):
        try:
            c = hf_sizes.config_from_sizes(config)
        except ValueError as e:
            refused += 1
            assert isinstance(got, str) and got.split(";")[0] == str(e).split(";")[0], config
            continue
        ours = [
            formulas.parameters(c),
            formulas.active_parameters(c),
            formulas.kv_cache_bytes(c, 5000, 3),
            formulas.decode_flops(c, 5000),
            formulas.kv_cache_reserved_bytes(c, 5000, 3),
        ]
        assert all(map(same, got, ours)), (got, ours, config)
    assert 400 < refused < 1900


LLAMA = CONFIGS["llama"]


@pytest.mark.parametrize(
    "text,sentence",
    [
        ("", "Paste a config.json into the box, all of it"),
        ("not json", "This is not JSON: a config.json begins with { and ends with }"),
        ('{"model_type": "llama",', "This is not JSON"),
        ("[1, 2]", "A config.json is an object: it begins with { and ends with }"),
        ("null", "A config.json is an object"),
        ("{}", "This checkpoint's config lacks model_type"),
        ('{"model_type": "rwkv7"}', "No model family is called 'rwkv7'; choose from gpt2, llama,"),
        ('{"model_type": "constructor"}', "No model family is called 'constructor'"),
        ('{"model_type": "gemma3", "text_config": {}}', "This model reads more than text: give"),
        (json.dumps(LLAMA | {"vocab_size": None}), "This checkpoint's config lacks vocab_size"),
        (
            json.dumps(LLAMA | {"hidden_size": "512"}),
            "Hidden_size must be a whole number >= 1, not '512'",
        ),
        (
            json.dumps(LLAMA | {"num_key_value_heads": 5}),
            "8 query heads can't share 5 key/value heads: 8 % 5 = 3",
        ),
        (json.dumps(LLAMA | {"num_hidden_layers": 10**9}), "A model of 1000000000 layers can't be"),
        (
            json.dumps(CONFIGS["gemma3"] | {"layer_types": ["chunked_attention"] * 13}),
            "No layer type is called 'chunked_attention'; choose from full, sliding, mla, delta",
        ),
        (json.dumps(LLAMA | {"mlp_bias": True}), "This checkpoint has mlp_bias = True, which"),
    ],
)
def test_what_can_not_be_sized_is_said_and_the_last_answer_stays(sizer, text, sentence):
    before = sizer(model="llama3-8b", gpu="H100", gpus=1, context=8192, users=16, dtype="bf16")
    after = sizer(model="", config=text)
    assert after.pop("error").startswith(sentence) and before.pop("error") == ""
    assert after == before
    assert sizer(model="llama3-8b")["error"] == ""


@pytest.mark.parametrize(
    "given,sentence",
    [
        ({"context": ""}, "The context must be a whole number from 1 to 100,000,000"),
        ({"context": "1.5"}, "The context must be a whole number"),
        ({"users": "0"}, "The number of users must be a whole number"),
        ({"gpus": "-3"}, "The number of GPUs must be a whole number"),
        ({"price": "-1"}, "The price must be a number of dollars"),
    ],
)
def test_a_knob_out_of_its_range_is_said(sizer, given, sentence):
    whole = {"model": "qwen3-0.6b", "context": 99, "users": 2, "gpus": 1, "price": 2}
    assert sizer(**whole | given)["error"].startswith(sentence)
    assert sizer(**whole)["error"] == ""


def answers(page) -> dict:
    return page.evaluate(SET, {})


@pytest.mark.parametrize("home", ["http", "file"])
@pytest.mark.parametrize("name", ["preset", "gemma3", "deepseek"])
def test_a_link_brings_everything_back(visit, home, name):
    page = visit(home).open(PAGE)
    given = drawn(random.Random(3)) | {"gpu": "L4", "gpus": 8, "users": 5}
    own = CONFIGS.get(name)
    text = json.dumps(own, indent=2) if own else ""
    before = page.evaluate(SET, given | {"model": "" if own else "gpt-oss-20b", "config": text})
    assert before["error"] == ""
    page.wait_for_function("location.hash.includes('users=5')")
    if own:
        page.wait_for_function("location.hash.includes('config=')")
    address = page.url
    assert len(address.partition("#")[2]) < 600, "it carries what was asked for, packed"
    again = visit(home)
    again.page.goto(address)
    if own:
        again.page.wait_for_function("document.querySelector('[name=config]').value")
    assert answers(again.page) == before
    if own:
        kept = json.loads(again.page.locator("[name=config]").input_value())
        assert kept.items() <= own.items() and len(kept) < len(own)
    assert again.errors == [] and again.outside == []


@pytest.mark.parametrize(
    "hash,sentence",
    [
        ("model=phi3", "This link's settings can't be read: model can't be \"phi3\"."),
        ("model=&config=%21%21", "This link's settings can't be read: its config is damaged."),
        ("model=llama3-8b&users=many", "This link's settings can't be read: users can't be"),
        ("model=" + "x" * 30_000, "This link's settings can't be read: it is too long."),
    ],
)
def test_a_damaged_link_is_said(visit, hash, sentence):
    seen = visit()
    seen.page.goto(f"{seen.home}{PAGE}.html#{hash}")
    told = seen.page.locator(".sizer-error")
    told.filter(has_text="link").wait_for()
    assert told.text_content().startswith(sentence)
    assert answers(seen.page)["parameters"] > 0 and seen.errors == []


@pytest.mark.parametrize("home", ["http", "file"])
def test_it_is_filled_before_it_is_seen(visit, home):
    """Its scripts stand behind it: nothing below moves when it answers."""
    seen = visit(home)
    seen.page.goto(f"{seen.home}{PAGE}.html", wait_until="commit")
    seen.page.wait_for_function("document.querySelector('article h2')")
    shown = seen.page.locator(".sizer output").all_text_contents()
    assert len(shown) == 10 and "–" not in shown
    assert seen.errors == []


def test_by_keyboard(visit):
    page = visit().open(PAGE)
    page.locator("#size-model").focus()
    for expected in ("gpu", "gpus", "dtype", "price", "cache", "context"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == expected
    page.keyboard.press("Control+A")
    page.keyboard.type("4096")
    assert "4,096 tokens" in page.locator(".sizer-say").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#size-context").input_value() == "8192"
    page.locator(".sizer-row summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".sizer-row").first.get_attribute("open") is not None
    assert (
        page.get_by_role("cell", name="1,409,286,144").or_(page.locator(".sizer-with td")).count()
    )


def test_hostile_text_stays_text(visit):
    seen = visit()
    page = seen.open(PAGE)
    text = json.dumps({"model_type": "<img src=x onerror=alert(1)>"})
    page.evaluate(SET, {"model": "", "config": text})
    assert "<img src=x" in page.locator(".sizer-error").text_content()
    assert page.locator(".sizer img").count() == 0 and seen.errors == []


def test_without_javascript_there_is_the_table(visit):
    page = visit(java_script_enabled=False).open_without_script(PAGE)
    assert not page.locator(".sizer").is_visible()
    rows = page.locator("table tbody tr")
    assert rows.count() == len(PUBLISHED)
    assert "8.03" in rows.filter(has_text="llama3-8b").inner_text()


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize(
    "look", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"forced_colors": "active"}]
)
def test_axe_finds_nothing_in_any_state(visit, size, look):
    page = visit(**look, **(PHONE if size == "phone" else {})).open(PAGE)
    axe = Path(find_spec("axe_playwright_python").origin).parent / "axe.min.js"
    page.evaluate(axe.read_text())
    run = "axe.run('.sizer', { resultTypes: ['violations'] }).then(found => found.violations)"
    page.evaluate("document.querySelectorAll('.sizer details').forEach(d => { d.open = true })")
    for given in (
        {"model": "gemma3-27b"},
        {"model": "", "config": "{"},
        {"model": "deepseek-v3", "gpus": 1},
    ):
        page.evaluate(SET, given)
        found = page.evaluate(run)
        assert not found, [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found]
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert page.evaluate(wide)

"""`labkit estimate` says where each byte goes: its rows sum to its totals, and its words to its
numbers; and what GPUs can do at best with a model.
"""

import json
import re
from itertools import product

import pytest

from labkit import cli, formulas, presets
from labkit.cli import estimate
from labkit_labs.common import gpus


@pytest.mark.parametrize("name", presets)
@pytest.mark.parametrize(
    "context,batch,dtype,cache_dtype",
    [(131_072, 1, "bf16", "bf16"), (1000, 32, "int4", "bf16"), (77, 5, "fp32", "int8")],
)
def test_rows_sum_to_the_totals(name, context, batch, dtype, cache_dtype):
    c = presets[name]
    weights = estimate.weight_rows(c, batch, dtype)
    cache = estimate.cache_rows(c, context, batch, cache_dtype)
    total = lambda rows, key: sum(row[key] for row in rows)
    assert total(weights, "parameters") == formulas.parameters(c)
    assert total(weights, "held") == pytest.approx(formulas.weight_bytes(c, dtype), rel=1e-12)
    assert total(cache, "held") == formulas.kv_cache_bytes(c, context, batch, cache_dtype)
    assert total(weights, "read") + total(cache, "read") == pytest.approx(
        formulas.decode_bytes(c, context, batch, dtype, cache_dtype), rel=1e-12
    )
    assert estimate.with_total(weights)[-1]["parameters"] == formulas.parameters(c)
    assert {row["what"] for row in cache} == {*c.types} and total(cache, "layers") == c.n_layers


@pytest.mark.parametrize("name", presets)
@pytest.mark.parametrize("context,dtype", [(131_072, "bf16"), (50, "fp32"), (64, "int4")])
def test_the_cache_in_words_is_the_cache_in_bytes(name, context, dtype):
    for row in estimate.cache_rows(presets[name], context, 3, dtype):
        sum_ = re.sub(r"(?<=\d),(?=\d)", "", row["how"])  # 131,072 -> 131072
        sum_ = re.sub(r"\b(?!min\b|x\b)[a-z]+", "", sum_).replace("x", "*")
        assert eval(sum_) == row["held"], row["how"]


def printed(capsys, *args) -> str:
    cli.main(["estimate", *args])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", presets)
def test_every_preset_prints(capsys, name):
    assert f"{formulas.parameters(presets[name]):,}" in printed(capsys, name)


def test_what_the_table_says(capsys):
    out = printed(capsys, "deepseek-v3", "--context", "131072")
    assert (
        "(512 latent + 64 rotated) numbers x 131,072 tokens x 2 bytes" in out
        and "8.0 of 256 experts a layer" in out
        and "9.21 GB" in out
    )
    assert "653,908,770,816" in out and "671,026,404,352" in out and "5.6% of them work" in out
    out = printed(capsys, "gemma3-27b", "--context", "131072", "--batch", "4")
    assert (
        "4 requests x 52 layers x 2 x 16 heads x 128 numbers x min(131,072, 1,024) tokens" in out
        and "embedding and head" in out
    )
    assert "8 of 151,936 rows" in printed(capsys, "qwen3-next-80b-a3b", "--batch", "8")
    assert "conv inputs x 8,192 x 2 bytes" in printed(capsys, "qwen3-next-80b-a3b")


def asked(capsys, *args) -> dict:
    return json.loads(printed(capsys, *map(str, args), "--json"))


def test_held_and_reserved_stand_in_one_unit(capsys):
    """A calculator that names what sequences need alone promises room that an engine with pages for
    the full length does not have.
    """
    out = printed(capsys, "gpt-oss-20b", "--context", "8192", "--batch", "32")
    assert re.search(r"KV cache, held +6\.54 GB", out)
    assert re.search(r"KV cache, reserved +12\.88 GB", out)
    made = asked(capsys, "gpt-oss-20b", "--context", 8192, "--gpu", "H200", "--users", 32)
    assert made["cache_held_bytes"] == 6_543_114_240
    assert made["cache_reserved_bytes"] == 12_884_901_888
    out = printed(capsys, "tiny-swa", "--context", "1024", "--gpu", "L4", "--users", "9")
    units = re.findall(r"^cache (?:held|reserved) +[\d.,]+ (\w+)", out, re.M)
    assert len(units) == 2 and len({*units}) == 1


def test_what_a_gpu_adds_is_added(capsys):
    plain = asked(capsys, "llama3-8b", "--context", 8192)
    sized = asked(capsys, "llama3-8b", "--context", 8192, "--gpu", "H100", "--users", 16)
    assert list(plain) == [
        *("parameters", "active_parameters", "weight_bytes"),
        *("kv_cache_bytes", "decode_flops", "decode_bytes"),
    ]
    assert sized == plain | {
        "cache_held_bytes": 16 * 2**30,
        "cache_reserved_bytes": 16 * 2**30,
        "largest_batch": 52,
        "ttft_floor": pytest.approx(0.13341, rel=1e-4),
        # a step reads the weights but for the embedding, and 16 GiB of cache
        "tpot_floor": pytest.approx((2 * 7_504_924_672 + 16 * 8192 + 2**34) / 3.35e12, rel=1e-9),
        "dollars_per_million": pytest.approx(
            1e6 * 3.348 / 3600 * sized["tpot_floor"] / 16, rel=1e-12
        ),
    }
    assert sized["tpot_floor"] < 0.01


def test_what_140_gb_need(capsys):
    """140 GB at 3.35 TB/s are 42 ms a token, and they don't fit one card."""
    alone = asked(capsys, "llama3-70b", "--context", 1000, "--gpu", "H100", "--users", 1)
    assert alone["largest_batch"] == 0
    assert {alone[k] for k in ("ttft_floor", "tpot_floor", "dollars_per_million")} == {None}
    assert "need at least 2 x H100" in printed(capsys, "llama3-70b", "--gpu", "H100")
    pair = asked(capsys, "llama3-70b", "--context", 1000, "--gpu", "H100", "--gpus", 2)
    assert 2 * pair["tpot_floor"] == pytest.approx(0.042, abs=0.0005)


@pytest.mark.parametrize("name", presets)
def test_no_floor_is_above_what_its_parts_take(name):
    """A floor is the larger of reading and computing, so neither alone is above it; more users or
    tokens never make a step faster, and a second GPU halves it.
    """
    c, card = presets[name], gpus.named("H100")
    hw = card.ceilings
    for context, batch in product((1, 100, 5000), (1, 7, 300)):
        step = formulas.tpot_floor(c, context, batch, hw)
        read = formulas.decode_bytes(c, context, batch) / hw.bytes_per_second
        work = batch * formulas.decode_flops(c, context) / hw.flops_per_second
        assert step == pytest.approx(max(read, work), rel=1e-12)
        assert step <= formulas.tpot_floor(c, context + 1, batch + 1, hw)
        twice = formulas.together(hw, 2)
        assert formulas.tpot_floor(c, context, batch, twice) == pytest.approx(step / 2, rel=1e-12)


@pytest.mark.parametrize("name", presets)
@pytest.mark.parametrize("tokens", [1, 2, 17, 700])
def test_the_least_prefill_attends_to_what_the_mask_shows(name, tokens):
    c = presets[name]
    squares = formulas.attention_flops(c, 2, 1) // 2  # one query and one key, of all layers
    pairs = lambda window: sum(min(t + 1, window or tokens) for t in range(tokens))
    shown = 0
    for i, kind in enumerate(c.types):
        one = c.replace(n_layers=1, layer_types=(kind,), n_dense_layers=0)
        of_a_pair = formulas.attention_flops(one, 2, 1) / 2
        shown += of_a_pair * (tokens if kind == "delta" else pairs(c.window_of(i)))
    whole = formulas.prefill_flops(c, tokens) - formulas.attention_flops(c.replace(), 2, tokens) * (
        tokens / 2
    )
    assert squares > 0
    assert formulas.least_prefill_flops(c, tokens) == pytest.approx(whole + shown, rel=1e-12)


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gemma3-27b", "deepseek-v3", "qwen3-0.6b"])
def test_a_batch_fits_and_one_more_does_not(name):
    c = presets[name]
    for gpu, reserved in product(("H200", "L4"), (False, True)):
        memory = 8 * gpus.named(gpu).memory_bytes
        n = formulas.largest_batch(c, memory, 5000, reserved=reserved)
        bytes_of = formulas.kv_cache_reserved_bytes if reserved else formulas.kv_cache_bytes
        one, room = bytes_of(c, 5000, 1), formulas.room_bytes(c, memory)
        assert n * one <= max(room, 0) < (n + 1) * one or (n == 0 and room < 0)


def test_users_beyond_the_largest_batch_wait(capsys):
    few = asked(capsys, "llama3-8b", "--context", 8192, "--gpu", "H100", "--users", 52)
    many = asked(capsys, "llama3-8b", "--context", 8192, "--gpu", "H100", "--users", 99)
    assert many["tpot_floor"] == few["tpot_floor"]
    out = printed(
        capsys, "llama3-8b", "--context", "8192", "--gpu", "H100", "--users", "99", "--price", "2"
    )
    assert "47 users must wait" in out and "$2 / (3600 x" in out and "pricing" not in out
    assert "docs.runpod.io" in printed(capsys, "llama3-8b", "--gpu", "H100")


def test_a_config_json_is_sized_like_its_preset(capsys, tmp_path):
    llama = dict(
        model_type="llama",
        vocab_size=128256,
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        max_position_embeddings=8192,
        rope_scaling={"type": "dynamic", "factor": 2.0},  # what changes no size does not matter
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps(llama))
    options = ("--context", 4096, "--batch", 3, "--gpu", "H100", "--users", 4)
    assert asked(capsys, path, *options) == asked(capsys, "llama3-8b", *options)
    assert asked(capsys, tmp_path, *options) == asked(capsys, path, *options)


@pytest.mark.parametrize(
    "text,message",
    [
        ("{", "config.json is not JSON: Expecting property name"),
        ("[1]", "a config.json is an object: it begins with { and ends with }"),
        ('{"model_type": "mamba"}', "no model family is called 'mamba'; choose from gpt2, llama"),
        ('{"model_type": "llama"}', "this checkpoint's config lacks hidden_size"),
    ],
)
def test_a_config_that_can_not_be_sized_is_refused(capsys, tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SystemExit):
        cli.main(["estimate", str(path)])
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "args,message",
    [
        (
            ["llama3-8b", "--users", "3"],
            "--gpus, --users and --price need a --gpu, such as --gpu H100",
        ),
        (["llama3-8b", "--gpu", "L40"], "no GPU is called 'L40'; did you mean 'L4'?"),
        (
            ["llama3-8b", "--gpu", "H100", "--users", "0"],
            "GPUs, context and users must be at least 1, not 1, 8192, 0",
        ),
        (["nowhere/config.json"], "there is no file nowhere/config.json"),
        (["deepseek-v4"], "no preset is called 'deepseek-v4'; did you mean 'deepseek-v3'?"),
        (["deepseek-v3", "--batch", "0"], "context and batch must be at least 1, not 163840 and 0"),
        (
            ["deepseek-v3", "--cache-dtype", "int5"],
            "no dtype is called 'int5'; did you mean 'int8'?",
        ),
    ],
)
def test_bad_input_is_one_sentence(capsys, args, message):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["estimate", *args])
    out = capsys.readouterr()
    assert stopped.value.code == 2 and out.err.strip() == f"labkit: {message}" and not out.out

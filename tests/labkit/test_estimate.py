"""`labkit estimate` says where each byte goes: its rows sum to its totals, and its words to its
numbers.
"""

import re

import pytest

from labkit import cli, formulas, presets
from labkit.cli import estimate


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


@pytest.mark.parametrize(
    "args,message",
    [
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

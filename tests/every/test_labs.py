"""Labs: each gives the columns it promises, each checkpoint stops at a result that should stop it,
and what labs build on is right.
"""

import copy
import functools
import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import labkit
from labkit import formulas, presets
from labkit.cli import main
from labkit.lab import labs
from labkit.tables import table
from labkit_labs.ch01_where_the_work_goes import flops as lab_01_flops
from labkit_labs.ch03_gqa import heads as lab_05_mha_gqa_mqa
from labkit_labs.ch03_gqa import pool as lab_ch03_pool
from labkit_labs.ch04_mla import absorbed as lab_06_mla
from labkit_labs.ch05_swa import sinks as lab_ch05_sinks
from labkit_labs.ch08_choosing import fair as lab_09_fair_comparison
from labkit_labs.ch08_choosing import pretraining as lab_app_c_before_pretraining
from labkit_labs.ch08_choosing import shell as lab_code_02_one_shell
from labkit_labs.common import corpus as text
from labkit_labs.common import gpus, layer

OWN = {"09", "10", "12"}  # chapters whose labs have a file of tests beside this one
LABS = {id: lab for id, lab in labs().items() if lab.chapter not in OWN}
REAL = {
    "CH01-PROTOCOL",
    "CH02-LOOPS",
    "CH02-CACHED",
    "CH02-LOSES",
    "CH02-BASELINE",
    "CH03-POOL",
    "CH05-SINKS",
    "CH11-FORMATS",
    "CH11-OUTLIERS",
    "CH11-INT8",
    "CH11-AWQ",
    "CH11-GPTQ",
    "CH14-LADDER",
}  # run SmolLM2
CLOCKLESS = {
    "CH01-FLOPS",
    "CH02-LOOPS",
    "CH03-SAVINGS",
    "CH03-POOL",
    "CH05-SINKS",
    "CH06-UNION",
    "CH08-SHELL",
    "CH08-ORDER",
    "CH08-PRETRAINING",
}
TINY = presets["tiny"]


@functools.cache
def quick_rows(id: str) -> list[dict]:
    """One quick run of a lab, shared by the tests."""
    return LABS[id].run(device="cpu", quick=True)


def each_lab(ids=LABS):
    return pytest.mark.parametrize(
        "id", [pytest.param(id, marks=[pytest.mark.smollm2] if id in REAL else []) for id in ids]
    )


@each_lab()
def test_a_quick_run_gives_what_the_lab_promises(id):
    lab, rows = LABS[id], quick_rows(id)
    assert [key for key in lab.columns if not any(key in row for row in rows)] == []
    assert (
        json.loads(json.dumps(rows)) == rows
        and len(table(rows, lab.columns).splitlines()) >= len(rows) + 2
    )
    if lab.plot:
        chart = lab.plot(rows)
        assert len(chart.alt) > 30 and "<svg" in chart._repr_html_()
    if id in CLOCKLESS:
        assert lab.stops(rows) is None


def test_every_lab_asks_a_question_at_its_checkpoint():
    for lab in labs().values():
        asked = [check.__doc__ for check in (lab.go, lab.pays) if check]
        assert asked and all(question.endswith("?") for question in asked)
        assert lab.objective.endswith(".") and lab.notice.endswith(".") and lab.minutes >= 0


# -- checkpoints -------------------------------------------------------------------------


def changed(where: dict, **to):
    """A doctor: in the first row that has these values, others."""

    def doctor(rows):
        row = next(r for r in rows if all(r.get(k) == v for k, v in where.items()))
        row.update(to)

    return doctor


DOCTORED = [
    ("CH01-FLOPS", changed({"model": "tiny"}, flops=1), "look for a part of the model"),
    ("CH01-FLOPS", changed({"model": "llama3-8b"}, flops=1), "the formula says"),
    (
        "CH01-PROTOCOL",
        changed({"what": "decode", "protocol": "warm, median of all"}, spread=0.8),
        "80% of the median apart",
    ),
    (
        "CH02-LOOPS",
        changed({"step": 3}, cached_computed=8),
        "in step 3 the cached loop computes 8 keys",
    ),
    ("CH02-FLASH", changed({"kind": "fused"}, gap=0.1), "differ by 1.0e-01"),
    ("CH02-FLASH", changed({"kind": "fused"}, context=256, gap=float("nan")), "differ by nan"),
    (
        "CH02-CACHED",
        changed({"context": 300}, prefill_tokens_per_second=1.0, tokens_per_second=2.0),
        "prefill is no faster",
    ),
    (
        "CH02-LOSES",
        changed({"context": 512}, cache_share=0.5, multiple=1.0),
        "50% of the bytes are cache",
    ),
    ("CH02-BASELINE", changed({"variant": "cached"}, multiple=1.1), "1.1 times as fast"),
    ("CH03-SAVINGS", changed({"kv_heads": 8}, held=1), "a cache took 1 bytes"),
    ("CH03-SAVINGS", changed({"kv_heads": 8}, multiple=32.0), "query heads were counted"),
    ("CH03-HEADS", changed({"variant": "GQA"}, gap=0.01), "which query head reads which key head"),
    (
        "CH03-HEADS",
        changed({"variant": "GQA", "way": "grouped"}, context=8000, over_expanded=3.9),
        "where 4 is usual",
    ),
    ("CH03-POOL", changed({"kv_heads": 3}, score=50.0, before=45.0), "order of rows in qkv"),
    ("CH03-POOL", changed({"kv_heads": 1}, score=45.0, before=45.0), "pooled at all"),
    ("CH03-POOL", changed({"kv_heads": 1}, cache_bytes=7), "look at the model that was built"),
    ("CH04-ABSORBED", changed({"path": "absorbed"}, gap=0.1), "order of latent and RoPE part"),
    (
        "CH04-ABSORBED",
        changed({"path": "absorbed"}, context=8000, multiple=19.0),
        "where at least 20 is usual",
    ),
    ("CH05-RING", changed({"kind": "ring"}, cache_bytes=1), "the size of its window"),
    ("CH05-RING", changed({"kind": "ring"}, multiple=9.0), "it must be the window"),
    (
        "CH05-RING",
        changed({"kind": "all sliding"}, saving=1.0),
        "min(context, window) was forgotten",
    ),
    ("CH05-SINKS", changed({"view": "window", "first": 0}, nll=9.0), "within the first window"),
    (
        "CH05-SINKS",
        changed({"view": "window + 4 sinks", "first": 64}, nll=99.0),
        "give back less than half",
    ),
    ("CH06-DENSE", changed({"variant": "MoE, grouped"}, gap=0.5), "differs from the loop"),
    (
        "CH06-UNION",
        changed({"batch": 8, "tokens_are": "independent"}, of_formula=1.3),
        "whether the router is even",
    ),
    (
        "CH06-UNION",
        changed({"batch": 8, "tokens_are": "alike"}, touched=99.0),
        "more than they chose",
    ),
    ("CH07-STATE", changed({"kind": "delta"}, multiple=9.0), "a state has no length"),
    ("CH07-STATE", changed({"kind": "chunked"}, gap=0.1), "what a chunk passes on"),
    (
        "CH07-STATE",
        changed({"what": "prefill, small", "kind": "chunked"}, tokens=1024, over_recurrent=4.9),
        "where 5 is usual",
    ),
    ("CH08-FAIR", changed({"check": "dtype"}, on_rigged="pass"), "it can't fail"),
    (
        "CH08-FAIR",
        changed({"check": "seed"}, on_fair="written: theirs 3, ours 4"),
        "fails on the fair run",
    ),
    ("CH08-FAIR", changed({"run": "fair"}, multiple=3.0), "3.00 apart"),
    (
        "CH08-SHELL",
        changed({"variant": "MLA"}, shapes=["[74, 128] -> [74, 64]"]),
        "must not change the contract",
    ),
    ("CH08-SHELL", changed({"variant": "MoE"}, shell=2), "2 tensors of the shell"),
    ("CH11-FORMATS", changed({}, normal_decibels=99.0), "count its bits again"),
    ("CH11-OUTLIERS", changed({"layer": 11}, per_row=2.0), "which axis is scaled"),
    ("CH11-INT8", changed({"variant": "int8 weights"}, bytes=10**9), "left as they were"),
    ("CH11-INT8", changed({"variant": "bf16"}, change_course=float("nan")), "infinite logits"),
    ("CH11-AWQ", changed({"chosen": True}, fitted=9.0), "how it is chosen"),
    ("CH11-GPTQ", changed({"method": "GPTQ"}, fitted=9.0), "the order of the updates"),
    (
        "CH14-LADDER",
        changed({"rung": "packed weights"}, agreement=0.9),
        "the very tokens of the naive loop",
    ),
    ("CH08-ORDER", changed({"id": "CH04-ABSORBED"}, needs="CH08-FAIR"), "comes before CH08-FAIR"),
]


@pytest.mark.parametrize(
    "id,doctor,words",
    [
        pytest.param(*case, marks=[pytest.mark.smollm2] if case[0] in REAL else [])
        for case in DOCTORED
    ],
)
def test_a_checkpoint_stops_at_a_doctored_result(id, doctor, words):
    rows = copy.deepcopy(calm(id))
    doctor(rows)
    reason = LABS[id].stops(rows)
    assert reason is not None and words in reason and "\n" not in reason


def calm(id: str) -> list[dict]:
    """The quick run's rows with the clock taken out: every ratio as a quiet machine would give it,
    so that only the doctor's change counts.
    """
    rows = copy.deepcopy(quick_rows(id))
    for r in rows:
        for key, value in {"spread": 0.01, "over_expanded": 9.0, "over_recurrent": 9.0}.items():
            r.update({key: value} if r.get(key) is not None else {})
        if (
            id == "CH04-ABSORBED"
            or r.get("kind") in ("ring", "delta", "full")
            or r.get("run") == "fair"
        ):
            r |= {"multiple": 30.0 if r.get("path") == "absorbed" else 1.0} | (
                {"iqr": 0.0} if "iqr" in r else {}
            )
        if id == "CH02-BASELINE" and r["variant"] == "cached":
            r["multiple"] = 10.0
        if id == "CH02-CACHED":
            r["prefill_tokens_per_second"] = 10 * r["tokens_per_second"]
    return rows


@each_lab()
def test_a_checkpoint_says_go_on_a_calm_result(id):
    assert LABS[id].stops(calm(id)) is None


def test_no_expert_is_worth_it_is_a_stop():
    rows = copy.deepcopy(quick_rows("CH06-DENSE"))
    for r in rows:
        r["multiple"] = 0.5
    assert "routing costs more than the experts save" in LABS["CH06-DENSE"].stops(rows)
    for r in rows:
        r |= {"device": "cuda", "multiple": 2.0, "median": 1.0}
    assert "gathering two experts is not 1.5 times" in LABS["CH06-DENSE"].stops(rows)


def test_a_gpu_is_asked_for_the_right_answer_and_not_for_the_speed_of_a_model_this_small():
    rows = copy.deepcopy(calm("CH03-HEADS"))
    changed({"variant": "GQA", "way": "grouped"}, over_expanded=1.0)(rows)
    assert (
        "is 1.0 times as fast" in LABS["CH03-HEADS"].stops(rows)
        and LABS["CH03-HEADS"].stops(rows, "cuda") is None
    )
    changed({"variant": "GQA"}, gap=0.01)(rows)
    assert "which query head" in LABS["CH03-HEADS"].stops(rows, "cuda")


def test_a_target_that_no_design_meets_is_a_stop():
    rows = lab_app_c_before_pretraining.run(gpu="L4", context=131072, users=64)
    assert "change the target before you train" in LABS["CH08-PRETRAINING"].go(rows)


# -- what the labs build on --------------------------------------------------------------


def test_a_gpu_holds_what_is_left_beside_the_weights():
    card, c = gpus.named("H100"), presets["llama3-8b"]
    assert (
        card.room(c) == 0.9 * 80e9 - 2 * 8_030_261_248
        and card.largest_batch(c, 8192) == int(card.room(c) // 2**30) == 52
    )
    assert gpus.named("L4").largest_batch(presets["llama3-70b"], 10) == 0
    with pytest.raises(ValueError, match="no GPU is called 'H10'; did you mean 'H100'"):
        gpus.named("H10")


def test_losses_are_those_of_the_logits():
    torch.manual_seed(0)
    model, tokens = labkit.GPT(TINY).eval(), list(range(3, 40))
    expected = labkit.logits(model, tokens).log_softmax(-1)[range(36), tokens[1:]]
    assert torch.allclose(text.losses(model, tokens), -expected, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "tiny-swa", "tiny-mla", "tiny-delta"])
def test_a_timed_step_is_the_same_every_time_and_reads_its_cache(name):
    mixer = layer.make(presets[name])
    cache = layer.full_cache(mixer, 50, "ring", batch=2)
    fn = layer.decoder(mixer, 50, cache, batch=2)
    if mixer.recurrent:
        before = cache.snapshot([0, 1])
        first = fn()
        cache.restore(before)
    else:
        first = fn()
    assert first.shape == (2, 64) and torch.equal(fn(), first)
    for buffer in cache.buffers:
        buffer.mul_(1.5)
    assert not torch.allclose(fn(), first, atol=1e-3)


def test_expanding_is_grouping_with_copies():
    ways, held = lab_05_mha_gqa_mqa.attention(8, 40, "cpu")
    assert (
        torch.allclose(ways["grouped"](), ways["expanded"](), atol=1e-5)
        and held == 2 * 40 * 8 * 128 * 4
    )


def test_pooling_averages_heads_and_changes_nothing_where_they_are_alike():
    torch.manual_seed(0)
    model, tokens = labkit.GPT(TINY.replace(n_kv_heads=4)).eval(), list(range(20))
    E, H = TINY.head_dim, TINY.n_heads
    pooled = lab_ch03_pool.pool(model, 2)
    key = "blocks.1.mixer.qkv.weight"
    old = model.state_dict()[key].unflatten(0, (-1, E))
    new = pooled.state_dict()[key].unflatten(0, (-1, E))
    assert (
        torch.equal(new[:H], old[:H])
        and torch.allclose(new[H], (old[H] + old[H + 1]) / 2)
        and torch.allclose(new[-1], (old[-2] + old[-1]) / 2)
    )
    with torch.no_grad():
        for block in model.blocks:
            heads = block.mixer.qkv.weight.view(-1, E, TINY.d_model)
            heads[H : H + 4] = heads[H : H + 1].clone()
            heads[H + 4 :] = heads[H + 4 : H + 5].clone()
    assert torch.allclose(
        labkit.logits(lab_ch03_pool.pool(model, 1), tokens), labkit.logits(model, tokens), atol=1e-5
    )
    with pytest.raises(ValueError, match="4 key/value heads can't be averaged into 3"):
        lab_ch03_pool.pool(model, 3)


def test_a_mask_around_the_mixers_is_a_window_inside_them():
    torch.manual_seed(0)
    full = labkit.GPT(TINY).eval()
    sliding = labkit.GPT(TINY.replace(layer_types=("sliding",) * 4, window=8)).eval()
    sliding.load_state_dict(full.state_dict())
    tokens = list(range(40))
    with lab_ch05_sinks.seen_through(full, lab_ch05_sinks.visible(40, 8, 0)):
        assert torch.allclose(text.losses(full, tokens), text.losses(sliding, tokens), atol=1e-5)
    with lab_ch05_sinks.seen_through(full, lab_ch05_sinks.visible(40, 8, 4)):
        kept = text.losses(full, tokens)
    assert not torch.allclose(kept[8:], text.losses(sliding, tokens)[8:], atol=1e-3)
    # and afterwards the model is itself again
    assert torch.allclose(kept[:7], text.losses(full, tokens)[:7], atol=1e-5)
    assert lab_ch05_sinks.visible(6, 2, 1).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("trick", lab_09_fair_comparison.TRICKS)
def test_each_trick_is_caught_by_its_own_check_and_by_no_other(trick):
    fair = lab_09_fair_comparison.Setup(prompt=24)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        _, theirs, ours = lab_09_fair_comparison.compare(
            *lab_09_fair_comparison.rig(fair, fair, trick), "cpu", 1
        )
        assert [
            name
            for name in lab_09_fair_comparison.CHECKS
            if lab_09_fair_comparison.check(name, theirs, ours)
        ] == [trick]
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
    assert lab_code_02_one_shell.differing(labkit.ffn.SwiGLU, labkit.ffn.SwiGLU) == 0


def test_a_design_fails_for_the_reason_given():
    meets = lambda **target: {r["design"]: r for r in lab_app_c_before_pretraining.run(**target)}
    rows = meets(gpu="H100", context=32768, users=16, tokens_per_second=30.0)
    assert rows["MHA, G = 32"]["why_not"] == "fits 3 users" and rows["GQA, G = 4"]["meets"]
    assert rows["GQA 8, 32 experts, 4 active"]["why_not"] == "its weights don't fit"
    # bound by bytes
    seconds = formulas.decode_bytes(lab_app_c_before_pretraining.BASE, 32768, 16) / 3.35e12
    assert rows["GQA, G = 8"]["reaches"] == pytest.approx(1 / seconds)
    assert meets(users=4, tokens_per_second=1e4)["MQA, G = 1"]["why_not"].startswith("reads ")
    with pytest.raises(ValueError, match="must be above 0"):
        meets(users=0)


@pytest.mark.parametrize("name", lab_01_flops.MODELS)
def test_components_add_up_to_the_formula(name):
    row = lab_01_flops.by_component(name, 5000)
    assert row["flops"] == row["formula"] and sum(
        row[f"share_{part}"] for part in ("projections", "attention", "ffn", "head")
    ) == pytest.approx(1)


@pytest.mark.parametrize("path", ["absorbed", "reprojected"])
def test_the_costs_of_both_latent_paths_are_those_that_torch_counts(path):
    mixer, config = layer.make(presets["tiny-mla"]), presets["tiny-mla"]
    mixer.path = path
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer.decoder(mixer, 50)()
    projections = 2 * (mixer.down.weight.numel() + mixer.out.weight.numel())
    assert counter.get_total_flops() == projections + lab_06_mla.costs(config, 50)[path]


def test_a_latent_layer_keeps_576_numbers_a_token():
    row = quick_rows("CH04-ABSORBED")[0]
    assert row["latent_bytes"] == row["context"] * (512 + 64) * 4
    assert row["v3_bytes"] == row["context"] * (512 + 64) * 61 * 2 and row[
        "v3_saving"
    ] == pytest.approx(128 * (128 + 64 + 128) / 576)


# -- settings ----------------------------------------------------------------------------


def test_a_setting_changes_the_question(capsys):
    main(["lab", "CH03-SAVINGS", "--quick", "--set", "gpu=L4", "--set", "dtype=int8", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["gpu"] == "L4" and rows[0]["bytes_per_token"] == 2 * 32 * 32 * 128


@pytest.mark.parametrize(
    "args,message",
    [
        (
            ["CH08-PRETRAINING", "--set", "gpus=L4"],
            (
                "CH08-PRETRAINING has no setting 'gpus': choose from gpu, context, users,"
                " tokens_per_second"
            ),
        ),
        (["CH08-PRETRAINING", "--set", "users=many"], "users is a number such as 16, not 'many'"),
        (["CH08-PRETRAINING", "--set", "users=0"], "must be above 0"),
        (["CH08-PRETRAINING", "--set", "gpu=H10"], "no GPU is called 'H10'; did you mean 'H100'?"),
        (["CH03-SAVINGS", "--set", "model=deepseek-v3"], "no key/value heads to take away"),
        (["CH06-UNION", "--set", "x=1"], "it takes none"),
        (["CH08-PRETRAINING", "--store", "--set", "users=2"], "leave out --set or --store"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_2(capsys, args, message):
    with pytest.raises(SystemExit, match="2"):
        main(["lab", *args])
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1

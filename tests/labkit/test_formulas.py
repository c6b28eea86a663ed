"""Formulas equal what the modules hold, what torch counts, and what the published models say."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import labkit
from labkit import formulas, presets
from labkit.dtypes import DTYPES
from labkit.formulas.typeset import FORMULAS
from labkit.step import Step

PUBLISHED = {
    "gpt2-124m": 124_439_808,
    "smollm2-135m": 134_515_008,
    "llama3.2-1b": 1_235_814_400,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "mistral-7b-v0.1": 7_241_732_096,
    "qwen3-0.6b": 596_049_920,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-next-80b-a3b": 79_674_391_296,
    "gemma3-27b": 27_009_346_304,
    "gpt-oss-20b": 20_914_757_184,
    # as transformers counts them
    "mixtral-8x7b": 46_702_792_704,
    "deepseek-v3": 671_026_404_352,
}
BILLIONS = {  # total and active, to the digits they are published with
    "qwen3-30b-a3b": ("30.532", "3.353"),
    "qwen3-next-80b-a3b": ("79.67", "3.87"),
    "gemma3-27b": ("27.009", "27.009"),
    "gpt-oss-20b": ("20.915", "4.19"),
    "mixtral-8x7b": ("46.703", "12.88"),
    "deepseek-v3": ("671.03", "37.55"),
}


@pytest.mark.parametrize("name", presets)
def test_parameters_equal_the_modules_and_the_published_totals(name):
    with torch.device("meta"):
        model = labkit.GPT(presets[name])
    held = sum(p.numel() for p in model.parameters())  # parameters() lists a tied matrix once
    assert formulas.parameters(presets[name]) == held == PUBLISHED.get(name, held)


@pytest.mark.parametrize("name", presets)
def test_active_parameters_leave_out_the_experts_not_chosen(name):
    c = presets[name]
    experts_of = c.n_layers - c.n_dense_layers if c.n_experts else 0
    one_expert = 3 * c.d_model * c.d_expert + (2 * c.d_expert + c.d_model if c.expert_bias else 0)
    assert (
        formulas.parameters(c) - formulas.active_parameters(c)
        == experts_of * (c.n_experts - c.n_active_experts) * one_expert
    )


@pytest.mark.parametrize("name", BILLIONS)
def test_totals_are_those_published(name):
    for count, digits in zip(
        (formulas.parameters(presets[name]), formulas.active_parameters(presets[name])),
        BILLIONS[name],
    ):
        assert format(count / 1e9, f".{len(digits.partition('.')[2])}f") == digits


def counted(model, caches, *steps) -> int:
    """FLOPs by torch's own counter; the MATH kernel, because it counts none in fused attention on a
    CPU.
    """
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
        torch.inference_mode(),
    ):
        for step in steps:
            model(step, caches, step.last)
    return counter.get_total_flops()


TINY = presets["tiny"]
MOE = presets["tiny-moe"]
SMALL = {
    "llama-gqa": TINY,
    "mha": TINY.replace(n_kv_heads=4),
    "mqa-tied": TINY.replace(n_kv_heads=1, tie_embeddings=True),
    "gpt2": presets["tiny-gpt2"],
    "qwen3": TINY.replace(qk_norm=True, head_dim=32),
    "sliding": presets["tiny-swa"],
    "gated-partial-rope": TINY.replace(output_gate=True, partial_rotary=0.5, qk_norm=True),
    "gemma": presets["tiny-swa"].replace(
        ffn="geglu", post_norms=True, qk_norm=True, tie_embeddings=True, embed_scale=8.0
    ),
    "gpt-oss": presets["tiny-swa"].replace(
        sinks=True,
        attention_bias=True,
        expert_bias=True,
        ffn="swiglu_clamped",
        n_experts=8,
        n_active_experts=3,
        d_expert=24,
    ),
    "mla": presets["tiny-mla"],
    "mla-low-rank-queries": presets["tiny-mla"].replace(q_lora_rank=24, v_head_dim=24),
    "moe": MOE,
    "deepseek": presets["tiny-mla"].replace(
        q_lora_rank=24,
        n_experts=8,
        n_active_experts=3,
        n_shared_experts=2,
        d_expert=24,
        n_dense_layers=1,
        router="sigmoid",
        router_bias=True,
        n_expert_groups=4,
        n_active_groups=2,
    ),
    "gated-shared-expert": MOE.replace(shared_gate=True, n_dense_layers=0, d_ff=0),
    "delta": presets["tiny-delta"],
    "qwen3-next": presets["tiny-delta"].replace(
        delta_value_dim=24,
        delta_conv=3,
        n_experts=8,
        n_active_experts=2,
        n_shared_experts=1,
        d_expert=24,
        shared_gate=True,
        output_gate=True,
        partial_rotary=0.25,
    ),
}


def delta_uncounted(c, tokens: int) -> int:
    """The short convolution, which torch does by elementwise products; its counter sees matrix
    products only.
    """
    return (
        c.types.count("delta")
        * 2
        * tokens
        * c.delta_conv
        * formulas.symbols.delta_channels(
            c.delta_n_key_heads, c.delta_n_value_heads, c.delta_key_dim, c.delta_value_dim
        )
    )


@pytest.mark.parametrize("name", SMALL)
def test_flops_equal_torchs_counter(name):
    model, ids = labkit.GPT(SMALL[name]).eval(), list(range(1, 41))
    for block in model.blocks:
        if isinstance(block.mixer, labkit.mixers.GatedDeltaNet):
            # the convention counts the rule, not the extra work of its chunks
            block.mixer.path = "recurrent"
    caches = model.caches("static", 1, 41)
    counts = [
        counted(model, caches, Step.of([(0, 0, ids)])),
        counted(model, caches, Step.of([(0, 40, [7])])),
    ]
    assert counts[0] == formulas.prefill_flops(model.config, 40) - delta_uncounted(model.config, 40)
    assert counts[1] == formulas.decode_flops(model.config, 41) - delta_uncounted(model.config, 1)


@pytest.mark.parametrize("T,n,padded", [(20, 20, 20), (64, 32, 64), (130, 32, 160)])
def test_chunks_of_the_delta_rule_cost_the_recurrence_and_their_squares(T, n, padded):
    q, k, v, g, beta, state = (
        torch.zeros(shape)
        for shape in (
            (1, T, 4, 16),
            (1, T, 4, 16),
            (1, T, 4, 24),
            (1, T, 4),
            (1, T, 4),
            (1, 4, 16, 24),
        )
    )
    with FlopCounterMode(display=False) as counter:
        labkit.mixers.delta.chunked(q, k, v, g, beta, state)
    f = formulas.symbols  # the last chunk is padded; torch counts nothing for the inverse itself
    assert counter.get_total_flops() == f.delta_flops(padded, 4, 16, 24) + f.delta_chunk_flops(
        padded, n, 4, 16, 24
    )


def test_decode_absorbs_and_prefill_reprojects():
    c = presets["deepseek-v3"]
    H, T = 61 * 128, 1000
    assert formulas.attention_flops(c, 1, T) == 2 * H * T * (2 * 512 + 64)
    assert formulas.attention_flops(c, T, T) == 2 * H * T * T * (128 + 64 + 128)
    assert formulas.decode_flops(c, T + 1) - formulas.decode_flops(c, T) == 2 * H * (2 * 512 + 64)
    assert formulas.decode_flops(c, 1) - formulas.prefill_flops(c, 1) == 2 * H * (
        (2 * 512 + 64) - (128 + 64 + 128)
    )


def test_loop_flops_are_the_sum_of_their_steps():
    model = labkit.GPT(presets["tiny"]).eval()
    naive = [Step.of([(0, 0, [1] * (10 + i))]) for i in range(5)]
    assert counted(model, model.caches("none", 1, 1), *naive) == formulas.loop_flops(
        model.config, 10, 5, cached=False
    )
    cached = [Step.of([(0, 0, [1] * 10)]), *[Step.of([(0, 10 + i, [1])]) for i in range(4)]]
    assert counted(model, model.caches("static", 1, 20), *cached) == formulas.loop_flops(
        model.config, 10, 5, cached=True
    )


def test_llama_70b_cache_is_327_680_bytes_a_token():
    c = presets["llama3-70b"]
    assert formulas.kv_cache_bytes(c, 1) == 327_680
    # the slip of counting query heads
    assert formulas.kv_cache_bytes(c.replace(n_kv_heads=64), 1) == 8 * 327_680
    assert formulas.kv_cache_bytes(c, 10_000, 32) == 104_857_600_000


def test_a_window_bounds_the_cache():
    c = presets["mistral-7b-v0.1"]
    assert (
        formulas.kv_cache_bytes(c, 100_000)
        == formulas.kv_cache_bytes(c, 4096)
        == 4096 * formulas.kv_cache_bytes(c, 1)
    )
    assert formulas.decode_flops(c, 100_000) == formulas.decode_flops(c, 4096)
    assert formulas.prefill_flops(c, 100_000) == formulas.prefill_flops(
        c.replace(layer_types=None, window=None), 100_000
    )


def test_what_each_kind_of_layer_keeps():
    T = 100_000
    assert formulas.kv_cache_bytes(presets["deepseek-v3"], T, 2) == 2 * 61 * T * (512 + 64) * 2
    delta = 36 * (4 * 32 * 128 * 128 + 3 * 8192 * 2)
    assert (
        formulas.kv_cache_bytes(presets["qwen3-next-80b-a3b"], T)
        == delta + 12 * T * 2 * 2 * 256 * 2
    )
    assert formulas.kv_cache_bytes(presets["qwen3-next-80b-a3b"], 1, 3, "int8") == 3 * (
        36 * (4 * 32 * 128 * 128 + 3 * 8192) + 12 * 2 * 2 * 256
    )
    assert (
        formulas.kv_cache_bytes(presets["gemma3-27b"], T) == (52 * 1024 + 10 * T) * 2 * 16 * 128 * 2
    )
    # no longer than its window of 128
    assert formulas.kv_cache_bytes(presets["gpt-oss-20b"], 100) == 24 * 100 * 2 * 8 * 64 * 2


@pytest.mark.parametrize("name", presets)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_caches_hold_the_formulas_bytes(name, dtype):
    """Of the real sizes, on the meta device: rings hold windows, a static sliding layer its whole
    capacity.
    """
    c = presets[name].replace(
        n_layers=4, layer_types=presets[name].types[-4:], vocab_size=8, max_context=8
    )
    T = 3000
    with torch.device("meta"):
        model = labkit.GPT(c).to(DTYPES[dtype])
    held = lambda *args: sum(cache.allocated_bytes for cache in model.caches(*args))
    assert held("ring", 3, T) == formulas.kv_cache_bytes(c, T, 3, dtype)
    everything = c.replace(
        window=None, layer_types=tuple("full" if t == "sliding" else t for t in c.types)
    )
    assert held("static", 3, T) == formulas.kv_cache_bytes(everything, T, 3, dtype)
    assert held("none", 3, T) == 0


@pytest.mark.parametrize("name", ["tiny", "tiny-swa", "tiny-mla", "tiny-delta"])
def test_paged_caches_hold_whole_blocks(name):
    c = presets[name]
    everything = c.replace(
        window=None, layer_types=tuple("full" if t == "sliding" else t for t in c.types)
    )
    held = sum(
        cache.allocated_bytes for cache in labkit.GPT(c).caches("paged", 3, 50, block_size=16)
    )
    assert held == formulas.kv_cache_bytes(everything, 64, 3, "fp32")


def test_low_precision_bytes():
    c = presets["smollm2-135m"]
    assert formulas.kv_cache_bytes(c, 3, dtype="int8") * 4 == formulas.kv_cache_bytes(
        c, 3, dtype="fp32"
    )
    # 4 * 4.5 bits = 2.25 bytes
    assert (
        formulas.kv_cache_bytes(
            c.replace(n_layers=1, n_kv_heads=1, head_dim=2, n_heads=1), 1, dtype="int4"
        )
        == 3
    )
    assert formulas.weight_bytes(c, "int4") == pytest.approx(134_515_008 * 4.5 / 8)


def test_decode_bytes_read_each_weight_once_and_every_cache():
    tied, untied = presets["smollm2-135m"], presets["llama3-8b"]
    assert formulas.decode_bytes(tied, 100, 4) == formulas.weight_bytes(
        tied
    ) + formulas.kv_cache_bytes(tied, 100, 4)
    embedding = untied.vocab_size * untied.d_model
    assert formulas.decode_bytes(untied, 100, 4) == 2 * (
        formulas.parameters(untied) - embedding + 4 * 4096
    ) + formulas.kv_cache_bytes(untied, 100, 4)
    assert formulas.decode_bytes(tied, 100, 1, "int4") == formulas.weight_bytes(
        tied, "int4"
    ) + formulas.kv_cache_bytes(tied, 100, 1, "bf16")
    assert formulas.decode_bytes(tied, 100, 1, "bf16", "int8") == formulas.weight_bytes(
        tied
    ) + formulas.kv_cache_bytes(tied, 100, 1, "int8")


def test_a_batch_reads_the_experts_it_touches():
    """The formula against what a fair router does; and a batch of one reads what one token uses."""
    rng, X, A = torch.Generator().manual_seed(0), 64, 6
    for batch in (1, 4, 16, 64):
        drawn = [
            torch.rand(batch, X, generator=rng).topk(A).indices.unique().numel() for _ in range(300)
        ]
        assert formulas.experts_read(X, A, batch) == pytest.approx(
            sum(drawn) / len(drawn), rel=0.01
        )
    for name in ("mixtral-8x7b", "qwen3-next-80b-a3b", "deepseek-v3"):
        c = presets[name]
        cache, embedding = formulas.kv_cache_bytes(c, 9, 1), c.vocab_size * c.d_model
        assert formulas.decode_bytes(c, 9) == pytest.approx(
            2 * (formulas.active_parameters(c) - embedding + c.d_model) + cache, rel=1e-12
        )
        assert formulas.decode_bytes(c, 9, 100_000) == pytest.approx(
            2 * (formulas.parameters(c) - embedding + 100_000 * c.d_model) + 100_000 * cache,
            rel=1e-12,
        )
    mixtral = presets["mixtral-8x7b"]  # every layer, two tokens: 8 x (1 - (3/4)^2) = 3.5 experts
    two = formulas.parameters(mixtral) - 32 * 4.5 * 3 * 4096 * 14336 - (32000 - 2) * 4096
    assert formulas.decode_bytes(mixtral, 9, 2) == pytest.approx(
        2 * two + formulas.kv_cache_bytes(mixtral, 9, 2), rel=1e-12
    )


def test_roofline_is_the_slower_of_compute_and_memory():
    h100 = formulas.Hardware("H100 SXM", 989e12, 3.35e12)
    c = presets["llama3-70b"]
    seconds = formulas.roofline_seconds(formulas.decode_flops(c, 1), formulas.weight_bytes(c), h100)
    assert seconds == pytest.approx(0.0421, rel=1e-2)  # 141 GB at 3.35 TB/s
    assert formulas.roofline_seconds(1e15, 1, h100) == pytest.approx(1e15 / 989e12)
    assert h100.ridge == pytest.approx(295, rel=1e-2)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula_becomes_latex(name):
    text = formulas.latex(name)
    assert text.startswith(r"\mathrm{") and "=" in text and text.count("{") == text.count("}")
    assert r"\_" not in text.partition("=")[2]  # indices are indices


def test_latex_comes_from_the_python():
    assert r"\frac{n" in formulas.latex(
        "naive_attention_terms"
    ) and "(2 C + E_{r}" in formulas.latex("latent_decode_flops").replace(r"\left( ", "(")
    with pytest.raises(ValueError, match="did you mean 'attention_flops'"):
        formulas.latex("atention_flops")


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: presets["llama3-80b"], "did you mean 'llama3-8b'"),
        (
            lambda: formulas.kv_cache_bytes(presets["tiny"], 5, dtype="fp8"),
            "no dtype is called 'fp8'",
        ),
        (
            lambda: formulas.kv_cache_bytes(presets["tiny"], -1),
            "context can't be negative, but is -1",
        ),
        (
            lambda: formulas.decode_bytes(presets["tiny"], 5, -2),
            "a decode step needs a batch of at least 1, not -2",
        ),
        (
            lambda: formulas.decode_bytes(presets["tiny"], 5, batch=0),
            "a batch of at least 1, not 0",
        ),
        (lambda: formulas.decode_flops(presets["tiny"], -1), "context can't be negative"),
        (lambda: formulas.prefill_flops(presets["tiny"], -1), "tokens can't be negative"),
        (
            lambda: presets["tiny"].replace(n_heads=9, n_kv_heads=4),
            "9 query heads can't share 4 key/value heads: 9 % 4 = 1",
        ),
        (lambda: presets["tiny"].replace(head_dim=15), "head_dim must be even, not 15"),
        (
            lambda: presets["tiny"].replace(layer_types=("full",)),
            "names 1 layers, but n_layers is 4",
        ),
        (
            lambda: presets["tiny"].replace(layer_types=("ful",) * 4),
            "no layer type is called 'ful'; did you mean 'full'",
        ),
        (
            lambda: presets["tiny"].replace(layer_types=("sliding",) * 4, window=0),
            "a window of at least 1 token, not 0",
        ),
        (
            lambda: presets["tiny"].replace(n_layers=0),
            "n_layers must be a whole number >= 1, not 0",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)

"""Fast kernels equal their plain twins, bytes equal the formulas, a request does not see its batch,
quality is measured honestly.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import labkit
from labkit import presets, quant, reference
from labkit.formulas import kv_cache_bytes, weight_bytes
from labkit.linear import Linear
from labkit.quant import convert, linear
from labkit.step import Step

TINY = presets["tiny"].replace(vocab_size=256)


def tiny(**changes):
    torch.manual_seed(0)
    return labkit.GPT(TINY.replace(**changes)).eval()


def layer(d_in=96, d_out=64, seed=0):
    torch.manual_seed(seed)
    return Linear(d_in, d_out).requires_grad_(False)


def product(kind: str, kernel: str, weight, x):
    """What a kernel multiplies, without its rounding: in fp64, [N,out]; and with every term's size
    in place of the term.
    """
    if kind == "fp16":
        weight = weight.half().double()
    elif kind == "int4":
        codes, scale = linear.group_codes(weight)
        weight = (codes.unflatten(1, (-1, linear.GROUP)) * scale[..., None].double()).flatten(1)
        x = x.bfloat16()
    else:
        codes, scale = linear.channel_codes(weight)
        if kernel == "int8pack" and len(x) <= 16:
            x, scale = x.bfloat16(), scale.bfloat16()
        elif linear.KERNELS[kernel].whole:
            levels = linear.KERNELS[kernel].levels
            digits, size = linear.row_digits(x, linear.DIGITS[kind], levels)
            high, *low = digits.round().double().split(len(x))
            x = (high + sum(low) / (2 * levels)) * size.double()
        weight = codes.double() * scale.double()[:, None]
    x = x.double()
    return x @ weight.T, x.abs() @ weight.abs().T


@pytest.mark.parametrize("kind", quant.KINDS)
@pytest.mark.parametrize("rows", [1, 3, 48])
def test_every_kernel_gives_the_exact_product_rounded(kind, rows):
    """With activations of very different sizes, and at the ends of the range.

    A sum of K products in fp32 is off by at most K times 2^-24 of their sizes, in any order (Higham
    2002, section 3.1); scales and digits round 4 times more. bf16 rounds by 2^-8, and is cut by
    2^-7 where torch's kernel for int4 writes it on Arm.
    """
    of, x = layer(), torch.randn(rows, 96) * torch.logspace(-3, 3, rows)[:, None]
    x[0, :8] = x.abs().max()
    assert "plain" in linear.kernel_names(kind)
    for kernel in linear.kernel_names(kind):
        want, sizes = product(kind, kernel, of.weight, x)
        most = (x.shape[1] + 4) * 2**-24 * sizes
        if kind == "int4" or (kernel == "int8pack" and rows <= 16):  # outputs are bf16
            most += 2 ** (-7 if kernel == "int4pack" else -8) * (want.abs() + most)
        if (kind, kernel) == ("int4", "plain"):  # so are the products of code and scale
            most += 2**-8 * sizes
        gap = (quant.KINDS[kind](of, of.weight, kind, kernel)(x) - want).abs()
        assert (gap <= most).all(), kernel


def test_seven_bits_are_close_and_two_digits_of_them_closer():
    """On processors without VNNI they are all there is; so they are tried out on every one."""
    of, x = layer(), torch.randn(64, 96)
    want, error = of(x), {}
    for kind in ("w8a8", "int8"):
        seven = linear.Int8Linear(of, of.weight, kind, "plain")
        eight, seven.matmul.levels = seven(x), 63
        error[kind] = [((y - want).norm() / want.norm()).item() for y in (eight, seven(x))]
    assert error["w8a8"][0] < error["w8a8"][1] < 2e-2
    # what is left is the weights' own rounding
    assert abs(error["int8"][1] / error["int8"][0] - 1) < 1e-2


def test_a_kernel_that_saturates_is_left_out(monkeypatch):
    class Saturating(linear.Plain):
        def __call__(self, rows):
            unsigned = rows.round() + 128  # what x86's 8-bit unit takes
            pairs = (
                (unsigned[:, None] * self.codes).unflatten(2, (-1, 2)).sum(3).clamp(-32768, 32767)
            )
            return (pairs.sum(2) - 128 * self.codes.float().sum(1)) * self.scale

    monkeypatch.setitem(linear.KERNELS, "saturating", Saturating)
    assert linear.kernel_names.__wrapped__("w8a8") == [
        k for k in linear.KERNELS if k in linear.kernel_names("w8a8")
    ]
    x = torch.randn(4, 96)
    codes, scale = linear.channel_codes(layer().weight)
    # on small numbers nobody would notice
    assert torch.allclose(Saturating(codes, scale)(x), linear.Plain(codes, scale)(x), atol=1e-3)


def test_layers_equal_the_reference():
    of, x = layer(), torch.randn(5, 96)
    codes, scale = linear.channel_codes(of.weight)
    ours = reference.quantise(of.weight.numpy(), group="row")
    assert np.array_equal(ours.codes, codes.numpy()) and np.allclose(ours.scale[:, 0], scale)
    want = reference.int8_linear(x.numpy(), of.weight.numpy())
    assert np.abs(linear.Int8Linear(of, of.weight, "w8a8", "plain")(x).numpy() - want).max() < 1e-4
    codes, scale = linear.group_codes(of.weight)
    assert (
        codes.unflatten(1, (-1, 32)) * scale[..., None].float() - of.weight.unflatten(1, (-1, 32))
    ).abs().max() < 0.52 * scale.max()
    assert (codes.unflatten(1, (-1, 32)).abs().amax(2) == 7).all()


def test_two_digits_are_nearly_exact():
    of, x = layer(), torch.randn(64, 96)
    codes, scale = linear.channel_codes(of.weight)
    want = F.linear(x, codes * scale[:, None])
    error = {
        k: ((linear.Int8Linear(of, of.weight, k, "plain")(x) - want).norm() / want.norm()).item()
        for k in ("w8a8", "int8")
    }
    assert error["int8"] < 1e-4 < 1e-3 < error["w8a8"] < 2e-2


@pytest.mark.parametrize("kind", ["w8a8", "int8"])
def test_a_request_does_not_see_its_batch(kind):
    """Not by a bit: sums of whole numbers have no order, and a row's scale is its own."""
    of = layer(256, 128)
    for kernel in [k for k in linear.kernel_names(kind) if linear.KERNELS[k].whole]:
        q, x = linear.Int8Linear(of, of.weight, kind, kernel), torch.randn(9, 256)
        alone = q(x[3:4])
        x[5] *= 3000
        assert torch.equal(q(x)[3:4], alone)


def test_bytes_equal_the_formulas():
    model = quant.quantize(tiny(tie_embeddings=True), "int8", kernel="plain")
    found = model.quantisation["int8 plain"]
    assert found["layers"] == 4 * TINY.n_layers + 1
    channels = sum(m.out_features for m in model.modules() if isinstance(m, linear.FewBits))
    assert found["bytes"] == found["weights"] + 4 * channels
    norms = (2 * TINY.n_layers + 1) * TINY.d_model
    assert found["weights"] + norms == weight_bytes(TINY.replace(tie_embeddings=True), "int8")
    found = quant.quantize(tiny(), "fp16").quantisation
    assert [row["bytes"] for row in found.values()] == [
        2 * row["weights"] for row in found.values()
    ]
    found = quant.quantize(tiny(), "int4", kernel="plain").quantisation["int4 plain"]
    assert found["bytes"] == 0.5625 * found["weights"]
    for q in (linear.Int4Linear(layer(), layer().weight, "int4", "plain"),):
        assert q.codes.nbytes + q.scale.nbytes == q.nbytes == 0.5625 * 96 * 64


@pytest.mark.parametrize(
    "kind,close", [("fp16", 1e-3), ("int8", 0.02), ("w8a8", 0.06), ("int4", 0.5)]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_quantised_model_is_the_same_model_nearly(kind, close, packed):
    ids = list(range(40))
    model = tiny(tie_embeddings=True)
    want = labkit.logits(model, ids)
    model = quant.quantize(model.pack() if packed else model, kind)
    assert not any(isinstance(m, Linear) for m in model.modules()) and isinstance(
        model.embed, linear.FewBitsEmbedding
    )
    got = labkit.logits(model, ids, cache="static", chunks=[30, 10])
    assert ((got - want).norm() / want.norm()) < close and model.dtype == torch.float32
    assert len(labkit.generate(model, [ids, ids[:3]], 5)[1]) == 5


def test_kinds_mix_by_name():
    model = quant.quantize(tiny(), "int8", only=["blocks.1.*"], kernel="plain")
    model = quant.quantize(model, "w8a8", skip=["head", "blocks.0.ffn.down"], kernel="plain")
    kinds = {n: m.kind for n, m in model.named_modules() if isinstance(m, linear.FewBits)}
    assert (
        kinds["blocks.1.ffn.down"] == "int8"
        and kinds["blocks.0.mixer.qkv"] == "w8a8"
        and len(kinds) == 4 * TINY.n_layers - 1
    )
    assert isinstance(model.head, Linear) and isinstance(model.blocks[0].ffn.down, Linear)
    assert model.quantisation["int8 plain"]["layers"] == 4


def test_a_bias_is_added():
    of = torch.nn.Linear(96, 64)
    x = torch.zeros(2, 96)
    for kind in quant.KINDS:
        make = quant.KINDS[kind]
        assert torch.equal(make(of, of.weight.detach(), kind, "plain")(x), of.bias.expand(2, 64))


def test_weights_too_large_for_16_bits_are_cut():
    of = layer()
    of.weight[0, 0] = 1e6
    for kernel in linear.kernel_names("fp16"):
        y = linear.FP16Linear(of, of.weight, "fp16", kernel)(torch.eye(96))
        last_bits = 8 * 65504 * torch.finfo(torch.float32).eps
        assert abs(y[0, 0] - 65504) <= last_bits and y.isfinite().all()


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="no quantisation is called 'int9'; did you mean 'int8'"):
        quant.quantize(tiny(), "int9")
    with pytest.raises(ValueError, match="no linear layer is called 'blocks.9.*'"):
        quant.quantize(tiny(), "int8", skip=["blocks.9.*"])
    with pytest.raises(ValueError, match="no w8a8 kernel that is right here is called 'int8pack'"):
        quant.quantize(tiny(), "w8a8", kernel="int8pack")
    with pytest.raises(ValueError, match="rows of 48 inputs do not split into groups of 32"):
        linear.group_codes(torch.ones(2, 48))


def test_the_fastest_kernel_is_taken(monkeypatch):
    monkeypatch.setattr(convert, "kernel_names", lambda *_: ["int8pack", "plain", "fbgemm"])
    took = {"int8pack": 1.0, "fbgemm": 0.5}
    monkeypatch.setattr(convert, "_seconds", lambda layers, rows, device: took[layers[0].kernel])
    assert "int8 fbgemm" in quant.quantize(
        tiny(), "int8"
    ).quantisation or "fbgemm" not in linear.kernel_names("int8")
    took["fbgemm"] = 0.95  # not clearly faster
    assert "int8 int8pack" in quant.quantize(tiny(), "int8").quantisation


# -- layers that resist ------------------------------------------------------------------


def planted():
    """A tiny model in which one channel of layer 2's feed-forward input is 60 times the others,
    with weights that undo it.
    """
    model = tiny()
    with torch.no_grad():
        model.blocks[2].norm2.weight[7] *= 60
        model.blocks[2].ffn.gate_up.weight[:, 7] /= 60
    return model


def test_outliers_are_found_and_smoothed():
    ids = list(range(100, 160))
    model = planted()
    want = labkit.logits(model, ids)
    before = quant.calibrate(model, ids)
    assert (
        quant.outliers(model, ids, above=0.0)[0] == "blocks.2.ffn.gate_up"
        and len(quant.outliers(model, ids, above=0.0)) == 17
    )
    assert quant.outliers(model, ids, above=1.0) == []
    assert (
        before["blocks.2.ffn.gate_up"]["largest"]
        == before["blocks.2.ffn.gate_up"]["channels"].max()
        > 30
    )
    quant.smooth(model, ids)
    after = quant.calibrate(model, ids)
    assert (labkit.logits(model, ids) - want).abs().max() < 1e-4  # the same function
    assert after["blocks.2.ffn.gate_up"]["per_row"] < before["blocks.2.ffn.gate_up"]["per_row"] / 4


def test_alpha_1_moves_everything():
    """All of a channel's size goes into the weights, so every channel of activations then reaches
    as far.
    """
    model, ids = planted(), list(range(100, 160))
    channels = quant.calibrate(quant.smooth(model, ids, alpha=1.0), ids)["blocks.2.ffn.gate_up"][
        "channels"
    ]
    assert channels.max() < 1.01 * channels.min()


def test_smoothing_a_tied_packed_model_leaves_its_embedding():
    model, ids = tiny(tie_embeddings=True).pack(), list(range(50))
    want, table = labkit.logits(model, ids), model.embed.weight.clone()
    quant.smooth(model, ids)
    assert torch.equal(model.embed.weight, table) and model.head.weight is not model.embed.weight
    assert (labkit.logits(model, ids) - want).abs().max() < 1e-4


# -- the cache ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["static", "paged"])
def test_an_8_bit_cache_returns_what_was_written_nearly(kind):
    table = torch.randperm(12).view(2, 6) if kind == "paged" else None
    cache = quant.Int8Cache(
        kind,
        SimpleNamespace(items=((2, 16), (2, 16)), window=None, recurrent=False),
        2,
        24,
        table=table,
        block_size=4,
    )
    step = Step.of([(1, 0, [0] * 7), (0, 0, [0] * 3)])
    k, v = torch.randn(2, 10, 2, 16) * torch.logspace(-2, 2, 10)[:, None, None]
    cache.write(step, k, v)
    keys, values, kpos = cache.read(step)
    for got, x in ((keys, k), (values, v)):
        for row, tokens in ((0, slice(0, 7)), (1, slice(7, 10))):
            seen = got[row][kpos[row] >= 0]
            assert (
                (seen - x[tokens]).abs() <= x[tokens].abs().amax(-1, keepdim=True) / 127 * 0.5001
            ).all()
    assert cache.allocated_bytes == 2 * 24 * 2 * 2 * (16 + 4) and keys.dtype == torch.float32
    with pytest.raises(ValueError, match="reaches 25 tokens"):
        cache.write(Step.of([(0, 24, [0])]), k[:1], v[:1])


def test_a_model_reads_through_an_8_bit_cache():
    model, ids = tiny(), list(range(60))
    want = labkit.logits(model, ids)
    caches = [quant.Int8Cache("static", b.mixer, 1, 64) for b in model.blocks]
    with torch.inference_mode():
        got = torch.cat(
            [
                model(Step.of([(0, 0, ids[:50])]), caches),
                *(model(Step.of([(0, t, [ids[t]])]), caches) for t in range(50, 60)),
            ]
        )
    assert 0 < ((got - want).norm() / want.norm()) < 0.03
    scales = 64 * 2 * TINY.n_kv_heads * 4 * TINY.n_layers
    assert sum(c.allocated_bytes for c in caches) == kv_cache_bytes(TINY, 64, 1, "int8") + scales


# -- quality -----------------------------------------------------------------------------


def test_perplexity_predicts_every_token_once():
    model = tiny()
    ids = torch.randint(0, 256, (50,), generator=torch.Generator().manual_seed(1)).tolist()
    whole = F.cross_entropy(labkit.logits(model, ids)[:-1], torch.tensor(ids[1:])).item()
    assert quant.perplexity(model, ids) == pytest.approx(math.exp(whole), rel=1e-5)
    pieces = sum(
        F.cross_entropy(
            labkit.logits(model, ids[a : a + 21][:-1]),
            torch.tensor(ids[a + 1 : a + 21]),
            reduction="sum",
        ).item()
        for a in (0, 20, 40)
    )
    assert quant.perplexity(model, ids, window=20) == pytest.approx(math.exp(pieces / 49), rel=1e-5)
    through = quant.perplexity(
        model, ids, caches=lambda model, rows, n: model.caches("static", rows, n)
    )
    assert through == pytest.approx(math.exp(whole), rel=1e-5)
    with pytest.raises(ValueError, match="at least 2 tokens"):
        quant.perplexity(model, [1])
    with pytest.raises(ValueError, match="outside the vocabulary"):
        quant.perplexity(model, [1, 999, 2])


def test_texts_come_without_their_source_note():
    texts = {name: quant.read_text(name) for name in ("course", "milton", "calibration")}
    assert all("Source:" not in t for t in texts.values())
    assert all(1200 < len(texts[name].split()) < 1800 for name in ("course", "milton"))
    with pytest.raises(ValueError, match="no text is called 'bible'; choose from"):
        quant.read_text("bible")

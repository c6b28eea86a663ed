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


def product(kind: str, kernel: str, layer, x):
    """What a kernel multiplies, without the rounding of its sums: in fp64, [N,out]; and with every
    term's size in place of the term.
    """
    weight = layer.dense()
    if kernel == "int8pack" and len(x) <= 16:  # scales in bf16 too
        weight, x = layer.codes() * layer.scale.bfloat16().float()[:, None], x.bfloat16()
    else:
        x = layer.rounded(x)
    x, weight = x.double(), weight.double()
    return x @ weight.T, x.abs() @ weight.abs().T


@pytest.mark.parametrize("kind", quant.KINDS)
@pytest.mark.parametrize("rows", [1, 3, 48])
def test_every_kernel_gives_the_exact_product_rounded(kind, rows):
    """With activations of very different sizes, and at the ends of the range.

    A sum of K products in fp32 is off by at most K times 2^-24 of their sizes, in any order (Higham
    2002, section 3.1); scales, minima and whole numbers round 8 times more, of sizes up to twice as
    large. bf16 rounds by 2^-8.
    """
    of, x = layer(), torch.randn(rows, 96) * torch.logspace(-3, 3, rows)[:, None]
    x[0, :8] = x.abs().max()
    assert "plain" in linear.kernel_names(kind)
    for kernel in linear.kernel_names(kind):
        ours = quant.KINDS[kind](of, of.weight, kind, kernel)
        want, sizes = product(kind, kernel, ours, x)
        most = 2 * (x.shape[1] + 8) * 2**-24 * sizes
        if kernel == "int8pack" and rows <= 16:  # outputs are bf16
            most += 2**-8 * (want.abs() + most)
        assert ((ours(x) - want).abs() <= most).all(), kernel


@pytest.mark.parametrize("kind", quant.KINDS)
def test_every_kernel_holds_the_same_weight(kind):
    """Its codes are those of the format; and a weight that is on the grid stays as it is."""
    of = layer(96, 40)
    plain = quant.KINDS[kind](of, of.weight, kind, "plain")
    for kernel in linear.kernel_names(kind):
        ours = quant.KINDS[kind](of, of.weight, kind, kernel)
        assert torch.equal(ours.dense(), plain.dense()) and ours.nbytes == plain.nbytes
        if kind != "fp16":
            assert torch.equal(ours.codes(), plain.codes())
        assert (ours.matrix() is not None) == (kernel == "panels")
    again = quant.KINDS[kind](of, plain.dense(), kind, "plain")
    assert torch.allclose(again.dense(), plain.dense(), rtol=1e-3, atol=1e-3)


def test_a_kernel_that_saturates_is_left_out(monkeypatch):
    class Saturating(linear.Int8Linear):
        def multiply(self, x):
            if self.kernel == "plain":
                return super().multiply(x)
            rows, worth = linear.row_codes(x)
            unsigned = rows + 128  # what x86's 8-bit unit takes
            pairs = (unsigned[:, None] * self.codes()).unflatten(2, (-1, 2)).sum(3)
            sums = pairs.clamp(-32768, 32767).sum(2) - 128 * self.codes().float().sum(1)
            return sums * self.scale * worth

    monkeypatch.setitem(linear.KINDS, "w8a8", Saturating)
    monkeypatch.setitem(linear.OTHERS, "w8a8", ("saturating",))
    assert "saturating" not in linear.kernel_names.__wrapped__("w8a8")
    of, x = layer(), torch.randn(4, 96)
    of.weight[:, 0], x[:, 0] = 10, -100
    got, want = (Saturating(of, of.weight, "w8a8", k)(x) for k in ("saturating", "plain"))
    # on small numbers nobody would notice
    assert torch.allclose(got, want)


def test_layers_equal_the_reference():
    of, x = layer(), torch.randn(5, 96)
    codes, scale = linear.channel_codes(of.weight)
    ours = reference.quantise(of.weight.numpy(), group="row")
    assert np.array_equal(ours.codes, codes.numpy()) and np.allclose(ours.scale[:, 0], scale)
    want = reference.int8_linear(x.numpy(), of.weight.numpy())
    assert np.abs(linear.Int8Linear(of, of.weight, "w8a8", "plain")(x).numpy() - want).max() < 1e-4


def test_codes_of_4_bits():
    """Within half a step, but for the end that has no code of its own; the largest weight of a
    group is code 0, or the ends are 0 and 15; and 16 evenly spaced values come back as they are.
    """
    weight = layer(96, 64).weight
    for minimum in (False, True):
        codes, scale, low = linear.group_codes(weight, minimum)
        step = scale.float().abs()[..., None]
        off = linear.group_values(codes, scale, low).sub(weight).unflatten(1, (-1, 32)).abs()
        assert codes.dtype == torch.uint8 and codes.max() == 15 and codes.min() == 0
        groups = codes.unflatten(1, (-1, 32))
        if minimum:
            assert (off <= 0.51 * step).all() and (groups.amax(2) == 15).all()
        else:
            assert (off <= 1.01 * step).all() and ((off <= 0.51 * step) | (groups == 15)).all()
            at = weight.unflatten(1, (-1, 32)).abs().argmax(2, keepdim=True)
            assert (groups.gather(2, at) == 0).all() and torch.equal(low, scale * -8)
    grid = torch.stack([torch.randperm(32) % 16 for _ in range(8)]) * 0.25 - 1.5
    assert torch.equal(linear.group_values(*linear.group_codes(grid, True)), grid)
    nothing = linear.group_codes(torch.zeros(1, 32))
    assert torch.equal(linear.group_values(*nothing), torch.zeros(1, 32))


def test_weights_alone_are_quantised_where_activations_keep_many_bits():
    """ "int8" and "int4" are as good as their weights; 8-bit activations add their own error."""
    of, x, error = layer(), torch.randn(64, 96), {}
    for kind in ("int8", "w8a8", "int4", "w4a8", "int4min", "w4a8min"):
        ours = quant.KINDS[kind](of, of.weight, kind, linear.kernel_names(kind)[0])
        want = F.linear(x, ours.dense())
        error[kind] = ((ours(x) - want).norm() / want.norm()).item()
    few = linear.kernel_names("int8")[0] == "int8pack"  # whose activations are bf16
    assert max(error["int4"], error["int4min"]) < 1e-4 and error["int8"] < (5e-3 if few else 1e-4)
    assert all(1e-3 < error[k] < 2e-2 for k in ("w8a8", "w4a8", "w4a8min"))


@pytest.mark.parametrize("kind", [k for k in quant.KINDS if k != "fp16"])
def test_a_request_does_not_see_its_batch(kind):
    """Not by a bit: sums of whole numbers have no order, and a row's scales are its own."""
    if linear.kernel_names(kind)[0] != "panels":
        pytest.skip("no kernel of ours")
    of = layer(256, 128)
    q, x = quant.KINDS[kind](of, of.weight, kind, "panels"), torch.randn(9, 256)
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
    for kind, bits in (("int4", 4.5), ("w4a8", 4.5), ("int4min", 5), ("w4a8min", 5)):
        found = quant.quantize(tiny(), kind, kernel="plain").quantisation
        four = found[f"{kind} plain"]
        assert four["bytes"] == bits / 8 * four["weights"] and four["layers"] == 4 * TINY.n_layers
        # and the head
        assert found["int8 plain"]["layers"] == 1
    q = linear.Int4Linear(layer(), layer().weight, "int4", "plain")
    assert q.plain.nbytes + q.scale.nbytes == q.nbytes == 0.5625 * 96 * 64


@pytest.mark.parametrize(
    "kind,close",
    [
        ("fp16", 1e-3),
        ("int8", 0.02),
        ("w8a8", 0.06),
        *((kind, 0.5) for kind in ("int4", "int4min", "w4a8", "w4a8min")),
    ],
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


def test_the_first_kernel_is_taken(monkeypatch):
    monkeypatch.setattr(convert, "kernel_names", lambda *_: ["plain", "panels"])
    assert "int8 plain" in quant.quantize(tiny(), "int8").quantisation
    with pytest.raises(ValueError, match="is called 'fbgemm'"):
        quant.quantize(tiny(), "int8", kernel="fbgemm")


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

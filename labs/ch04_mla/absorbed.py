"""CH04-ABSORBED: what latent attention stores, and two ways to decode from it that give the same
numbers.

Stored: DeepSeek-V3's 512 + 64 numbers a token and layer, against the keys and values of its 128
heads. Decoded: one layer of DeepSeek-V2-Lite's shape (16 heads), its latents re-projected to keys
and values at every step, or absorbed into the query.
"""

import functools

from labkit import ModelConfig, formulas, presets
from labkit.lab import Lab

CONTEXTS = [1024, 2048, 4096, 8000]
LITE = ModelConfig(
    102400,
    2048,
    1,
    16,
    16,
    0,
    10944,
    163840,
    layer_types=("mla",),
    norm_eps=1e-6,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)


def costs(c, context: int) -> dict:
    """path -> FLOPs of one decoded token's attention in one layer, with what makes keys and values,
    or moves the query.
    """
    f = formulas.symbols
    per_token = 2 * c.kv_lora_rank * c.n_heads * (c.qk_nope_head_dim + c.v_head_dim)
    heads = c.n_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    return {
        "absorbed": (
            per_token
            + f.latent_decode_flops(1, context, c.n_heads, c.kv_lora_rank, c.qk_rope_head_dim)
        ),
        "reprojected": per_token * context + f.latent_prefill_flops(1, context, *heads),
    }


def run(device="cpu", quick=False):
    import torch

    from labkit import bench
    from labkit.tables import progress
    from labkit_labs.common import layer

    torch.set_num_threads(1)
    mixer = layer.make(LITE, device=device)
    v3, rows = presets["deepseek-v3"], []
    for T in progress([256, 512] if quick else CONTEXTS, "contexts"):
        cache = layer.full_cache(mixer, T)
        decode = layer.decoder(mixer, T, cache)

        def by(path, decode=decode):
            mixer.path = path
            return decode()

        fns = {path: functools.partial(by, path) for path in ("reprojected", "absorbed")}
        out = {path: fns[path]() for path in fns}
        gap = (
            (out["absorbed"] - out["reprojected"]).abs().max() / out["absorbed"].abs().max()
        ).item()
        if gap > 1e-3:
            raise ValueError(
                f"absorbed and re-projected decoding differ by {gap:.1e} of the largest output:"
                " they must be one function"
            )
        times = bench.interleave(
            fns, warmup=1, repeats=3 if quick else 7, device=device, flops=costs(LITE, T)
        )
        stored = formulas.kv_cache_bytes(v3, T)
        # bf16: 2 bytes
        heads = (
            v3.n_layers
            * T
            * 2
            * v3.n_heads
            * (v3.qk_nope_head_dim + v3.qk_rope_head_dim + v3.v_head_dim)
        )
        for path, m in times.items():
            rows.append(
                m.to_row(
                    path=path,
                    context=T,
                    multiple=bench.multiple(times["reprojected"], m),
                    gap=gap,
                    latent_bytes=cache.allocated_bytes,
                    v3_bytes=stored,
                    v3_as_heads=heads,
                    v3_saving=heads / stored,
                )
            )
    return rows


def go(rows):
    for r in rows:
        if not r["gap"] <= 1e-3:
            return (
                f"the paths differ by {r['gap']:.1e} of the largest output: look at the order of"
                " latent and RoPE part"
            )


def pays(rows):
    for r in rows:
        need = 20 if r["context"] >= 8000 else 2
        if r["path"] == "absorbed" and r["multiple"] < need:
            return (
                f"at {r['context']:,} tokens absorbing makes decode {r['multiple']:.1f} times as"
                f" fast, where at least {need} is usual: look whether keys are still made for every"
                " cached token"
            )


def plot(rows):
    from labkit import plotting

    series = {}
    for r in rows:
        series.setdefault(r["path"], []).append(r["median"] * 1e3)
    return plotting.lines(
        sorted({r["context"] for r in rows}),
        series,
        log_y=True,
        x_label="cached tokens",
        y_label="milliseconds",
        alt=(
            "Milliseconds for one decoded token in one MLA layer by context: re-projected grows"
            " steeply, absorbed slowly."
        ),
    )


LAB = Lab(
    asks="Are the two paths one function? Is absorbing worth it?",
    title="MLA: a latent instead of heads",
    minutes=0.3,
    objective=(
        "Compute what DeepSeek-V3 stores per token, and measure one latent layer decoding by"
        " re-projection and by absorption."
    ),
    notice=(
        "The cache is the same for both: what differs is who does the work. Re-projecting makes"
        " keys and values of all cached tokens for the sake of one query. Absorbing moves that"
        " matrix to the query once. Latents save memory either way; they save time only when"
        " absorbed."
    ),
    columns={
        "context": "context",
        "path": "decode",
        "median": "seconds|.5f",
        "iqr": "quartiles apart|.5f",
        "multiple": "times as fast|.1f",
        "flops": "FLOPs|,",
        "latent_bytes": "latents' bytes",
        "gap": "largest difference|.1e",
        "v3_bytes": "DeepSeek-V3 stores",
        "v3_as_heads": "as 128 heads",
        "v3_saving": "times less|.1f",
    },
    run=run,
    plot=plot,
    go=go,
    pays=pays,
)

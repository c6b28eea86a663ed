"""CH04-ABSORBED: what latent attention stores, and two ways to decode from it that give the same
numbers.

Stored: DeepSeek-V3's 512 + 64 numbers a token and layer, against the keys and values of its 128
heads. Decoded: one layer of DeepSeek-V2-Lite's shape (16 heads), its latents re-projected to keys
and values at every step, or absorbed into the query.
"""

from functools import partial

from labkit import ModelConfig, bench, formulas, plotting, presets
from labkit.lab import Lab
from labkit.tables import only, progress, series

V3 = presets["deepseek-v3"]
LITE = ModelConfig(
    vocab_size=102400,
    d_model=2048,
    n_layers=1,
    n_heads=16,
    n_kv_heads=16,
    head_dim=0,
    d_ff=10944,
    max_context=163840,
    layer_types=("mla",),
    norm_eps=1e-6,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)
PATHS = ("reprojected", "absorbed")


def costs(c: ModelConfig, context: int) -> dict:
    """path -> FLOPs of one decoded token's attention in one layer, with what makes keys and values,
    or moves the query.
    """
    f = formulas.symbols
    H = c.n_heads
    per_token = 2 * c.kv_lora_rank * H * (c.qk_nope_head_dim + c.v_head_dim)
    over_latents = f.latent_decode_flops(1, context, H, c.kv_lora_rank, c.qk_rope_head_dim)
    over_heads = f.latent_prefill_flops(
        1, context, H, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    )
    return {
        "absorbed": per_token + over_latents,
        "reprojected": per_token * context + over_heads,
    }


def as_heads(c: ModelConfig, context: int) -> int:
    """Bytes that the model's keys and values would take in bf16, stored head by head."""
    key = c.qk_nope_head_dim + c.qk_rope_head_dim
    return 2 * c.n_layers * context * c.n_heads * (key + c.v_head_dim)


def run(device, *, contexts, repeats):
    """A row for each context and path."""
    from labkit_labs.common import layer

    mixer = layer.make(LITE, device=device)
    rows = []
    for T in progress(contexts, "contexts"):
        cache = layer.full_cache(mixer, T)
        decode = layer.decoder(mixer, T, cache)

        def by(path, decode=decode):
            mixer.path = path
            return decode()

        a, b = by("absorbed"), by("reprojected")
        gap = ((a - b).abs().max() / a.abs().max()).item()
        if gap > 1e-3:
            raise ValueError(
                f"absorbed and re-projected decoding differ by {gap:.1e} of the largest output:"
                " they must be one function"
            )
        times = bench.interleave(
            {path: partial(by, path) for path in PATHS},
            warmup=1,
            repeats=repeats,
            device=device,
            flops=costs(LITE, T),
        )
        stored = formulas.kv_cache_bytes(V3, T)
        heads = as_heads(V3, T)
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
    contexts = sorted({r["context"] for r in rows})
    milliseconds = series(rows, "path", "median", 1e3)
    return plotting.lines(
        contexts,
        milliseconds,
        log_y=True,
        x_label="cached tokens",
        y_label="milliseconds",
        alt="Milliseconds for one decoded token in one MLA layer, from"
        f" {contexts[0]:,} to {contexts[-1]:,} cached tokens: "
        + "; ".join(f"{path} {ms[0]:.2f} to {ms[-1]:.2f}" for path, ms in milliseconds.items()),
    )


def notice(rows):
    long = max(r["context"] for r in rows)
    absorbed = only(rows, path="absorbed", context=long)
    reprojected = only(rows, path="reprojected", context=long)
    return (
        "The cache is the same for both: what differs is who does the work. Re-projecting makes"
        " keys and values of all cached tokens for the sake of one query. Absorbing moves that"
        f" matrix to the query once. At {long:,} tokens re-projecting takes"
        f" {reprojected['flops'] / absorbed['flops']:.0f} times the FLOPs and"
        f" {absorbed['multiple']:.1f} times the time. Latents save memory either way, and time only"
        " when absorbed."
    )


LAB = Lab(
    title="MLA: a latent instead of heads",
    objective=(
        "Compute what DeepSeek-V3 stores per token, and measure one latent layer decoding by"
        " re-projection and by absorption."
    ),
    asks="Are the two paths one function, and is absorbing worth it?",
    notice=notice,
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
    sizes={
        "full": {"contexts": [1024, 2048, 4096, 8000], "repeats": 7},
        "quick": {"contexts": [256, 512], "repeats": 3},
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=0.3,
)

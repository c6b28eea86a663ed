"""`labkit estimate deepseek-v3 --context 131072`: what a model costs, and where each byte goes, by
the formulas.
"""

from __future__ import annotations

import json


def arguments(parser) -> None:
    parser.add_argument("model", help="a preset, such as llama3-70b")
    parser.add_argument(
        "--context",
        type=int,
        default=None,
        metavar="T",
        help="tokens of each request (default: the model's own context)",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="requests (default 1)")
    parser.add_argument(
        "--dtype",
        default="bf16",
        help="of the weights: fp32, bf16, fp16, int8, int4 (default bf16)",
    )
    parser.add_argument(
        "--cache-dtype",
        default=None,
        help="of the cache (default: as the weights; bf16 under int8 and int4)",
    )


def run(args) -> None:
    from labkit import formulas as f
    from labkit.published import presets
    from labkit.tables import table

    config = presets[args.model]
    context = config.max_context if args.context is None else args.context
    if context < 1 or args.batch < 1:
        raise ValueError(f"context and batch must be at least 1, not {context} and {args.batch}")
    cache_dtype = args.cache_dtype or ("bf16" if args.dtype in ("int8", "int4") else args.dtype)
    out = {
        "parameters": f.parameters(config),
        "active_parameters": f.active_parameters(config),
        "weight_bytes": f.weight_bytes(config, args.dtype),
        "kv_cache_bytes": f.kv_cache_bytes(config, context, args.batch, cache_dtype),
        "decode_flops": f.decode_flops(config, context),
        "decode_bytes": f.decode_bytes(config, context, args.batch, args.dtype, cache_dtype),
    }
    if args.json:
        print(json.dumps(out))
        return
    print(
        f"{args.model}: {context:,} tokens of context, batch {args.batch}, weights {args.dtype},"
        f" cache {cache_dtype}\n"
    )
    unit, scale = next((u for u in UNITS if out["weight_bytes"] >= u[1]), UNITS[-1])
    weights = with_total(weight_rows(config, args.batch, args.dtype))
    cache = with_total(cache_rows(config, context, args.batch, cache_dtype))
    for row in weights + cache:
        row |= {"held": row["held"] / scale, "read": row["read"] / scale}
    columns = {
        "what": "",
        "layers": "layers",
        "parameters": "parameters",
        "held": f"{unit} held|,.3f",
        "read": f"a step reads, {unit}|,.3f",
        "how": "",
    }
    print(table(weights, columns | {"what": "weights"}) + "\n")
    print(
        table(cache, {k: v for k, v in columns.items() if k != "parameters"} | {"what": "cache"})
        + "\n"
    )
    print(table(summary(config, out, context, args.batch), {"what": "", "value": "", "how": ""}))


UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def weight_rows(config, batch: int, dtype: str) -> list[dict]:
    """One row per kind of weights: elements, bytes held, bytes a decode step reads.

    The columns sum to the totals.
    """
    from labkit import formulas as f

    c, read, rows = config, f.read_parts(config, batch, dtype), []
    for name, part in f.parts(config).items():
        touched = f.experts_read(c.n_experts, c.n_active_experts, batch) if c.n_experts else 0
        how = {
            "embedding": f"{batch:,} of {c.vocab_size:,} rows",
            "positions": f"{batch:,} of {c.max_context:,} rows",
            "routed experts": f"{touched:.1f} of {c.n_experts} experts a layer",
        }.get(name, "all of it")
        rows.append(
            {
                "what": name,
                "layers": part.layers,
                "parameters": part.elements,
                "held": f.bytes_of(part.elements, dtype),
                "read": read[name],
                "how": "reads " + how,
            }
        )
    return rows


def cache_rows(config, context: int, batch: int, dtype: str) -> list[dict]:
    """One row per layer type: bytes held, all of which a decode step reads, and the sum that makes
    them, in words.
    """
    from labkit import formulas as f

    c, b, rows = config, f"{f.BITS[dtype] / 8:g} bytes", []
    kv = f"2 x {c.n_kv_heads} heads x {c.head_dim} numbers"
    latent = f"({c.kv_lora_rank} latent + {c.qk_rope_head_dim} rotated) numbers"
    channels = 2 * c.delta_n_key_heads * c.delta_key_dim + c.delta_n_value_heads * c.delta_value_dim
    words = {
        "full": f"{kv} x {context:,} tokens x {b}",
        "sliding": f"{kv} x min({context:,}, {c.window or 0:,}) tokens x {b}",
        "mla": f"{latent} x {context:,} tokens x {b}",
        "delta": (
            f"({c.delta_n_value_heads} heads x {c.delta_key_dim} x {c.delta_value_dim} numbers x 4"
            f" bytes + {c.delta_conv - 1} conv inputs x {channels:,} x {b})"
        ),
    }
    for kind, held in f.cache_parts(config, context, batch, dtype).items():
        n = c.types.count(kind)
        how = f"{count(batch, 'request')} x {count(n, 'layer')} x {words[kind]}"
        rows.append({"what": kind, "layers": n, "held": held, "read": held, "how": how})
    return rows


def with_total(rows: list[dict]) -> list[dict]:
    return [
        *rows,
        {"what": "together"}
        | {
            key: sum(row[key] for row in rows)
            for key in ("parameters", "held", "read")
            if key in rows[0]
        },
    ]


def summary(config, out: dict, context: int, batch: int) -> list[dict]:
    each = out["kv_cache_bytes"] / batch / context
    intensity = out["decode_flops"] * batch / out["decode_bytes"]
    average = " on average" if {"sliding", "delta"} & {*config.types} else ""
    return [
        {"what": what, "value": value, "how": how}
        for what, value, how in (
            ("parameters", f"{out['parameters']:,}", ""),
            (
                "active parameters",
                f"{out['active_parameters']:,}",
                f"{out['active_parameters'] / out['parameters']:.1%} of them work on a token",
            ),
            ("weights", size(out["weight_bytes"]), "to hold the model"),
            (
                "KV cache",
                size(out["kv_cache_bytes"]),
                f"{each:,.0f} bytes a token{average}, {batch} x {context:,} tokens",
            ),
            (
                "together",
                size(out["weight_bytes"] + out["kv_cache_bytes"]),
                "what a machine must hold",
            ),
            (
                "a decode step reads",
                size(out["decode_bytes"]),
                f"{size(out['decode_bytes'] / batch)} for each token of the batch",
            ),
            (
                "a token computes",
                f"{out['decode_flops'] / 1e9:,.2f} GFLOP",
                f"{intensity:.1f} FLOPs a byte in this batch",
            ),
        )
    ]


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("s" if n > 1 else "")


def size(bytes: float) -> str:
    """Bytes as people read them: GB is 10^9."""
    for unit, scale in (("TB", 1e12), *UNITS):
        if bytes >= scale:
            return f"{bytes / scale:,.2f} {unit}"
    return f"{bytes:,.0f} bytes"

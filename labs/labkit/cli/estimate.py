"""`labkit estimate deepseek-v3 --context 131072`: what a model costs, and where each byte goes, by
the formulas; with `--gpu H100 --users 16`, what fits and the least that tokens take.
"""

from __future__ import annotations

import json
from pathlib import Path


def arguments(parser) -> None:
    parser.add_argument("model", help="a preset, such as llama3-70b, or the path of a config.json")
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

    parser.add_argument("--gpu", default=None, metavar="NAME", help="size for it, such as H100")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="so many (default 1)")
    parser.add_argument(
        "--users",
        type=int,
        default=None,
        metavar="N",
        help="requests at once on the GPUs (default: as --batch)",
    )
    parser.add_argument(
        "--price",
        type=float,
        default=None,
        metavar="DOLLARS",
        help="of a GPU-hour (default: a dated price list's, which is printed)",
    )


def run(args) -> None:
    from labkit import formulas as f
    from labkit.tables import table

    config = read(args.model)
    context = config.max_context if args.context is None else args.context
    if context < 1 or args.batch < 1:
        raise ValueError(f"context and batch must be at least 1, not {context} and {args.batch}")
    if args.gpu is None and (args.users, args.price, args.gpus) != (None, None, 1):
        raise ValueError("--gpus, --users and --price need a --gpu, such as --gpu H100")
    cache_dtype = args.cache_dtype or ("bf16" if args.dtype in ("int8", "int4") else args.dtype)
    out = {
        "parameters": f.parameters(config),
        "active_parameters": f.active_parameters(config),
        "weight_bytes": f.weight_bytes(config, args.dtype),
        "kv_cache_bytes": f.kv_cache_bytes(config, context, args.batch, cache_dtype),
        "decode_flops": f.decode_flops(config, context),
        "decode_bytes": f.decode_bytes(config, context, args.batch, args.dtype, cache_dtype),
    }
    on_gpus = args.gpu and serving(config, args, context, cache_dtype)
    if on_gpus:
        out |= on_gpus[0]
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
    reserved = f.kv_cache_reserved_bytes(config, context, args.batch, cache_dtype)
    said = {"what": "", "value": "", "how": ""}
    print(table(summary(config, out, context, args.batch, reserved), said))
    if on_gpus:
        print(f"\n{on_gpus[1]}\n\n{table(on_gpus[2], said)}")


def read(model: str):
    """A preset by its name, or the sizes in a `config.json`."""
    from labkit.hf_sizes import config_from_sizes
    from labkit.published import presets

    path = Path(model)
    if model in presets or not (path.suffix == ".json" or path.exists() or "/" in model):
        return presets[model]
    if path.is_dir():
        path /= "config.json"
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        given = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} is not JSON: {e}") from e
    return config_from_sizes(given)


def serving(config, args, context: int, cache_dtype: str) -> tuple[dict, str, list[dict]]:
    """What so many users take on GPUs: the numbers, a headline, and rows that say how."""
    from labkit import formulas as f
    from labkit_labs.common import gpus

    card = gpus.named(args.gpu)
    users = args.batch if args.users is None else args.users
    price = card.dollars_per_hour if args.price is None else args.price
    dtypes = args.dtype, cache_dtype
    memory = args.gpus * card.memory_bytes
    made = f.sized(
        config, card.ceilings, card.memory_bytes, price, args.gpus, context, users, *dtypes
    )
    alike = f.largest_batch(config, memory, context, *dtypes, reserved=True)
    headline = f"{args.gpus:,} x {args.gpu}, {count(users, 'user')} of {context:,} tokens each"
    fit, batch = made["largest_batch"], min(users, made["largest_batch"])
    unit = unit_of(max(made["cache_held_bytes"], made["cache_reserved_bytes"]))
    rows = [
        ("cache held", size(made["cache_held_bytes"], unit), "what all users' sequences need"),
        (
            "cache reserved",
            size(made["cache_reserved_bytes"], unit),
            "by an engine with pages for the full length in every layer",
        ),
        (
            "largest batch",
            f"{fit:,}",
            f"floor(({f.USABLE:g} x {size(memory)} - {size(f.weight_bytes(config, args.dtype))})"
            f" / {size(f.kv_cache_bytes(config, context, 1, cache_dtype))}); with full-length"
            f" pages {alike:,}",
        ),
    ]
    if batch == 0:
        least = f.gpus_to_hold(config, card.memory_bytes, context, users, *dtypes)
        rows.append(
            ("does not fit", "", f"weights and caches need at least {least:,} x {args.gpu}")
        )
        return made, headline, as_rows(rows)
    peak = args.gpus * card.ceilings.flops_per_second
    speed = args.gpus * card.ceilings.bytes_per_second
    ceilings = f"{peak / 1e12:,.0f} TFLOP/s", f"{speed / 1e12:,.2f} TB/s"
    seconds = lambda flops, bytes: (
        f"max({flops / 1e12:,.2f} TFLOP / {ceilings[0]}, {size(bytes)} / {ceilings[1]})"
    )
    waiting = f"; {count(users - batch, 'user')} must wait" if batch < users else ""
    rows += [
        (
            "TTFT, at least",
            duration(made["ttft_floor"]),
            seconds(
                f.least_prefill_flops(config, context), f.prefill_bytes(config, context, *dtypes)
            ),
        ),
        (
            "TPOT, at least",
            duration(made["tpot_floor"]),
            seconds(
                batch * f.decode_flops(config, context),
                f.decode_bytes(config, context, batch, *dtypes),
            )
            + f" for a batch of {batch:,}{waiting}",
        ),
        (
            "dollars per million",
            f"${made['dollars_per_million']:,.3f}, at least",
            f"10^6 x {args.gpus} x ${price:g} / (3600 x {batch / made['tpot_floor']:,.0f}"
            " tokens/s), tokens written",
        ),
    ]
    if args.price is None:
        listed = gpus.table()["price"]
        rows.append(("", "", f"price of an hour: {listed['source']}, {listed['date']}"))
    return made, headline, as_rows(rows)


def as_rows(rows: list[tuple]) -> list[dict]:
    return [dict(zip(("what", "value", "how"), row)) for row in rows]


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


def summary(config, out: dict, context: int, batch: int, reserved: int) -> list[dict]:
    each = out["kv_cache_bytes"] / batch / context
    intensity = out["decode_flops"] * batch / out["decode_bytes"]
    average = " on average" if {"sliding", "delta"} & {*config.types} else ""
    unit = unit_of(max(out["kv_cache_bytes"], reserved))
    whole = unit_of(out["weight_bytes"] + reserved)
    return as_rows(
        [
            ("parameters", f"{out['parameters']:,}", ""),
            (
                "active parameters",
                f"{out['active_parameters']:,}",
                f"{out['active_parameters'] / out['parameters']:.1%} of them work on a token",
            ),
            ("weights", size(out["weight_bytes"]), "to hold the model"),
            (
                "KV cache, held",
                size(out["kv_cache_bytes"], unit),
                f"what the sequences need: {each:,.0f} bytes a token{average},"
                f" {batch} x {context:,} tokens",
            ),
            (
                "KV cache, reserved",
                size(reserved, unit),
                "by an engine with pages for the full length in every layer",
            ),
            (
                "together",
                size(out["weight_bytes"] + out["kv_cache_bytes"], whole),
                f"held; {size(out['weight_bytes'] + reserved, whole)} reserved",
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
        ]
    )


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("s" if n != 1 else "")


def unit_of(bytes: float) -> tuple[str, float]:
    """The unit people read so many bytes in: GB is 10^9."""
    return next((u for u in (("TB", 1e12), *UNITS) if bytes >= u[1]), ("bytes", 1))


def size(bytes: float, unit: tuple[str, float] | None = None) -> str:
    """Bytes as people read them, in their own unit or a given one."""
    name, scale = unit or unit_of(bytes)
    return f"{bytes / scale:,.2f} {name}" if scale > 1 else f"{bytes:,.0f} bytes"


def duration(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{1000 * seconds:,.2f} ms"

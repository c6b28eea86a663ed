"""`labkit estimate llama3-70b --context 10000 --batch 32`: what a model costs, by the formulas."""
from __future__ import annotations

import json


def arguments(parser) -> None:
    parser.add_argument("model", help="a preset, such as llama3-70b")
    parser.add_argument("--context", type=int, default=None, metavar="T", help="tokens of each request (default: the model's own context)")
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="requests (default 1)")
    parser.add_argument("--dtype", default="bf16", help="of the weights: fp32, bf16, fp16, int8, int4 (default bf16)")
    parser.add_argument("--cache-dtype", default=None, help="of the cache (default: as the weights; bf16 under int8 and int4)")


def run(args) -> None:
    from labkit import formulas as f
    from labkit import presets
    from labkit.cli import table

    config = presets[args.model]
    context = config.max_context if args.context is None else args.context
    if context < 1 or args.batch < 1:
        raise ValueError(f"context and batch must be at least 1, not {context} and {args.batch}")
    cache_dtype = args.cache_dtype or ("bf16" if args.dtype in ("int8", "int4") else args.dtype)
    out = {"parameters": f.parameters(config), "active_parameters": f.active_parameters(config),
           "weight_bytes": f.weight_bytes(config, args.dtype), "kv_cache_bytes": f.kv_cache_bytes(config, context, args.batch, cache_dtype),
           "decode_flops": f.decode_flops(config, context), "decode_bytes": f.decode_bytes(config, context, args.batch, args.dtype, cache_dtype)}
    if args.json:
        print(json.dumps(out))
        return
    each = f.kv_cache_bytes(config, context, 1, cache_dtype) / context
    print(f"{args.model}: {context:,} tokens of context, batch {args.batch}, weights {args.dtype}, cache {cache_dtype}\n")
    print(table([
        {"what": "parameters", "value": f"{out['parameters']:,}", "how": ""},
        {"what": "weights", "value": size(out["weight_bytes"]), "how": "to hold the model"},
        {"what": "KV cache", "value": size(out["kv_cache_bytes"]), "how": f"{each:,.0f} bytes a token, {args.batch} x {context:,} tokens"},
        {"what": "together", "value": size(out["weight_bytes"] + out["kv_cache_bytes"]), "how": "what a machine must hold"},
        {"what": "a decode step reads", "value": size(out["decode_bytes"]),
         "how": f"{size(out['decode_bytes'] / args.batch)} for each of {args.batch} tokens"},
        {"what": "a token computes", "value": f"{out['decode_flops'] / 1e9:,.2f} GFLOP",
         "how": f"{out['decode_flops'] * args.batch / out['decode_bytes']:.1f} FLOPs a byte in this batch"},
    ], {"what": "", "value": "", "how": ""}))


def size(bytes: float) -> str:
    """Bytes as people read them: GB is 10^9."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes >= scale:
            return f"{bytes / scale:,.2f} {unit}"
    return f"{bytes:,.0f} bytes"

"""`labkit generate "…"`: the real model, from a prompt to a reply."""

from __future__ import annotations

import json
import time


def arguments(parser) -> None:
    parser.add_argument("prompt", help="what to ask")
    parser.add_argument(
        "--new", type=int, default=128, metavar="N", help="new tokens at most (default 128)"
    )
    parser.add_argument("--cache", choices=["static", "paged", "none"], default="static")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = greedy (default)")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--raw", action="store_true", help="continue the text, without the chat template"
    )


def run(args) -> None:
    from labkit.decode import generate, stream
    from labkit.sampling import Sampling
    from labkit.tables import progress
    from labkit.weights import smollm2

    sampling = Sampling(temperature=args.temperature, top_p=args.top_p, seed=args.seed)
    if not args.prompt.strip():
        raise ValueError("the prompt is empty: give at least one word")
    model, tokenizer = smollm2(args.dtype, args.device)
    ids = tokenizer.encode(args.prompt) if args.raw else tokenizer.chat(args.prompt)
    steps = stream(model, [ids], args.new, cache=args.cache, sampling=sampling)
    # warm up, so that the speed is the model's and not the first call's
    generate(model, [ids], 1, cache=args.cache)
    start = time.perf_counter()
    tokens = [step.tokens[0] for step in progress(steps, "tokens", args.new)]
    seconds = time.perf_counter() - start
    text = tokenizer.decode(tokens[:-1] if tokens[-1] in model.config.stop else tokens).strip()
    speed = len(tokens) / seconds
    if args.json:
        print(
            json.dumps(
                {"text": text, "tokens": len(tokens), "tokens_per_second": speed},
                ensure_ascii=False,
            )
        )
    else:
        print(
            f"{text}\n\n{len(tokens)} tokens, {speed:.1f} tokens/s, prompt of {len(ids)} tokens"
            f" included; cache {args.cache}, {args.dtype}, {args.device}"
        )

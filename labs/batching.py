"""The course's workload, and static batching: the engine's foil, once right and once deliberately wrong."""
from __future__ import annotations

import random

SEED, REQUESTS, SHARED, OWN, MEAN, NEW = 7, 48, 256, (20, 120), 64, (8, 256)


def workload(text, seed: int = SEED) -> list[tuple[list[int], int]]:
    """[(prompt, new tokens)] of the ladder, cut from `text` (token ids): one system prompt for all, own tokens, geometric lengths."""
    text, rnd = list(text), random.Random(seed)
    requests = []
    for i in range(REQUESTS):
        start = (SHARED + i * 97) % (len(text) - OWN[1])
        own = text[start : start + rnd.randint(*OWN)]
        requests.append((text[:SHARED] + own, min(NEW[1], max(NEW[0], round(rnd.expovariate(1 / MEAN))))))
    return requests


def static(model, requests: list[tuple[list[int], int]], slots: int, padded: bool = False) -> tuple[list[list[int]], int]:
    """Serve in batches of `slots`: nobody joins, nobody leaves, until the batch's longest reply is done. Tokens, and forwards run.

    `padded` is the usual mistake: prompts are filled up to the longest with token 0, and neither mask nor positions know.
    """
    import torch

    from labkit.step import Step

    replies, forwards = [], 0
    with torch.inference_mode():
        for start in range(0, len(requests), slots):
            batch = requests[start : start + slots]
            longest = max(len(p) for p, _ in batch)
            texts = [[0] * (longest - len(p)) + list(p) if padded else list(p) for p, _ in batch]
            done, new = [0] * len(batch), max(n for _, n in batch)
            caches = model.caches("static", len(batch), longest + new)
            first = [len(t) for t in texts]
            for _ in range(new):
                order = sorted(range(len(batch)), key=lambda r: len(texts[r]) - done[r])
                step = Step.of([(r, done[r], texts[r][done[r] :]) for r in order], model.device)
                for r, token in zip(order, model(step, caches, step.last).argmax(-1).tolist()):
                    done[r] = len(texts[r])
                    texts[r].append(token)
                forwards += 1
            replies += [t[n : n + k] for t, n, (_, k) in zip(texts, first, batch)]
    return replies, forwards

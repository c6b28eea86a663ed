"""How tokens see each other: softmax attention written out, and the same
answer without ever holding the T x T scores.
"""

import numpy as np

from labkit.reference.layers import softmax


def attention(
    q, k, v, qpos, kpos, window=None, sinks=None, keep=0, scale=None
):
    """softmax(q k^T / sqrt(E)) v, each query looking at keys of its own
    position and before (Vaswani et al. 2017, eq. 1).

    q [T,H,E] · k [S,G,E] · v [S,G,Ev] · qpos [T] · kpos [S], -1 = empty slot
    -> [T,H,Ev]. Each of the G key heads serves H/G query heads. `window`: a
    query sees that many tokens, itself included (Beltagy et al. 2020), and
    always the first `keep` (Xiao et al. 2023). `sinks` [H]: a learned score
    per head that takes weight and gives nothing (gpt-oss). scale: 1/sqrt(E).
    """
    H, E = q.shape[1:]
    # naive on purpose: G heads copied out to H
    k, v = (np.repeat(a, H // a.shape[1], axis=1) for a in (k, v))
    # [H,T,S], float64 from here on
    scores = np.einsum("the,she->hts", q, k) * np.float64(
        E**-0.5 if scale is None else scale
    )
    see = (kpos >= 0) & (kpos <= qpos[:, None])  # [T,S]
    if window is not None:
        see &= (qpos[:, None] - kpos < window) | (kpos < keep)
    scores = np.where(see, scores, -np.inf)
    # one more column to look at, with no value behind it
    if sinks is not None:
        scores = np.concatenate(
            [scores, np.broadcast_to(sinks[:, None, None], (H, len(q), 1))],
            axis=-1,
        )
    return np.einsum("hts,she->the", softmax(scores)[..., : len(k)], v)


def online_attention(q, k, v, tile=4, watch=None):
    """Causal attention of one head, a tile of keys at a time: q, k, v [T,E]
    -> [T,E].

    There is no [T,T] anywhere. Keep per query the largest score so far
    (`top`), the sum of exponentials (`total`) and the weighted values
    (`out`), all relative to `top`. When a later tile brings a larger score,
    what was summed before shrinks by exp(old top - new top). (Milakov &
    Gimelshein 2018; Dao et al. 2022, algorithm 1.)
    """
    T, E = q.shape
    result = np.empty_like(q)
    for a in range(0, T, tile):
        rows = q[a : a + tile]
        top = np.full(len(rows), -np.inf)
        total, out = np.zeros(len(rows)), np.zeros_like(rows)
        # tiles behind the diagonal are never touched
        for b in range(0, a + tile, tile):
            scores = rows @ k[b : b + tile].T / np.sqrt(E)  # [tile,tile]
            qpos = a + np.arange(len(rows))
            kpos = b + np.arange(scores.shape[1])
            scores[kpos > qpos[:, None]] = -np.inf
            new_top = np.maximum(top, scores.max(axis=1))
            shrink = np.exp(top - new_top)
            p = np.exp(scores - new_top[:, None])
            total = total * shrink + p.sum(axis=1)
            out = out * shrink[:, None] + p @ v[b : b + tile]
            top = new_top
            if watch:
                watch(a, b, top, total, shrink, scores)
        result[a : a + tile] = out / total[:, None]
    return result


def merge(parts):
    """Combine softmaxes over disjoint keys: parts of (top, total, out), `out`
    not yet divided by `total`.
    """
    top = max(t for t, _, _ in parts)
    total = sum(n * np.exp(t - top) for t, n, _ in parts)
    return sum(o * np.exp(t - top) for t, _, o in parts) / total


def split_decode(q, k, v, splits):
    """One query [E] over S cached keys [S,E], cut into `splits` that could
    run side by side ("Flash-Decoding", Dao et al. 2023).
    """
    parts = []
    for keys, values in zip(
        np.array_split(k, splits), np.array_split(v, splits)
    ):
        scores = keys @ q / np.sqrt(len(q))
        top = scores.max()
        p = np.exp(scores - top)
        parts.append((top, p.sum(), p @ values))
    return merge(parts)

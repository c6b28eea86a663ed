"""How tokens see each other: softmax attention written out, and the same
answer without ever holding the T x T scores.
"""

import numpy as np

from labkit.reference.layers import softmax


def may_look(qpos, kpos, window=None, keep=0):
    """The mask [T,S]: True where the query at qpos [T] may look at the key at
    kpos [S], -1 = empty slot.

    `window`: a query sees that many tokens, itself included (Beltagy et al.
    2020), and always the first `keep` (Xiao et al. 2023).
    """
    see = (kpos >= 0) & (kpos <= qpos[:, None])
    if window is not None:
        see &= (qpos[:, None] - kpos < window) | (kpos < keep)
    return see


def attention(
    q, k, v, qpos, kpos, window=None, sinks=None, keep=0, scale=None
):
    """softmax(q k^T / sqrt(E)) v, each query looking at keys of its own
    position and before (Vaswani et al. 2017, eq. 1).

    q [T,H,E] · k [S,G,E] · v [S,G,Ev] · qpos [T] · kpos [S], -1 = empty slot
    -> [T,H,Ev]. Each of the G key heads serves H/G query heads. `window`,
    `keep`: see `may_look`. `sinks` [H]: a learned score per head that takes
    weight and gives nothing (gpt-oss). scale: 1/sqrt(E).
    """
    H, E = q.shape[1:]
    # naive on purpose: G heads copied out to H
    k, v = (np.repeat(a, H // a.shape[1], axis=1) for a in (k, v))
    # [H,T,S], float64 from here on
    scores = np.einsum("the,she->hts", q, k) * np.float64(
        E**-0.5 if scale is None else scale
    )
    scores = np.where(may_look(qpos, kpos, window, keep), scores, -np.inf)
    # one more column to look at, with no value behind it
    if sinks is not None:
        scores = np.concatenate(
            [scores, np.broadcast_to(sinks[:, None, None], (H, len(q), 1))],
            axis=-1,
        )
    return np.einsum("hts,she->the", softmax(scores)[..., : len(k)], v)


def absorb(state, scores, values):
    """Take one more tile of scores [t,tile] and its values [tile,E] into what
    t queries have so far.

    `state` is, per query, the largest score (`top`), the sum of exponentials
    (`total`) and the weighted values (`out`), the last two relative to `top`.
    Where the tile brings a larger score, they shrink by exp(old - new).
    """
    top, total, out = state
    new_top = np.maximum(top, scores.max(axis=1))
    shrink = np.exp(top - new_top)
    p = np.exp(scores - new_top[:, None])
    total = total * shrink + p.sum(axis=1)
    out = out * shrink[:, None] + p @ values
    return new_top, total, out


def nothing_yet(t, E):
    """The state of t queries before their first tile."""
    return np.full(t, -np.inf), np.zeros(t), np.zeros((t, E))


def tile_scores(q, k, a, b, tile):
    """The scores of the queries from a on with the keys from b on, one tile
    of each; a key of the future counts nothing.
    """
    scores = q[a : a + tile] @ k[b : b + tile].T / np.sqrt(q.shape[1])
    qpos = np.arange(a, a + len(scores))
    kpos = np.arange(b, b + scores.shape[1])
    return np.where(may_look(qpos, kpos), scores, -np.inf)


def online_attention(q, k, v, tile=4):
    """Causal attention of one head, a tile of keys at a time: q, k, v [T,E]
    -> [T,E]. There is no [T,T] anywhere. (Milakov & Gimelshein 2018; Dao et
    al. 2022, algorithm 1.)
    """
    result = np.empty_like(q)
    for a in range(0, len(q), tile):
        rows = result[a : a + tile]
        state = nothing_yet(*rows.shape)
        # tiles behind the diagonal are never touched
        for b in range(0, a + tile, tile):
            scores = tile_scores(q, k, a, b, tile)
            state = absorb(state, scores, v[b : b + tile])
        _, total, out = state
        rows[:] = out / total[:, None]
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

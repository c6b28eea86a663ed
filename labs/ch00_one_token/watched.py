"""The NumPy model, with its attention weights kept for whoever wants to look."""

import numpy as np

from labkit import reference


class Watched(reference.TinyGPT):
    """TinyGPT that keeps the weights of its last pass: of layer i, `seen[i]` [H,T,S]."""

    def forward(self, ids, cache=None, start=None):
        self.seen = []
        return super().forward(ids, cache, start)

    def look(self, q, k, v, pos):
        kpos = np.arange(pos[-1] + 1 - len(k), pos[-1] + 1)
        weights = attention_weights(q, k, pos, kpos)
        self.seen.append(weights)
        # each of the G value heads serves H/G heads
        values = np.repeat(v, q.shape[1] // v.shape[1], axis=1)
        return np.einsum("hts,she->the", weights, values)


def attention_weights(q, k, qpos, kpos):
    """softmax(q k^T / sqrt(E)), a row for each query: q [T,H,E] · k [S,G,E] -> [H,T,S].

    `labkit.reference.attention` computes the same on its way, and returns the weighted values.
    """
    _, H, E = q.shape
    keys = np.repeat(k, H // k.shape[1], axis=1)
    scores = np.einsum("the,she->hts", q, keys) / np.float32(E**0.5)
    may = reference.may_look(qpos, kpos)
    return reference.softmax(np.where(may, scores, -np.inf)).astype(q.dtype)


def watch(model, ids) -> np.ndarray:
    """The attention weights of one text: [layers, H, T, T]. A row sums to 1."""
    model.forward(ids)
    return np.stack(model.seen)

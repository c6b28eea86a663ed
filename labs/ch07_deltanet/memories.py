"""Two memories of one head, in a few lines each: a matrix S [K,W] that is asked with k^T S.

Both read keys k [T,K], values v [T,W] and queries q [T,K], and return what each query is answered,
[T,W], and the matrix that is left.
"""

import numpy as np


def adds(q, k, v):
    """Plain linear attention (Katharopoulos et al. 2020): what is told is added."""
    S = np.zeros((k.shape[1], v.shape[1]))
    out = []
    for t in range(len(k)):
        S = S + np.outer(k[t], v[t])
        out.append(q[t] @ S)
    return np.array(out), S


def corrects(q, k, v):
    """The delta rule (Schlag et al. 2021), step size 1: ask first, add what is missing."""
    S = np.zeros((k.shape[1], v.shape[1]))
    out = []
    for t in range(len(k)):
        told = k[t] @ S
        S = S + np.outer(k[t], v[t] - told)
        out.append(q[t] @ S)
    return np.array(out), S

"""A memory of fixed size that corrects itself: the gated delta rule, token by
token and in chunks.

A cache writes every token down. Here each head owns one matrix S [K,W] that
answers a key k with the value k^T S. To store v under k one could add k v^T
(plain linear attention, Katharopoulos et al. 2020), but then old answers pile
up: keys that are not orthogonal disturb each other, and nothing is ever taken
back. The delta rule first asks what the memory says now and adds only the
difference:

    S <- exp(g) S                    forget a little (Gated DeltaNet, Yang et
                                     al. 2025)
    S <- S + beta k (v - k^T S)^T    repair the answer to k; beta = 1 and
                                     |k| = 1 makes it exactly v

which is one step of gradient descent on |k^T S - v|^2 / 2 with step size
beta, done online while reading the text (Widrow & Hoff 1960; Schlag et al.
2021). The state never grows, so a decoded token costs the same at any
context: three passes over S.
"""

import numpy as np

from labkit.reference.layers import rms_norm, silu


def delta_recurrent(q, k, v, g, beta, state=None):
    """The rule as it reads: q, k [T,H,K] · v [T,H,W] · log decay g <= 0 and
    step size beta [T,H] -> (out [T,H,W], state [H,K,W]).
    """
    state = np.zeros((*k.shape[1:], v.shape[-1])) if state is None else state
    out = np.empty(v.shape)
    for t in range(len(q)):
        state = state * np.exp(g[t])[:, None, None]
        # what it should say, less what it says
        error = v[t] - np.einsum("hk,hkw->hw", k[t], state)
        state = state + np.einsum(
            "hk,hw->hkw", k[t], beta[t][:, None] * error
        )
        out[t] = np.einsum("hk,hkw->hw", q[t], state)
    return out, state


def delta_chunked(q, k, v, g, beta, state=None, chunk=64):
    """The same answers with matrix products: inside a chunk of n tokens the
    corrections u are the solution of one linear system.

    Token t is corrected against the old state and the corrections before it,
    u_t = beta_t (v_t - decayed k_t^T S - sum_{j<t} ...): written for all t at
    once, (I + L) u = beta (v - decayed k^T S) with L strictly lower
    triangular (Yang et al. 2024, DeltaNet).
    """
    state = np.zeros((*k.shape[1:], v.shape[-1])) if state is None else state
    outs = []
    for a in range(0, len(q), chunk):
        # [H,n,...]
        Q, K, V = (x[a : a + chunk].swapaxes(0, 1) for x in (q, k, v))
        # [H,n,1], [H,n] log decay since the chunk began
        b = beta[a : a + chunk].T[..., None]
        G = np.cumsum(g[a : a + chunk], axis=0).T
        n = G.shape[1]
        # [H,n,n] from token j to t >= j
        decay = np.exp(
            np.where(
                np.tri(n, dtype=bool), G[:, :, None] - G[:, None], -np.inf
            )
        )
        since = np.exp(G)[..., None]  # [H,n,1]
        L = np.tril(b * (K @ K.swapaxes(1, 2)) * decay, -1)
        # [H,n,W]
        u = np.linalg.solve(np.eye(n) + L, b * (V - since * (K @ state)))
        outs.append(since * (Q @ state) + (Q @ K.swapaxes(1, 2) * decay) @ u)
        state = (
            since[:, -1:] * state
            + (K * decay[:, -1, :, None]).swapaxes(1, 2) @ u
        )
    return np.concatenate(outs, axis=1).swapaxes(0, 1), state


def causal_conv(x, kernel, past):
    """Each channel mixes its last few tokens: x [T,c] · kernel [c,n] · past
    [n-1,c] -> (silu of the mix [T,c], the next past).
    """
    x = np.concatenate([past, x])
    T, n = len(x) - len(past), kernel.shape[1]
    return silu(sum(x[i : i + T] * kernel[:, i] for i in range(n))), x[T:]


def gated_delta_net(x, w, config, cache=None, rule=delta_chunked):
    """A whole layer (Qwen3-Next): x [T,D] of new tokens -> (out [T,D],
    cache). `w` are labkit.mixers.GatedDeltaNet's weights by name; the cache
    is (last conv inputs [n-1,c], state [Hv,K,W]) whatever the context, None
    at the start.
    """
    c, T = config, len(x)
    Hk = c.delta_n_key_heads
    Hv = c.delta_n_value_heads
    K = c.delta_key_dim
    W = c.delta_value_dim
    past, state = cache or (
        np.zeros((c.delta_conv - 1, 2 * Hk * K + Hv * W), x.dtype),
        None,
    )
    qkv, z, b, a = np.split(
        x @ w["qkvzba.weight"].T,
        np.cumsum([past.shape[1], Hv * W, Hv]),
        axis=1,
    )
    qkv, past = causal_conv(qkv, w["conv"], past)
    q, k, v = np.split(qkv, [Hk * K, 2 * Hk * K], axis=1)
    # [T,Hv,K]
    q, k = (
        np.repeat(unit(h.reshape(T, Hk, K)), Hv // Hk, axis=1) for h in (q, k)
    )
    # [T,Hv], log of what is kept
    g = -np.exp(w["A_log"]) * np.logaddexp(0, a + w["dt_bias"])
    out, state = rule(
        q * K**-0.5, k, v.reshape(T, Hv, W), g, 1 / (1 + np.exp(-b)), state
    )
    out = rms_norm(out, w["norm.weight"], c.norm_eps) * silu(
        z.reshape(T, Hv, W)
    )
    return out.reshape(T, -1) @ w["out.weight"].T, (past, state)


def unit(x):
    """Each head scaled to length 1: a key of length 1 makes beta = 1 an exact
    repair.
    """
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + 1e-6)

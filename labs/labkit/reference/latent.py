"""Multi-head latent attention: cache one short vector per token, from which
every head makes its own key and value.

MLA (DeepSeek-AI 2024, DeepSeek-V2, section 2.1) stores C numbers a token
instead of 2 H E. RoPE stands in the way of the trick below, because a
rotation that depends on the position cannot be moved through a fixed matrix.
So a small part of each key, Er numbers that all heads share, carries the
position and is cached beside the latent: the *decoupled* RoPE key.

Two ways to attend give the same answer. `reprojected` expands the cached
latents to H keys and values, and pays for that at every token cached: right
for a prompt. `absorbed` brings the query to the latents instead, q^T (W l) =
(W^T q)^T l, so H heads read one shared "key" of C + Er numbers, as in
multi-query attention: right for decoding.
"""

import numpy as np

from labkit.reference.attention import attention
from labkit.reference.layers import rms_norm, rope

EPS = 1e-6  # of the norms inside


def reprojected(q, q_rope, latent, k_rope, up, qpos, kpos):
    """q [T,H,En] · q_rope [T,H,Er] · latent [S,C] · k_rope [S,Er] · up
    [H,En+Ev,C] -> [T,H,Ev], by way of H full keys and values.
    """
    (S, Er), (_, H, En) = k_rope.shape, q.shape
    k, v = np.split(np.einsum("sc,hec->she", latent, up), [En], axis=2)
    # [S,H,En+Er]
    k = np.concatenate(
        [k, np.broadcast_to(k_rope[:, None], (S, H, Er))], axis=2
    )
    return attention(np.concatenate([q, q_rope], axis=2), k, v, qpos, kpos)


def absorbed(q, q_rope, latent, k_rope, up, qpos, kpos):
    """The same numbers, without ever making a key: both halves of `up` act on
    the query's side.
    """
    En, Er = q.shape[2], q_rope.shape[2]
    up_k, up_v = np.split(up, [En], axis=1)  # [H,En,C], [H,Ev,C]
    # [T,H,C+Er]
    q = np.concatenate([np.einsum("the,hec->thc", q, up_k), q_rope], axis=2)
    # [S,1,C+Er]: one key head for all
    k = np.concatenate([latent, k_rope], axis=1)[:, None]
    # [T,H,C]
    mixed = attention(
        q, k, latent[:, None], qpos, kpos, scale=(En + Er) ** -0.5
    )
    return np.einsum("thc,hvc->thv", mixed, up_v)


def mla(x, w, config, cache=None, attend=absorbed):
    """A whole layer: x [T,D] of new tokens -> (out [T,D], cache).

    `w`: labkit.mixers.MLA's weights by name, and `attend` one of the two
    above. The cache is all that a decode keeps: (latents [S,C], rotated keys
    [S,Er]) of the tokens so far; None at first.
    """
    c = config
    T = len(x)
    H = config.n_heads
    C = config.kv_lora_rank
    Er = config.qk_rope_head_dim
    latent, k_rope = cache or (
        np.empty((0, C), x.dtype),
        np.empty((0, Er), x.dtype),
    )
    pos = np.arange(len(latent), len(latent) + T)
    q, new, k = np.split(x @ w["down.weight"].T, [-(C + Er), -Er], axis=1)
    # queries come out of a latent too; that saves weights, not cache
    if c.q_lora_rank:
        q = rms_norm(q, w["q_norm.weight"], EPS) @ w["q_up.weight"].T
    # [T,H,En], [T,H,Er]
    q, q_rope = np.split(q.reshape(T, H, -1), [c.qk_nope_head_dim], axis=2)
    latent = np.concatenate([latent, rms_norm(new, w["kv_norm.weight"], EPS)])
    k_rope = np.concatenate(
        [k_rope, rope(k[:, None], pos, c.rope_theta)[:, 0]]
    )
    out = attend(
        q,
        rope(q_rope, pos, c.rope_theta),
        latent,
        k_rope,
        w["kv_up"],
        pos,
        np.arange(len(latent)),
    )
    return out.reshape(T, -1) @ w["out.weight"].T, (latent, k_rope)

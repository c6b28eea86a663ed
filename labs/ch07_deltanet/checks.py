"""Checks of chapter 07, linear attention and gated DeltaNet.

Each returns what was right, or raises Wrong with what to look at.
"""

import math

import numpy as np

from labkit import formulas
from labkit.checks import call, expect
from labkit.published import presets
from labkit.reference.delta import causal_conv, delta_recurrent
from labkit.reference.layers import silu

MODELS = {name: presets[name] for name in ("qwen3-next-80b-a3b", "tiny-delta")}


def write(f):
    """07.1: one token taken into a memory, S [K,W] -> S."""
    draw = np.random.default_rng(0)
    for K, W in ((4, 3), (6, 6)):
        S, k, v = draw.standard_normal((K, W)), draw.standard_normal(K), draw.standard_normal(W)
        k /= np.linalg.norm(k)
        for kept, beta in ((0.9, 0.5), (1.0, 1.0), (0.5, 0.8)):
            where = f"S [{K},{W}], {kept:.0%} kept, {beta:.0%} repaired"
            old = S.copy()
            got = np.asarray(call(f, S, k, v, kept, beta))
            expect(np.array_equal(S, old), f"{where}: the matrix that came in has changed.")
            expect(got.shape == (K, W), f"{where}: return the memory, [{K},{W}], not {got.shape}.")
            faded = kept * S
            want = faded + beta * np.outer(k, v - k @ faded)
            expect(
                not np.allclose(got, faded + beta * np.outer(k, v)),
                f"{where}: the value is added, whatever the memory says already.",
            )
            asks_first = faded + beta * np.outer(k, v - k @ S)
            expect(
                kept == 1 or not np.allclose(got, asks_first),
                f"{where}: the error is that of a memory which has not faded yet.",
            )
            expect(
                kept == 1 or not np.allclose(got, kept * (S + beta * np.outer(k, v - k @ S))),
                f"{where}: what is written now fades at once.",
            )
            expect(
                beta == 1 or not np.allclose(got, faded + np.outer(k, v - k @ faded)),
                f"{where}: the whole error is repaired.",
            )
            expect(
                not np.allclose(got, faded - beta * np.outer(k, v - k @ faded)),
                f"{where}: the error grows. Which of the two is subtracted?",
            )
            expect(
                kept == 1 or not np.allclose(got, S + beta * np.outer(k, v - k @ S)),
                f"{where}: nothing fades.",
            )
            expect(
                np.allclose(got, want),
                f"{where}: asked by its key the memory is off by"
                f" {np.abs(k @ got - k @ want).max():.2g}.",
            )
    return "six writes; with all kept and all repaired the key gets back exactly its value."


def conv_step(f):
    """07.2: a convolution over the last tokens, one token at a time."""
    draw = np.random.default_rng(0)
    for n, c in ((4, 5), (2, 3)):
        kernel, x = draw.standard_normal((c, n)), draw.standard_normal((9, c))
        start = np.zeros((n - 1, c))
        want, _ = causal_conv(x, kernel, start)
        past, got = start, []
        where = f"{n} tokens wide, {c} channels"
        for t, token in enumerate(x):
            out, past = call(f, token, kernel, past)
            out, past = np.asarray(out), np.asarray(past)
            expect(out.shape == (c,), f"{where}: one number a channel, ({c},), not {out.shape}.")
            expect(
                past.shape == (n - 1, c),
                f"{where}: the past has {n - 1} tokens, so [{n - 1},{c}], not {list(past.shape)}.",
            )
            got.append(out)
            seen = np.concatenate([start, x])[t : t + n]
            expect(
                not np.allclose(out, (seen[::-1] * kernel.T).sum(0))
                and not np.allclose(out, silu((seen[::-1] * kernel.T).sum(0))),
                f"{where}, token {t}: the kernel is read backwards. Its last column weighs the"
                " newest token.",
            )
            expect(
                not np.allclose(out, (seen * kernel.T).sum(0)),
                f"{where}, token {t}: the mix is right; the curve behind it is missing.",
            )
            alone = silu((np.concatenate([start, token[None]]) * kernel.T).sum(0))
            expect(
                t == 0 or not np.allclose(out, alone),
                f"{where}, token {t}: it sees itself and no token before it. What did the step"
                " before hand on?",
            )
        wrong = [t for t in range(len(x)) if not np.allclose(got[t], want[t])]
        expect(
            not wrong,
            f"{where}: off from token {min(wrong, default=0)} on. Does the past hold the newest"
            " tokens, the oldest of them first?",
        )
    return "token by token as at once, from two kernels."


def corrections(f):
    """07.3: what each token of a chunk writes, [n,W], all at once."""
    draw = np.random.default_rng(0)
    for n, K, W in ((5, 8, 3), (12, 8, 4)):
        keys, V = draw.standard_normal((n, K)), draw.standard_normal((n, W))
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        beta, S = draw.uniform(0.2, 1, n), draw.standard_normal((K, W))
        where = f"{n} tokens, keys of {K} numbers"
        got = np.asarray(call(f, keys.copy(), V.copy(), beta.copy(), S.copy()))
        expect(got.shape == (n, W), f"{where}: one row a token, ({n}, {W}), not {got.shape}.")
        b, right = beta[:, None], V - keys @ S
        G = b * (keys @ keys.T)
        eye = np.eye(n)
        want = np.linalg.solve(eye + np.tril(G, -1), b * right)
        expect(
            not np.allclose(got, b * right),
            f"{where}: each token is corrected against the memory before the chunk. What earlier"
            " tokens of the chunk wrote is missing.",
        )
        expect(
            not np.allclose(got, np.linalg.solve(eye + G, b * right)),
            f"{where}: early tokens hear of later ones.",
        )
        expect(
            not np.allclose(got, np.linalg.solve(eye + np.tril(G), b * right)),
            f"{where}: a token is corrected against its own write.",
        )
        expect(
            not np.allclose(got, np.linalg.solve(eye + np.tril(keys @ keys.T, -1), b * right)),
            f"{where}: row t of the system is token t's, and so has its step size.",
        )
        expect(
            not np.allclose(got, np.linalg.solve(eye + np.tril(G, -1), b * V)),
            f"{where}: the memory before the chunk is not asked.",
        )
        expect(
            not np.allclose(got, np.linalg.solve(eye - np.tril(G, -1), b * right)),
            f"{where}: look at the sign: what earlier tokens wrote is known already.",
        )
        expect(np.allclose(got, want), f"{where}: off by {np.abs(got - want).max():.2g}.")
        state = delta_recurrent(*_one_head(keys, V, beta), S[None])[1][0]
        expect(np.allclose(S + keys.T @ got, state), f"{where}: the memory they lead to is off.")
    return "two chunks: the same writes as token by token, and no token waited for its turn."


def _one_head(keys, V, beta):
    k, v = keys[:, None], V[:, None]
    return k, k, v, np.zeros((len(keys), 1)), beta[:, None]


def outgrown(f):
    """07.4: from how many tokens on a layer's cache is larger than a layer's state."""
    for name, size in (("qwen3-next-80b-a3b", 2), ("qwen3-next-80b-a3b", 4), ("tiny-delta", 4)):
        c = MODELS[name]
        matrix = 4 * c.delta_n_value_heads * c.delta_key_dim * c.delta_value_dim
        channels = 2 * c.delta_n_key_heads * c.delta_key_dim
        channels += c.delta_n_value_heads * c.delta_value_dim
        state = matrix + (c.delta_conv - 1) * channels * size
        token = 2 * c.n_kv_heads * c.head_dim * size
        want, got = state // token + 1, call(f, c, size)
        where = f"{name}, {size} bytes a number"
        dtype = {2: "bf16", 4: "fp32"}[size]
        one = c.replace(n_layers=1, layer_types=("delta",))
        assert state == formulas.kv_cache_bytes(one, 1, 1, dtype)  # the formula is the course's
        expect(got == int(got), f"{where}: tokens come whole, not {got}.")
        wrong = {
            matrix // token + 1: "the state's matrices alone. Each layer also keeps the last"
            " inputs of its convolution",
            (matrix + c.delta_conv * channels * size) // token + 1: "one input of the convolution"
            " too many: the newest comes with the token",
            2 * state // token + 1: "a key and no value, or the other way about",
        }
        half = matrix // 2 + (c.delta_conv - 1) * channels * size
        wrong[half // token + 1] = (
            "half of the matrices' bytes. How many heads keep one, and in how many bits a number"
        )
        for number, why in wrong.items():
            expect(got != number or number == want, f"{where}: {got:,} counts {why}.")
        expect(
            got != math.ceil(state / token) or state % token,
            f"{where}: with {got:,} tokens both are equal. From where on is the cache larger?",
        )
        expect(got == want, f"{where}: {got:,}, expected {want:,}: divide one by the other.")
    return "three cases: 1,049 tokens for Qwen3-Next in bf16; every further token is the state's."


class Memory:
    """A memory that cannot be rewound, for 07.5: what it says next depends on all that it read."""

    def __init__(self, seed: int):
        self.state = seed
        self.reads = 0  # tokens
        self.calls = 0

    def read(self, tokens):
        """What the model says after each of them."""
        self.calls += 1
        said = []
        for token in tokens:
            self.state = (self.state * 31 + int(token) + 7) % 10_007
            self.reads += 1
            said.append(self.state % 50)
        return said

    def snapshot(self):
        return self.state

    def restore(self, saved):
        self.state = saved


def check_drafts(f):
    """07.5: drafts checked in one step, and what was wrong taken back."""
    for seed in (1, 5):
        for wrong_at in (2, 1, 4, None):
            text = [3]
            for _ in range(4):  # what the model itself would write
                text.append(Memory(_after(seed, text[:-1])).read(text[-1:])[0])
            drafts = list(text)
            if wrong_at is not None:
                # a wrong guess, and behind it what the model says after that: in vain
                drafts[wrong_at:] = [(text[wrong_at] + 1) % 50]
                while len(drafts) < 5:
                    state = _after(seed, drafts[:-1])
                    drafts.append(Memory(state).read(drafts[-1:])[0])
            right = 5 if wrong_at is None else wrong_at
            memory = Memory(seed)
            got = call(f, memory, list(drafts))
            where = f"five tokens, {right} of them right"
            want = _after(seed, drafts[:right])
            expect(
                wrong_at is None or got != 4 or right == 4,
                f"{where}: {got} counts guesses behind a wrong one. They follow a text that the"
                " model did not write.",
            )
            expect(
                got != right - 1,
                f"{where}: {got}. The first token is the model's own, and counts.",
            )
            expect(got == right, f"{where}: {got} is not the number of right tokens.")
            expect(
                memory.state != _after(seed, drafts) or right == 5,
                f"{where}: the number is right, and the memory still knows the wrong guesses.",
            )
            expect(
                memory.state != seed,
                f"{where}: the memory is as before the step. The right tokens were taken back too.",
            )
            expect(
                memory.state == want,
                f"{where}: the memory has read something else than the right tokens, once each.",
            )
            expect(
                memory.calls <= 2,
                f"{where}: the model was called {memory.calls} times. Guesses are worth it only if"
                " they are checked together.",
            )
            expect(
                memory.reads <= 5 + (0 if right == 5 else right),
                f"{where}: {memory.reads} tokens were read, where"
                f" {5 + (0 if right == 5 else right)} suffice.",
            )
    return "after every check the memory has read the right tokens, and no other."


def _after(seed: int, tokens) -> int:
    memory = Memory(seed)
    memory.read(tokens)
    return memory.state


CHECKS = {
    "07.1": write,
    "07.2": conv_step,
    "07.3": corrections,
    "07.4": outgrown,
    "07.5": check_drafts,
}

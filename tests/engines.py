"""What the engine's tests share: small models, prompts with what each gives alone, proposers that
are often right.
"""

import functools
import itertools
import random
from collections import Counter

import torch

import labkit
from tests import oracles

NEW = 24
SMALL = dict(
    vocab_size=64,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    d_ff=48,
    max_context=96,
)
MODELS = {
    "full": {},
    "window": dict(layer_types=("sliding", "full"), window=7),
    "multi-head, learned positions": dict(n_kv_heads=4, position="learned"),
    "latent": dict(
        layer_types=("mla", "mla"),
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
    ),
    "delta": dict(
        layer_types=("delta", "full"),
        delta_n_key_heads=2,
        delta_n_value_heads=4,
        delta_key_dim=8,
        delta_value_dim=8,
        delta_conv=4,
    ),
    "sinks, experts": dict(
        sinks=True,
        window=7,
        layer_types=("sliding", "full"),
        n_experts=4,
        n_active_experts=2,
        d_expert=16,
    ),
}


@functools.cache
def model(name: str = "full") -> labkit.GPT:
    torch.manual_seed(0)
    net = labkit.GPT(labkit.ModelConfig(**SMALL | MODELS[name]))
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 2:
                p.mul_(2)  # attention that looks somewhere in particular
    return net


@functools.cache
def prompts(name: str = "full") -> list[tuple[list[int], list[int]]]:
    """[(prompt, its next NEW greedy tokens)]: some begin alike, some are whole multiples of a
    block, some repeat themselves.
    """
    rnd = random.Random(1)
    text = lambda n: [rnd.randrange(64) for _ in range(n)]
    system, other = text(16), text(8)
    made = (
        [system + text(n) for n in (1, 3, 8, 8, 13, 20)]
        + [other + text(n) for n in (2, 5, 8)]
        + [text(n) for n in (1, 2, 4, 8, 16, 30)]
    )
    made += [system, system[:8], text(3) * 8]
    return [(p, alone(name, tuple(p))) for p in made]


@functools.cache
def alone(name: str, prompt: tuple, new: int = NEW) -> list[int]:
    """The greedy tokens of one request, without an engine; no order of sums may change them."""
    reply = labkit.generate(model(name), [list(prompt)], new, stop=())[0]
    assert oracles.lead(model(name), list(prompt), reply) > 2 * oracles.gate(name), (
        "two tokens are nearly equal: choose another prompt"
    )
    return reply


class Guess:
    """A proposer that knows what comes, and is wrong about a third of it."""

    def __init__(self, name: str, seed: int):
        self.name, self.rnd = name, random.Random(seed)

    def propose(self, asked, caches):
        texts = {tuple(p): a for p, a in prompts(self.name)}
        rest = [texts[tuple(r.prompt)][len(r.new) :][:k] for r, k in asked]
        return [
            [t if self.rnd.random() < 0.67 else self.rnd.randrange(64) for t in d] for d in rest
        ]


def check(engine) -> None:
    """Every block is free, kept or held, as often as requests hold it; nobody writes into what
    another reads; the table says the same.
    """
    s = engine.scheduler
    pool, known = s.pool, s.index.by_block
    held = Counter(b for r in s.running for b in r.blocks)
    assert [pool.holders[b] for b in range(pool.n + 1)] == [
        held[b] for b in range(pool.n + 1)
    ] and not held[0]
    assert sorted([*pool.free, *pool.kept, *held]) == list(range(1, pool.n + 1)), (
        "a block is lost, or in two states"
    )
    assert set(pool.kept) <= set(known) and not set(pool.free) & set(known), (
        "the index knows a free block, or not a kept one"
    )
    assert (
        sorted([*(r.row for r in s.running), *s.rows]) == list(range(len(s.table)))
        and not s.table[s.rows].any()
    )
    assert not any(r.blocks for r in s.waiting)
    for one, two in itertools.combinations([r.blocks for r in s.running], 2):
        both = len(set(one) & set(two))
        assert one[:both] == two[:both], "two requests share what is not their common beginning"
    for r in s.running:
        assert s.table[r.row].tolist() == r.blocks + [0] * (s.table.shape[1] - len(r.blocks)), (
            "the table is stale"
        )
        assert r.done < len(r.tokens) <= r.limit and r.done <= len(r.blocks) * s.block_size
        for i, entry in enumerate(r.chain):
            assert entry.block == r.blocks[i] and known[entry.block] is entry
            assert entry.tokens == r.tokens[i * s.block_size : (i + 1) * s.block_size]
        for b in r.blocks[-(-(r.done + 1) // s.block_size) :]:
            assert held[b] == 1 and b not in known, "a block still to be written is shared"

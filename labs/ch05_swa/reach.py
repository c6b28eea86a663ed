"""CH05-REACH: how far back a token hears through layers that see little.

A sliding layer's query sees `window` tokens. Each of them has itself heard of earlier ones in the
layer below, so L layers hand on L (W - 1) + 1. Watched on a small model whose keys live in rings,
by what each query of each layer really looked at: positions don't depend on what the weights are.
Its trace drives the chapter's player.
"""

from labkit import ModelConfig, formulas
from labkit.lab import Lab, Recorded
from labkit.tables import where

TEXT = (
    "the ring has eight slots so the ninth word takes the first place and what it held is gone but"
    " layers pass it on"
)
WORDS = TEXT.split()
WINDOW = 6
CHUNKS = [3] * 4 + [1] * 12  # a prompt of twelve, then one by one
PATTERNS = {
    "3 sliding": ("sliding",) * 3,
    "2 sliding, 1 full": ("sliding", "sliding", "full"),
}
SHELL = ModelConfig(
    vocab_size=len(WORDS),
    d_model=32,
    n_layers=3,
    n_heads=2,
    n_kv_heads=1,
    head_dim=16,
    d_ff=64,
    max_context=len(WORDS),
    window=WINDOW,
)


def watched(types: tuple[str, ...], device: str):
    """The text, read by a model of these layers."""
    import torch

    from labkit import GPT
    from labkit.traces.window import record_window

    torch.manual_seed(0)
    model = GPT(SHELL.replace(layer_types=types)).to(device).eval()
    # a word that comes again is the same token again
    ids = [WORDS.index(word) for word in WORDS]
    return record_window(model, ids, CHUNKS, decode=lambda ids: WORDS[ids[0]])


def run(device):
    """A row for each pattern and number of layers, at the last token; and the trace of sliding
    layers alone.
    """
    traces = {name: watched(types, device) for name, types in PATTERNS.items()}
    rows = []
    for name, trace in traces.items():
        types = PATTERNS[name]
        for layers, first in enumerate(trace.steps[-1].reach, 1):
            sliding = set(types[:layers]) == {"sliding"}
            rows.append(
                {
                    "pattern": name,
                    "layers": layers,
                    "context": len(WORDS),
                    "heard": len(WORDS) - first,
                    "formula": formulas.receptive_field(layers, WINDOW) if sliding else len(WORDS),
                    "ring_slots": trace.meta["slots"],
                    "overwritten": sum(len(step.lost) for step in trace.steps),
                }
            )
    return Recorded(rows, window_ring=traces["3 sliding"])


def go(rows):
    for r in rows:
        if r["heard"] != r["formula"]:
            return (
                f"through {r['layers']} layers of {r['pattern']} the last token hears of"
                f" {r['heard']} tokens, not of {r['formula']}: look at the mask, a window counts"
                " the token itself"
            )
        if r["overwritten"] != r["context"] - r["ring_slots"]:
            return (
                f"{r['overwritten']} tokens were overwritten, where"
                f" {r['context'] - r['ring_slots']} do not fit: look at the slot, it is position"
                " modulo capacity"
            )


def notice(rows):
    alone = where(rows, pattern="3 sliding")
    heard = [r["heard"] for r in alone]
    full = where(rows, pattern="2 sliding, 1 full")[-1]
    return (
        f"One layer sees {heard[0]} tokens, two hand on {heard[1]}, three {heard[2]} of"
        f" {alone[-1]['context']}: {heard[1] - heard[0]} more with every layer, though the ring of"
        f" {alone[0]['ring_slots']} slots has overwritten {alone[0]['overwritten']} of them. One"
        f" full layer in three hears of all {full['heard']}."
    )


LAB = Lab(
    title="How far back layers hear",
    objective="Watch a ring at work, and count how far back each number of layers hears.",
    asks="Is what a token hears of what the formula says, layer by layer?",
    notice=notice,
    columns={
        "pattern": "layers are",
        "layers": "through",
        "heard": "tokens heard of",
        "formula": "by the formula",
        "ring_slots": "slots of the ring",
        "overwritten": "overwritten",
        "context": "of",
    },
    run=run,
    go=go,
    minutes=0.1,
    cpu_only=True,
)

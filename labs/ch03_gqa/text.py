"""CH03-TEXT: what fewer key/value heads cost when a model is trained with them from the start.

Small models that read Jane Austen character by character, with 8, 2 and 1 key/value heads for 8
query heads. What the projections save the feed-forward layer gets, so all have the same number of
weights. Each is trained from several seeds: what two seeds of one design differ by is the measure
for what two designs differ by.
"""

import statistics

from labkit import formulas, plotting
from labkit.lab import Lab
from labkit.tables import only, progress, series

HEADS = {"MHA": 8, "GQA": 2, "MQA": 1}


def designs() -> dict:
    """Each variant's config, with as many parameters as the MHA."""
    from labkit_labs.common import character, recall

    whole = character.CONFIG.replace(n_heads=8, n_kv_heads=8, head_dim=16)
    parameters = formulas.parameters(whole)
    return {
        name: recall.matched(whole.replace(n_kv_heads=G), parameters) for name, G in HEADS.items()
    }


def trained(config, text: str, steps: int, seed: int):
    """A model after so many steps from one seed: the same recipe as the page's character model, in
    memory.
    """
    import torch

    from labkit import GPT
    from labkit_labs.common import character

    torch.manual_seed(seed)
    model = GPT(config)
    data = torch.Generator().manual_seed(1000 + seed)
    ids = torch.tensor(character.encode(text))
    both = character.optimisers(model)
    for done in range(steps):
        share = min((done + 1) / 100, 1, (1 - done / steps) / character.COOLING)
        for optimiser in both:
            for group in optimiser.param_groups:
                group["lr"] = character.RATE * share
        loss = character.bits(model, *character.batch(ids, data))
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in both:
            optimiser.step()
    return model.eval()


def run(device, *, steps, seeds, characters):
    """A row for each variant. steps: of training, from each seed. characters: of held-out text."""
    from labkit_labs.common import character, novels

    text, held_out = novels.split()
    ids = character.encode(held_out[:characters])
    configs = designs()
    found = {name: [] for name in configs}
    for name, seed in progress([(n, s) for s in range(seeds) for n in configs], "trainings"):
        model = trained(configs[name], text, steps, seed)
        found[name].append(character.held_out_bits(model, ids))
    return [
        {
            "variant": name,
            "kv_heads": config.n_kv_heads,
            "heads": config.n_heads,
            "d_ff": config.d_ff,
            "parameters": formulas.parameters(config),
            "bytes_a_character": formulas.kv_cache_bytes(config, 1, 1, "fp32"),
            "steps": steps,
            "seeds": seeds,
            "bits": statistics.median(found[name]),
            "least": min(found[name]),
            "most": max(found[name]),
        }
        for name, config in configs.items()
    ]


def go(rows):
    most = max(r["parameters"] for r in rows)
    for r in rows:
        if r["parameters"] < 0.99 * most:
            return (
                f"{r['variant']} has {r['parameters']:,} parameters and another {most:,}: match"
                " them, or quality is bought with weights"
            )
        if not r["bits"] < 3:
            return (
                f"{r['variant']} needs {r['bits']:.2f} bits a character, which is no reading yet:"
                " train it longer"
            )


def plot(rows):
    bits = series(rows, "variant", "bits")
    return plotting.bars(
        {f"G = {r['kv_heads']}": r["bits"] for r in rows},
        x_label="bits a character, held-out text",
        form="{:.3f}",
        alt="Bits a character on held-out text: "
        + "; ".join(f"{name} {b[0]:.3f}" for name, b in bits.items()),
    )


def notice(rows):
    mha, gqa, mqa = (only(rows, variant=name) for name in HEADS)
    apart = max(r["most"] - r["least"] for r in rows)
    return (
        f"GQA needs {gqa['bits'] - mha['bits']:+.3f} bits a character against MHA, MQA"
        f" {mqa['bits'] - mha['bits']:+.3f}. The seeds of one design lie up to {apart:.3f} apart:"
        " a difference smaller than that says nothing. These are tiny models on easy text; what a"
        " large one loses is in the papers."
    )


LAB = Lab(
    title="Fewer heads, trained that way",
    objective=(
        "Train small character models with 8, 2 and 1 key/value heads and the same number of"
        " weights, from several seeds, and compare what they know of text that they have not seen."
    ),
    asks="Have all the same number of weights, and have all learned to read?",
    notice=notice,
    columns={
        "variant": "variant",
        "kv_heads": "key/value heads",
        "bits": "bits a character|.3f",
        "least": "least|.3f",
        "most": "most|.3f",
        "seeds": "seeds",
        "steps": "steps",
        "parameters": "parameters",
        "d_ff": "feed-forward size",
        "bytes_a_character": "cache bytes a character",
    },
    run=run,
    sizes={
        "full": {"steps": 300, "seeds": 3, "characters": 20_000},
        "quick": {"steps": 2, "seeds": 1, "characters": 600},
    },
    threads=1,
    cpu_only=True,
    go=go,
    plot=plot,
    minutes=8,
)

"""CH08-MATCHED: every variant at one real layer shape, on one machine, in one run.

Two layers of Qwen3-0.6B's size (1,024 wide, 16 heads of 128) around every inside, with as many
parameters at work: bytes of cache and seconds of a decode step by context, the lines of code that
are a variant's own, and what the engine does not do for it, which the engine itself is asked. The
MHA is timed twice, as two models: what lies between those is noise.
"""

from labkit import ModelConfig, bench, formulas, plotting
from labkit.lab import Lab
from labkit.tables import listed, only, progress, where

AGAIN = "MHA again"
APART = 0.01  # how far apart the parameters at work may be
PATTERN = [3, 1, 4, 1, 5, 9, 2, 6]  # a prompt that repeats it gives drafts something to find


def variants(narrower: int = 1) -> dict[str, ModelConfig]:
    """Every variant by name, in a shell that is so many times narrower than the real one."""
    from labkit_labs.common import recall

    size = 128 // narrower
    shell = ModelConfig(
        vocab_size=1024,
        d_model=1024 // narrower,
        n_layers=2,
        n_heads=16,
        n_kv_heads=16,
        head_dim=size,
        d_ff=3072 // narrower,
        max_context=32768,
    )
    latent = {
        "kv_lora_rank": 4 * size,
        "qk_nope_head_dim": size,
        "qk_rope_head_dim": size // 2,
        "v_head_dim": size,
    }
    delta = {
        "delta_n_key_heads": 16,
        "delta_n_value_heads": 16,
        "delta_key_dim": size,
        "delta_value_dim": size,
    }
    window = {"window": 1024 // narrower}
    insides = {
        "MHA": {},
        AGAIN: {},
        "GQA": {"n_kv_heads": 8},
        "MQA": {"n_kv_heads": 1},
        "MLA": {"layer_types": ("mla", "mla"), **latent},
        "SWA": {"layer_types": ("sliding", "sliding"), **window},
        "SWA hybrid": {"layer_types": ("sliding", "full"), **window},
        "DeltaNet": {"layer_types": ("delta", "delta"), **delta},
        "DeltaNet hybrid": {"layer_types": ("delta", "full"), **delta},
    }
    whole = formulas.parameters(shell)
    found = {
        name: recall.matched(shell.replace(**inside), whole) for name, inside in insides.items()
    }
    # two experts of eight work on a token, together as large as the FFN
    moe = {"n_experts": 8, "n_active_experts": 2, "d_expert": shell.d_ff // 2}
    return found | {"MoE": shell.replace(**moe)}


# -- what the engine does for it -------------------------------------------------------------------


class Always:
    """Drafts whenever some may be made, right or wrong."""

    def propose(self, asked, caches=()):
        return [[0] * room for _, room in asked]


def goes_back(model) -> bool:
    """May tokens be fed again from an earlier position, as after drafts that were refused?"""
    import torch

    import labkit

    caches = model.caches("static", 1, 16)
    with torch.inference_mode():
        model(labkit.Step.of([(0, 0, PATTERN)], model.device), caches)
        try:
            model(labkit.Step.of([(0, 4, PATTERN)], model.device), caches)
        except ValueError:
            return False
    return True


def served(name: str) -> dict:
    """What an engine does for a tiny model of this variant: {a service: does it?}. It is asked, by
    requests that need the service.
    """
    import torch

    import labkit
    from labkit_labs.common import recall

    torch.manual_seed(0)
    config = recall.variants()["MHA" if name == AGAIN else name]
    model = labkit.GPT(config).eval()
    shape = {"max_batch": 1, "n_blocks": 64, "block_size": 8}

    prefix = labkit.Engine(model, **shape)
    for _ in range(2):  # the second one begins as the first did
        prefix.add(PATTERN * 5, 2)
        prefix.run()

    drafts = labkit.Engine(model, **shape, speculative=Always(), drafts=2)
    drafts.add(PATTERN * 5, 6)
    drafts.run()
    checked = sum(len(step.checks) for step in drafts.trace("speculation").steps)

    def held(**given) -> int:
        return sum(c.allocated_bytes for c in labkit.Engine(model, **shape, **given).caches)

    return {
        "prefix reuse": prefix.stats.prefix_hit_tokens > 0,
        "checked drafts": checked > 0,
        "an 8-bit cache": held(cache_dtype="int8") < held(),
        "going back": goes_back(model),
        # reserved for as many tokens as the blocks hold, against what has to be kept of them
        "freeing what no layer sees": held()
        < 1.5 * formulas.kv_cache_bytes(config, 64 * 8, 1, "fp32"),
    }


# -- what a decode step costs ----------------------------------------------------------------------


def noisy(model, context: int) -> list:
    """Caches for one text of `context` tokens, the last of which is still to come. What they hold
    is noise: reading it costs the same.
    """
    caches = model.caches("ring", 1, context)
    for cache in caches:
        for buffer in cache.buffers:
            buffer.normal_()
    return caches


def decoder(model, context: int, caches: list):
    """A function that decodes token number `context`, again and again."""
    import torch

    import labkit

    @torch.inference_mode()
    def fn():
        for cache in caches:
            if hasattr(cache, "length"):
                # the same token again: a state would otherwise have moved on
                cache.length = [context - 1]
        model(labkit.Step.of([(0, context - 1, [0])], model.device), caches)

    return fn


def run(device, *, contexts, repeats, narrower=1):
    """A row for each context and variant.

    repeats: how often a step is timed. narrower: how many times narrower than the real layer.
    """
    import torch

    import labkit
    from labkit_labs.ch08_choosing.shell import differing

    configs = variants(narrower)
    torch.manual_seed(0)
    models = {name: labkit.GPT(c).to(device).eval() for name, c in configs.items()}
    plain = models["MHA"].blocks[0]
    own = {}
    for name, model in models.items():
        does = served(name)
        own[name] = {
            "parameters": formulas.parameters(configs[name]),
            "active_parameters": formulas.active_parameters(configs[name]),
            "own_lines": sum(
                differing(type(getattr(plain, part)), type(getattr(model.blocks[0], part)))
                for part in ("mixer", "ffn")
            ),
            "does_not": [service for service, done in does.items() if not done],
        }
    rows = []
    for context in progress(contexts, "contexts"):
        caches = {name: noisy(model, context) for name, model in models.items()}
        held = {name: sum(c.allocated_bytes for c in each) for name, each in caches.items()}
        times = bench.interleave(
            {name: decoder(m, context, caches[name]) for name, m in models.items()},
            warmup=2,
            repeats=repeats,
            device=device,
            bytes=held,
        )
        for name, m in times.items():
            rows.append(
                m.to_row(
                    variant=name,
                    context=context,
                    cache_bytes=held[name],
                    formula_bytes=formulas.kv_cache_bytes(configs[name], context, 1, "fp32"),
                    multiple=bench.multiple(times["MHA"], m),
                    **own[name],
                )
            )
    return rows


def go(rows):
    whole = only(rows, variant="MHA", context=rows[0]["context"])
    for r in rows:
        if abs(r["active_parameters"] / whole["active_parameters"] - 1) > APART:
            return (
                f"{r['variant']} works with {r['active_parameters']:,} parameters, MHA with"
                f" {whole['active_parameters']:,}: match them before you compare what a step takes"
            )
        if r["cache_bytes"] != r["formula_bytes"]:
            return (
                f"{r['variant']} holds {r['cache_bytes']:,} bytes at {r['context']:,} tokens, by"
                f" the formula {r['formula_bytes']:,}: look at what its cache keeps"
            )
    if whole["does_not"]:
        return f"the engine gives plain attention no {listed(whole['does_not'])}: mend the engine"


def pays(rows):
    longest = max(r["context"] for r in rows)
    again = only(rows, variant=AGAIN, context=longest)
    if not 0.8 < again["multiple"] < 1.25:
        return (
            f"the same design, timed twice, differs by a factor of {again['multiple']:.2f}: the"
            " machine is busy, so measure again"
        )
    for name in ("MQA", "SWA", "DeltaNet"):
        r = only(rows, variant=name, context=longest)
        if r["multiple"] < 1.25:
            return (
                f"at {longest:,} tokens {name} decodes {r['multiple']:.2f} times as fast as MHA,"
                " though it reads a fraction of its cache: look at what is read"
            )


def plot(rows, names=("MHA", "GQA", "MLA", "SWA hybrid", "DeltaNet")):
    """Milliseconds of a decode step by context."""
    contexts = sorted({r["context"] for r in rows})
    shown = {name: [1e3 * r["median"] for r in where(rows, variant=name)] for name in names}
    return plotting.lines(
        contexts,
        shown,
        x_label="tokens of context",
        y_label="milliseconds",
        log_x=True,
        alt=f"Milliseconds of a decode step at {contexts} tokens: "
        + "; ".join(f"{n} {', '.join(f'{y:.1f}' for y in ys)}" for n, ys in shown.items()),
    )


def notice(rows):
    longest = max(r["context"] for r in rows)
    shortest = min(r["context"] for r in rows)

    def at(name: str, context: int) -> dict:
        return only(rows, variant=name, context=context)

    whole = at("MHA", longest)
    said = listed(
        f"{name} {at(name, longest)['multiple']:.1f} times as fast in"
        f" {whole['cache_bytes'] / at(name, longest)['cache_bytes']:.1f} times fewer bytes"
        for name in ("GQA", "MQA", "MLA", "SWA", "SWA hybrid", "DeltaNet", "DeltaNet hybrid")
    )
    state = at("DeltaNet", longest)
    return (
        f"At {longest:,} tokens, against MHA: {said}. The MHA's twin is"
        f" {at(AGAIN, longest)['multiple']:.2f} times as fast, which is noise. At {shortest:,}"
        f" tokens GQA is {at('GQA', shortest)['multiple']:.2f} times as fast, and MoE"
        f" {at('MoE', shortest)['multiple']:.2f}. DeltaNet is {state['own_lines']} lines of its"
        f" own, MLA {at('MLA', longest)['own_lines']}; and the engine does without"
        f" {listed(state['does_not'])} for DeltaNet."
    )


LAB = Lab(
    title="All variants at one layer's shape",
    objective=(
        "Put every variant into layers of a real model's size and compare what a decode step"
        " takes, what is kept, whose code is longer and what the engine does without."
    ),
    asks="Is every cache as large as its formula says, and is one design timed twice one time?",
    notice=notice,
    columns={
        "variant": "variant",
        "context": "context",
        "cache_bytes": "cache bytes",
        "median": "seconds|.5f",
        "iqr": "quartiles apart|.5f",
        "multiple": "times as fast as MHA|.2f",
        "own_lines": "own lines",
        "does_not": "the engine does without",
        "active_parameters": "parameters at work",
        "parameters": "parameters",
    },
    run=run,
    sizes={
        "full": {"contexts": [1024, 2048, 4096, 8192, 16384], "repeats": 21},
        "quick": {"contexts": [64, 1024], "repeats": 3, "narrower": 4},
    },
    threads=1,
    go=go,
    pays=pays,
    plot=plot,
    minutes=2,
)

"""The pictures of the chapter's widgets: the map of trade-offs, the guide's advice, a setting's
price.
"""

from __future__ import annotations

from labkit import formulas, presets, results
from labkit.tables import listed, only, where
from labkit_labs.ch08_choosing import guide
from labkit_labs.ch08_choosing.matched import AGAIN
from labkit_labs.ch08_choosing.situation import DESIGNS, Case, Situation
from labkit_labs.common import gpus, recall

FINDS, LOSES, TWIN = "finds 32 pairs", "loses some", "the MHA's twin"


# -- the map -----------------------------------------------------------------------------


def places(context: int) -> dict:
    """Every variant of CH08-MATCHED by bytes and seconds, in groups by what CH08-QUALITY says it
    recalls; a line through those that no other beats on all three.
    """
    rows = where(results.load("ch08/matched")["rows"], context=context)
    found = {FINDS: {}, LOSES: {}, TWIN: {}}
    for r in rows:
        name = r["variant"]
        found[group(name)][name] = (r["cache_bytes"], r["median"])
    best = frontier(rows)
    whole, again = (only(rows, variant=name) for name in ("MHA", AGAIN))
    apart = abs(again["multiple"] - 1)
    near = lambda m: min(abs(m - 1), abs(m / again["multiple"] - 1)) <= max(apart, 0.03)
    told = [r["variant"] for r in rows if near(r["multiple"])]
    like = [name for name in told if name not in ("MHA", AGAIN)]
    say = f"Beaten by none on all three: **{listed(best)}**. The twin is {apart:.1%} from MHA"
    say += f" ({1e3 * whole['median']:.1f} ms)"
    if like:
        say += f"; as near to one of the two, so not told apart: {listed(like)}"
    return {"series": found, "say": say + ".", "frontier": best}


def group(name: str) -> str:
    """What a variant recalls, in words."""
    if name == AGAIN:
        return TWIN
    row = only(results.load("ch08/quality")["rows"], variant=name)
    return FINDS if row["recall_min"] > recall.LEARNED else LOSES


def frontier(rows: list[dict]) -> list[str]:
    """The variants that no other is at least equal to on bytes, seconds and recall, by rising
    bytes.
    """
    worth = {
        r["variant"]: (r["cache_bytes"], r["median"], group(r["variant"]) == LOSES)
        for r in rows
        if r["variant"] != AGAIN
    }

    def beaten(name: str) -> bool:
        return any(
            all(theirs <= ours for theirs, ours in zip(them, worth[name]))
            for other, them in worth.items()
            if other != name
        )

    return sorted((name for name in worth if not beaten(name)), key=lambda name: worth[name])


# -- the guide ---------------------------------------------------------------------------

UNMEASURED = "not measured"


def advised(limit: str, context: int, users: int, text: str, training: str) -> dict:
    """The designs on paper, and the one that the guide advises."""
    limit = "" if limit == UNMEASURED else limit
    s = Situation(limit, context=context, users=users, text=text, training=training)
    case = Case(s)
    advice = guide.advise(case)

    def place(n: dict | None):
        return (n["largest_batch"], round(n["reaches"], 1)) if n and n["largest_batch"] else None

    series = {"as it is": place(case.now)}
    series |= {name: place(case.after.get(name)) for name in DESIGNS}
    mark = advice.change if series.get(advice.change) else None
    return {"series": series, "say": advice.sentence, "mark": mark}


# -- a setting ---------------------------------------------------------------------------

BASE = presets["llama3-8b"].replace(max_context=131072)
ALL = BASE.n_layers
MLA = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
EXPERTS = {"n_experts": 8, "d_expert": BASE.d_ff // 2, "d_ff": 0}
SETTINGS = {
    "32 KV heads": {"n_kv_heads": 32},
    "8 KV heads": {},
    "5 KV heads": {"n_kv_heads": 5},
    "4 KV heads": {"n_kv_heads": 4},
    "a window of 4,096": {"layer_types": ("sliding",) * ALL, "window": 4096},
    "a window of 0": {"layer_types": ("sliding",) * ALL, "window": 0},
    "a latent of 512": {"layer_types": ("mla",) * ALL, "kv_lora_rank": 512, **MLA},
    "a latent of 0": {"layer_types": ("mla",) * ALL, "kv_lora_rank": 0, **MLA},
    "2 of 8 experts": {"n_active_experts": 2, **EXPERTS},
    "9 of 8 experts": {"n_active_experts": 9, **EXPERTS},
}
CONTEXTS = (2048, 8192, 32768)


def priced(setting: str, users: int) -> dict:
    """Weights and caches of Llama-3-8B with one thing changed; of a setting that makes no sense,
    why, and the picture of the one before it.
    """

    def drawn(name: str) -> dict:
        config = BASE.replace(**SETTINGS[name])
        weights = formulas.weight_bytes(config)
        caches = [formulas.kv_cache_bytes(config, t, users) for t in CONTEXTS]
        fit = [gpus.named("H100").largest_batch(config, t) for t in CONTEXTS]
        return {
            "series": {"weights": [weights] * len(CONTEXTS), "caches": caches},
            "say": f"{weights / 1e9:,.1f} GB of weights. On an H100 **{fit[0]:,}, {fit[1]:,} or"
            f" {fit[2]:,} users** fit, by length.",
        }

    names = list(SETTINGS)
    return guide.kept(drawn, names[: names.index(setting) + 1])

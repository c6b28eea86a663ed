"""The logging template: what to write down of a measurement, with what our own log says.

Its fields are those that a stored result keeps (`labkit.results`), and the lab CH01-PROTOCOL filled
them in.
"""

from labkit import lab, results
from labkit.tables import only

LOG = "CH01-PROTOCOL"


def rows() -> list[dict]:
    """A row for each field: its name, what belongs there, and ours."""
    protocol = lab.find(LOG)
    document = results.load(protocol.result)
    env, measured = document["env"], document["rows"]
    new = protocol.sizes["full"]["new"]
    decode = only(measured, what="decode", protocol="warm, median of all")
    prefill = only(measured, what="prefill", protocol="warm, median of all")
    cold = only(measured, what="prefill", protocol="one cold run")
    ceiling = only(measured, what="ceiling, fp32")
    versions = ", ".join(f"{name} {env[name]}" for name in ("python", "torch") if name in env)
    ours = {
        "question": ("what should be faster, and why", "do medians mean something here?"),
        "date": ("", document["date"]),
        "commit": ("of the code that was timed", document["commit"]),
        "command": ("that anybody can run again", document["command"]),
        "machine": ("processor or GPU, cores", f"{env['cpu']}, {env['cores']} cores"),
        "threads": ("", env.get("threads", 1)),
        "load": (
            "what else ran, before the start",
            f"{env['load']:.2f}" if "load" in env else "not logged",
        ),
        "versions": ("", versions),
        "model": ("name and how it lies in memory", "SmolLM2-135M, packed"),
        "dtype": ("of weights and cache", "fp32, fp32"),
        "prompt_tokens": ("fixed", prefill["context"]),
        "new_tokens": ("fixed, no early stop", f"{new}, no early stop"),
        "batch": ("", 1),
        "warm_up": ("runs thrown away, and what the first took", f"1, {cold['median']:.3f} s"),
        "repeats": ("and in which order", f"{prefill['n']}, one after the other: one version"),
        "ttft": ("median and quartiles", spread(prefill)),
        "tpot": ("median and quartiles", spread(decode)),
        "ceilings": (
            "FLOP/s and bytes/s, of the same run",
            f"{ceiling['flops_per_second']:.3g}, {ceiling['bytes_per_second']:.3g}",
        ),
        "mfu_mbu": ("of decode", f"{decode['mfu']:.0%}, {decode['mbu']:.0%}"),
        "quality": ("that the output is still right", "nothing changed: one version"),
        "verdict": ("go, or stop and why", protocol.verdict(measured)),
    }
    return [
        {"field": field, "what belongs there": what or "–", "ours": str(value)}
        for field, (what, value) in ours.items()
    ]


def spread(row) -> str:
    return f"{row['median']:.4f} s, quartiles {row['iqr']:.4f} apart"


def text() -> str:
    """The template, empty, to be copied."""
    return "\n".join(f"{row['field'] + ':':15}" for row in rows())

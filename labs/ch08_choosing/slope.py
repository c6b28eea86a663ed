"""What one more token of context costs each variant, out of CH08-MATCHED's rows.

The difference between a long and a short context, for each token between them: weights, launches
and all else that does not grow drop out.
"""

from labkit import formulas
from labkit.tables import only
from labkit_labs.ch08_choosing.matched import variants


def slope(rows: list[dict], names=("MHA", "MHA again", "GQA", "MQA", "MLA", "SWA hybrid")) -> list:
    """A row for each variant: bytes, FLOPs and seconds that a further token of context adds to a
    step, and the speed of both.
    """
    contexts = [r["context"] for r in rows]
    short, long = min(contexts), max(contexts)
    configs = variants()
    found = []
    for name in names:
        first, last = (only(rows, variant=name, context=c) for c in (short, long))
        flops = [formulas.decode_flops(configs[name], c) for c in (short, long)]
        a_token = lambda a, b: (b - a) / (long - short)
        seconds = a_token(first["median"], last["median"])
        read = a_token(first["cache_bytes"], last["cache_bytes"])
        done = a_token(*flops)
        found.append(
            {
                "variant": name,
                "bytes": read,
                "flops": done,
                "seconds": seconds,
                "bytes_per_second": read / seconds,
                "flops_per_second": done / seconds,
            }
        )
    return found

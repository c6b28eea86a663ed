"""What vendors charge for tokens, from `data/prices.json`: lists as published, with their dates."""

from __future__ import annotations

import json

from labkit import paths


def published() -> dict[str, dict]:
    """model -> dollars per million tokens: input, cached_read, cache_write, output; and vendor,
    date.
    """
    return json.loads((paths.data() / "prices.json").read_text())["prices"]


def input_share(computed: int, found: int, price: dict) -> float:
    """An input's bill with a prompt cache, as a share of the bill without.

    What had to be computed is kept, at the price of a write.
    """
    return (computed * price["cache_write"] + found * price["cached_read"]) / (
        (computed + found) * price["input"]
    )

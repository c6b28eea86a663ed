"""Checks of chapter 08: Choosing.

Each returns what was right, or raises Wrong with what to look at.
"""

from labkit.checks import expect


def token_bytes(answer):
    """08.1: the cache of one token."""
    expect(isinstance(answer, int), f"give a whole number, not {type(answer).__name__}.")
    expect(answer != 65536, "this is the keys alone: values are kept too.")
    expect(answer == 131072, f"not {answer}: multiply layers, heads, sizes, bytes, and by two.")
    return "a key and a value, 32 layers, 8 heads of 128 numbers, 2 bytes each."


CHECKS = {"08.1": token_bytes}

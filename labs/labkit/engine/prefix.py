"""Which blocks hold which text: prefixes of earlier requests, found again block by block."""
from __future__ import annotations


class Entry:
    """A full block's text: its tokens, and the entry of the block before it (None at the start of a text)."""

    __slots__ = ("block", "key", "parent", "tokens")

    def __init__(self, key, parent: Entry | None, tokens: list[int], block: int):
        self.key, self.parent, self.tokens, self.block = key, parent, tokens, block


class PrefixIndex:
    """Full blocks by *chained* hash: a block's key hashes its tokens and the key before it, so equal keys mean equal texts so far.

    Almost: hashes can collide, and a wrong hit would serve one user's text to another. So a key only finds a candidate; it counts
    if its tokens are the same and its parent is the very entry that was matched before it.
    """

    def __init__(self, block_size: int, hash=hash):
        self.block_size, self.hash = block_size, hash
        self.entries: dict[object, Entry] = {}
        self.by_block: dict[int, Entry] = {}

    def find(self, parent: Entry | None, tokens: list[int]) -> Entry | None:
        """The entry of a block with these tokens after `parent`, if it is known."""
        entry = self.entries.get(self._key(parent, tokens))
        return entry if entry and entry.parent is parent and entry.tokens == tokens else None

    def match(self, tokens: list[int]) -> list[Entry]:
        """Entries of the longest run of full blocks that `tokens` starts with."""
        found, parent = [], None
        for i in range(0, len(tokens) - self.block_size + 1, self.block_size):
            parent = self.find(parent, tokens[i : i + self.block_size])
            if parent is None:
                break
            found.append(parent)
        return found

    def insert(self, parent: Entry | None, tokens: list[int], block: int) -> Entry | None:
        """Make a block findable. None if its key is taken, by a collision."""
        key = self._key(parent, tokens)
        if key in self.entries:
            return None
        entry = self.entries[key] = self.by_block[block] = Entry(key, parent, tokens, block)
        return entry

    def forget(self, block: int) -> None:
        entry = self.by_block.pop(block, None)
        if entry:
            del self.entries[entry.key]

    def _key(self, parent: Entry | None, tokens: list[int]):
        return self.hash((parent.key if parent else None, *tokens))

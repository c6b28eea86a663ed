"""Which block holds which text: the beginnings of earlier requests, found again block by block."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Entry:
    """A full block's text: its tokens, after those of the entry before it (None at the start of a
    text).
    """

    key: object
    parent: Entry | None
    tokens: list[int]
    block: int


class PrefixIndex:
    """Full blocks by *chained* hash: a key hashes a block's tokens and the key before it, so equal
    keys mean equal texts so far.

    Almost: hashes collide, and a wrong hit would serve one user's text to another. So a key only
    finds a candidate. It counts if its tokens are the same and its parent is the very entry that
    was matched before it.
    """

    def __init__(self, block_size: int, hash=hash):
        self.block_size, self.hash = block_size, hash
        self.entries: dict[object, Entry] = {}
        self.by_block: dict[int, Entry] = {}

    def find(self, parent: Entry | None, tokens: list[int]) -> Entry | None:
        """The entry of these tokens after `parent`, if it is known."""
        entry = self.entries.get(self._key(parent, tokens))
        return entry if entry and entry.parent is parent and entry.tokens == tokens else None

    def match(self, tokens: list[int]) -> list[Entry]:
        """The longest known run of full blocks that `tokens` begin with."""
        found, size = [], self.block_size
        for i in range(0, len(tokens) - size + 1, size):
            entry = self.find(found[-1] if found else None, tokens[i : i + size])
            if not entry:
                break
            found.append(entry)
        return found

    def insert(self, parent: Entry | None, tokens: list[int], block: int) -> Entry | None:
        """Make a block findable. None if another text has its key."""
        key = self._key(parent, tokens)
        if key in self.entries:
            return None
        entry = self.entries[key] = self.by_block[block] = Entry(key, parent, tokens, block)
        return entry

    def forget(self, block: int) -> None:
        del self.entries[self.by_block.pop(block).key]

    def _key(self, parent: Entry | None, tokens: list[int]):
        return self.hash((parent.key if parent else None, *tokens))

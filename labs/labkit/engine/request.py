"""What a client asks for, and what it hears back."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.sampling import Sampling


class QueueFull(Exception):
    """The engine has `max_waiting` requests waiting already: try again later."""


@dataclass(frozen=True)
class Event:
    """What one step did for one request."""

    id: int
    tokens: list[int]  # new in this step
    finished: str | None = None  # "length" | "stop" | "cancelled" | "error"
    message: str = ""


class Stats(dict):
    """An engine's numbers by name: `stats["running"]` is `stats.running`."""

    __getattr__ = dict.__getitem__


@dataclass(eq=False)
class Request:
    """A request and how far it has come. `tokens[:done]` have their keys and values in `blocks`."""

    id: int
    prompt: list[int]
    max_new_tokens: int
    sampling: Sampling | None = None
    stop: tuple[int, ...] = ()
    generator: object = None
    arrived: float = 0.0

    def __post_init__(self):
        self.tokens = list(self.prompt)  # the prompt, then what was generated
        self.limit = len(self.prompt) + self.max_new_tokens
        self.done = 0
        # while it runs: its row of the block table, its blocks, the index's entries of the first
        self.row = -1
        self.blocks = []
        self.chain = []
        self.first_token = None  # when it came, in seconds
        self.last_token = None
        self.finished = None  # why: see Event

    @property
    def new(self) -> list[int]:
        return self.tokens[len(self.prompt) :]

    @property
    def decoding(self) -> bool:
        """All but its last token is in the cache."""
        return len(self.tokens) - self.done == 1

    @property
    def draftable(self) -> int:
        """Drafts that a check could use: one token of its own follows them, and then the limit."""
        return self.limit - len(self.tokens) - 1

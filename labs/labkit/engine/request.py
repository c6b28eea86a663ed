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
        # its row of the block table, while it runs
        self.row = -1
        self.done = 0
        self.blocks = []
        self.chain = []  # the index's entries of its leading blocks
        self.drafts = 0  # how many it may have in the next step
        self.kept = self.tried = 0.0  # drafts accepted, and looked at, lately
        self.finished = self.first_token = self.last_token = None  # why; when

    @property
    def new(self) -> list[int]:
        return self.tokens[len(self.prompt) :]

    @property
    def decoding(self) -> bool:
        """All but its last token is in the cache."""
        return len(self.tokens) - self.done == 1

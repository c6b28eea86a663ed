"""A serving engine: requests come and go, one step at a time.

`engine` is the loop, `scheduler` decides, `blocks` and `prefix` remember, `drafts` says how many
guesses pay.
"""

from labkit.engine.engine import Engine
from labkit.engine.request import Event, QueueFull

__all__ = ["Engine", "Event", "QueueFull"]

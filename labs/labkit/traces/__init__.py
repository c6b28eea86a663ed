"""What really happened, step by step: recorded once, then played by a widget, drawn by a film,
printed as a table.

`trace` holds the record itself. Beside it each kind has one module: the dataclass of its steps, and
the recorder that makes them by watching the code that runs (it never re-tells what should have
happened). A new kind is a new file, and found by its name. Readers speak JSON.
"""

from labkit.traces.trace import SCHEMA, Trace, kinds, path_of, step_type, stored

__all__ = ["SCHEMA", "Trace", "kinds", "path_of", "step_type", "stored"]

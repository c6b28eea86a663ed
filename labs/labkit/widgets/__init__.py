"""Things to move, predict and step through.

One class each, alive in three places: Jupyter, Colab, and a page without Python.

`explore` turns the knobs of a labkit function, drawn as lines, bars, named points, a matrix or a
histogram · `play` steps through a recorded Trace · `bet` asks before it tells · `write` lets a
small model write on, in the page itself · `panel` runs the real model, in a notebook only. All but
the last are anywidgets, whose answers (but for what `write` writes) are computed when the page is
built; each also stands still (`.still`), for print and for readers without JavaScript. The picture
is drawn once, in Python: the live widget is a copy of
the still one, with controls, and the browser only puts in place what it is given.
"""

from labkit.widgets.bet import bet
from labkit.widgets.explore import explore
from labkit.widgets.panel import panel
from labkit.widgets.play import play
from labkit.widgets.write import write

__all__ = ["bet", "explore", "panel", "play", "write"]

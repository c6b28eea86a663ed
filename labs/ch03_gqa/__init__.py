"""Chapter 03's labs, in the order in which to run them."""

LABS = ("savings", "heads", "pool", "text")

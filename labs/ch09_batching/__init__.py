"""Chapter 09's labs, in the order in which to run them."""

LABS = ("static", "invariance", "traffic")

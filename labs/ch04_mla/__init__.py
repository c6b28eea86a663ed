"""Chapter 04's labs, in the order in which to run them."""

LABS = ("absorbed", "crossover")

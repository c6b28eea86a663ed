"""Chapter 02's labs, in the order in which to run them."""

LABS = ("loops", "flash", "cached", "loses", "baseline", "character")

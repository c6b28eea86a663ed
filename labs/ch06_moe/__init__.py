"""Chapter 06's labs, in the order in which to run them."""

LABS = ("dense", "real", "union", "route", "balance")

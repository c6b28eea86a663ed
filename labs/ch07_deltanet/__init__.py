"""Chapter 07's labs, in the order in which to run them."""

LABS = ("state", "memory", "train")

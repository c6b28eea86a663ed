"""Chapter 00's labs, in the order in which to run them."""

LABS = ("neighbours", "attention", "sentence", "parallel", "sampled", "loop")

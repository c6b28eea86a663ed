"""Chapter 01's labs, in the order in which to run them."""

LABS = ("flops", "protocol", "roofline", "launch")

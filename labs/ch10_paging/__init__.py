"""Chapter 10's labs, in the order in which to run them."""

LABS = ("pages", "prefix", "preempt", "drills")

"""Chapter 14's labs, in the order in which to run them."""

LABS = ("ladder", "ends")

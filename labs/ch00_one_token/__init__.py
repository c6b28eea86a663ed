"""Chapter 00's labs, in the order in which to run them."""

LABS = ("attention", "sentence")

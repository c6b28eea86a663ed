"""Chapter 08's labs, in the order in which to run them."""

LABS = ("fair", "shell", "quality", "matched", "text", "order", "pretraining")

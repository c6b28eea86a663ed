"""Chapter 12's labs, in the order in which to run them."""

LABS = ("accept", "lookup", "batch", "drafts")

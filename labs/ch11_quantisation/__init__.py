"""Chapter 11's labs, in the order in which to run them."""

LABS = ("formats", "awq", "gptq", "outliers", "int8")

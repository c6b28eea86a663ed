"""Chapter 05's labs, in the order in which to run them."""

LABS = ("ring", "reach", "sinks", "windows", "ratios")

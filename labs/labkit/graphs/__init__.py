"""A decode step captured once and replayed.

ways    the step in three ways: torch's own operations, small kernels, fused kernels
cuda    each way as a CUDA graph
"""

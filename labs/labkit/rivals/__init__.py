"""What others make of the same weights, to be measured beside ours: `transformers` in this process,
`llama_cpp` in one of its own.
"""

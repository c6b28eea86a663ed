"""What a GPU is asked for by `make gpu`, a part at a time.

    parts       the parts by name, and whether this GPU has run them with this code
    clock       how long a replay takes, and the fastest read of this GPU's memory
    decode      a step eager and captured, three ways, against that read
    launches    kernels of a step, and what each costs the host
    power       GPU-Util and joules beside the bandwidth achieved
    prefill     a prompt against the fastest product of matrices
    rivals      transformers: static cache, compiled, and continuous batching
    checks      the CUDA tests

Each of the last six has a `measure(device, **sizes) -> rows`, which runs on a CPU too, on small
sizes and without what is a GPU's.
"""

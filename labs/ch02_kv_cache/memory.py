"""What a call costs in memory: measured in a fresh process, where no memory freed earlier could
hide a copy.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from labkit import bench


def growth(prepare, *args) -> int:
    """Bytes that a process grows by at most while it calls what `prepare(*args)` made.

    prepare: a function of a module; what it makes takes no arguments and is warm, so that only its
    own memory counts. What lies in a GPU's memory does not.
    """
    # where there is one, a server that has imported torch, and nothing else, is forked
    server = "forkserver" in multiprocessing.get_all_start_methods()
    fresh = multiprocessing.get_context("forkserver" if server else "spawn")
    if server:
        fresh.set_forkserver_preload(["torch"])
    # an executor says so where its process is killed; a Pool would wait for ever
    with ProcessPoolExecutor(1, mp_context=fresh) as one:
        return one.submit(_growth, prepare, args).result()


def _growth(prepare, args) -> int:
    fn = prepare(*args)
    before = bench.resident_bytes()
    with bench.PeakMemory() as peak:
        fn()
    return max(0, peak.bytes - before)

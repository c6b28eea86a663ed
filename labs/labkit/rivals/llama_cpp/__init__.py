"""llama.cpp, measured beside ours: the library and our worker (`library`), our weights in its
format (`files`), and the process that runs them (`process`).
"""

from labkit.rivals.llama_cpp.files import formats_of
from labkit.rivals.llama_cpp.library import build, version, worker
from labkit.rivals.llama_cpp.process import Llama, cache_of, weights

__all__ = ["Llama", "build", "cache_of", "formats_of", "version", "weights", "worker"]

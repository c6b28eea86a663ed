"""Shared by all tests: one thread, the real model loaded once, the built site served to one
browser.
"""

import functools
import http.server
import os
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# without a GPU, kernels in Triton run in its interpreter; it asks once, when it is first imported
if not any(Path(gpu).exists() for gpu in ("/dev/nvidia0", "/dev/dxg")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import yaml

from course.browser import FLAGS, executable

# where only the tests for CUDA run it may be missing
with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # the same examples on every machine, however slow it is; --hypothesis-seed=1 tries others
    settings.register_profile(
        "everywhere", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("everywhere")

ROOT = Path(__file__).parents[1]
# `make check CHAPTER=02` builds a site of its own
HTML = Path(os.environ.get("COURSE_HTML", ROOT / "_build/html"))
PHONE = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}


def pages() -> list[str]:
    """The pages of the site, as `_toc.yml` has them."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [
        toc["root"],
        *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"]),
    ]


def pytest_addoption(parser):
    parser.addoption("--chapter", help="run only the tests of this chapter: --chapter 02")


def chapter_of(nodeid: str) -> str | None:
    """The number of the chapter that a test is about: of its file, or of what it is run for
    (`CH02-LOOPS`, `02_kv_cache`, `02.1`, the page `book/chapters/02_kv_cache`).
    """
    path, _, test = nodeid.partition("::")
    if found := re.search(r"/test_ch(\d\d)_", path):
        return found[1]
    _, _, run_for = test.partition("[")
    if not re.match("tests/(every|site)/", path):
        return None
    page = re.search(r"book/chapters/(\d\d)b?_", run_for)
    found = page or re.match(r"(?:CH)?(\d\d)(?=b?[-._])", run_for)
    return found[1] if found else None


def pytest_collection_modifyitems(config, items):
    """CUDA tests are for machines that have it (`make gpu`): elsewhere they are not collected.

    The largest groups come first: small ones fill what several processes have left.
    """
    wanted = config.getoption("chapter")
    drop = [item for item in items if wanted and chapter_of(item.nodeid) != wanted]
    if any(item.get_closest_marker("cuda") for item in items):
        import torch

        if not torch.cuda.is_available():
            drop += [item for item in items if item.get_closest_marker("cuda")]
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = [item for item in items if item not in set(drop)]
    # one chapter's pages in a browser take longest; of all chapters, the chapters do
    folders = ["site", "chapters", "every"] if wanted else ["chapters", "every", "site"]
    ranks = {folder: rank for rank, folder in enumerate(folders)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(ranks)))


@pytest.hookimpl(optionalhook=True)  # called where tests run on several processes (`-n 2`)
def pytest_xdist_make_scheduler(config, log):
    """Tests of one chapter, and tests of one file, share what they made: they run in one process.

    Where one chapter alone is tested, its labs are spread.
    """
    if config.option.dist != "load":  # something else was asked for
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByChapter(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return chapter_of(nodeid) or nodeid.partition("::")[0]

    class ByLab(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            lab = re.search(r"\[(CH\d\d-\w+)", nodeid)
            # what is left shares its clips, or a browser
            return lab[1] if lab else str(nodeid.startswith("tests/site/"))

    config.option.loadscopereorder = False
    return (ByLab if config.getoption("chapter") else ByChapter)(config, log)


@pytest.fixture(autouse=True)
def threads():
    """A test that changes the process's number of threads changes it for itself only."""
    torch = sys.modules.get("torch")
    before = torch and torch.get_num_threads()
    yield
    if before and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def smollm2():
    import labkit

    return labkit.weights.smollm2()


@pytest.fixture(scope="session")
def html() -> Path:
    """The built site's folder."""
    if not (HTML / "index.html").exists():
        pytest.fail("the site is not built: run make book")
    return HTML


@pytest.fixture(scope="session")
def site(html):
    """The address of the built site, served on this machine."""
    quiet = type(
        "Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *args: None}
    )
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=str(html))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by Playwright; CHROMIUM names another.

    One for each module, as two would get in each other's way.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield running
        running.close()


# two frames on, what watches its own size has looked, however slow the machine
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Visit:
    """A page in its own context that notes what it asks for and what goes wrong; other hosts are
    refused.
    """

    def __init__(self, browser, home: str, **context):
        self.home = home
        self.outside = []
        self.errors = []
        self.responses = []
        self.context = browser.new_context(**{"viewport": {"width": 1300, "height": 900}} | context)
        self.context.route("**/*", self._guard)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("response", lambda r: self.responses.append(r))

    def _guard(self, route):
        if route.request.url.startswith((self.home, "data:", "blob:", "file:")):
            return route.continue_()
        self.outside.append(route.request.url)
        return route.abort()

    def open(self, name: str):
        """Go to a page of the site, and wait until it is drawn, widgets included."""
        self.page.goto(f"{self.home}{name}.html")
        self.page.evaluate("document.fonts.ready.then(() => window.MathJax?.startup?.promise)")
        self.page.evaluate(DRAWN)
        return self.page

    def open_without_script(self, name: str):
        self.page.goto(f"{self.home}{name}.html")
        return self.page

    def scroll_through(self):
        """Everything that waits until it is near is drawn."""
        self.page.evaluate(
            """async () => {
                for (let y = 0; y < document.body.scrollHeight; y += 700) {
                    scrollTo({ top: y, behavior: "instant" });
                    await new Promise(r => setTimeout(r, 40));
                }
            }"""
        )
        self.page.wait_for_load_state("networkidle")


@pytest.fixture
def visit(browser, site):
    """`visit(**context)` opens a fresh browser context on the served site; `home="file"` on the
    folder itself.
    """
    opened = []

    def make(home: str = "http", **context) -> Visit:
        opened.append(Visit(browser, site if home == "http" else f"file://{HTML}/", **context))
        return opened[-1]

    yield make
    for one in opened:
        one.context.close()

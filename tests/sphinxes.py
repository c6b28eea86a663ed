"""Sites that Sphinx builds inside a test."""

import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

# what every page of the course is built with
COURSE = {
    "extensions": ["myst_nb", "sphinxcontrib.bibtex", "course"],
    "bibtex_bibfiles": [],
    "html_theme": "course",
    "html_theme_options": {
        "repository_url": "https://example.org/a/b",
        "repository_branch": "main",
    },
    "nb_execution_mode": "off",
}


def build(source: Path, out: Path, settings: dict, connect: dict | None = None, **options) -> None:
    """Build the pages in `source` as HTML in `out`.

    `connect` is functions by the Sphinx event that calls them; `options` are Sphinx's own. A page
    with an error raises. What Sphinx registers in docutils is taken back: two sites in one process
    would get in each other's way.
    """
    with patch_docutils(None), docutils_namespace():
        app = Sphinx(
            source,
            None,
            out,
            out.parent / "doctrees",
            "html",
            settings,
            status=None,
            warning=sys.stderr,
            **options,
        )
        for event, call in (connect or {}).items():
            app.connect(event, call)
        app.build()
    assert app.statuscode == 0

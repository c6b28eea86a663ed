"""The course's Sphinx extension, and what its scripts know of pages: `_config.yml` loads it whole.

`blocks/` holds one file per block of a page, found by itself: what it is on the site beside what it
is in Markdown. `lower` makes a page's Markdown; `site`, `maths`, `terms`, `finish`, `widgets`,
`search`, `sharing` and `export` make the site; `keys` says which pages a change makes stale.
"""

from importlib import import_module

# in the order in which their events are to be connected
PARTS = (
    "site",
    "maths",
    "blocks",
    "widgets",
    "models",
    "terms",
    "finish",
    "search",
    "sharing",
    "export",
    "keys",
)


def setup(app):
    # sphinx-external-toc loads it, and it does not say that pages may be read two at a time
    if numbering := app.extensions.get("sphinx_multitoc_numbering"):
        numbering.parallel_read_safe = True
    for name in PARTS:
        import_module(f"course.{name}").setup(app)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }

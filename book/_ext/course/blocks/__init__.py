"""The blocks and roles of a page: each file here is found by itself.

A file holds subclasses of `Block`, `Role`, `Lowered` or `LoweredRole`, and may have a `setup(app)`
for nodes and events of its own.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from course import block


def modules() -> list:
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return [import_module(f"{__name__}.{name}") for name in names]


def defined(kind: type) -> dict[str, type]:
    """{name in the source: class} of all subclasses of `kind` that files here define.

    ValueError for a name that two of them claim.
    """
    found = {}
    for module in modules():
        for made in vars(module).values():
            own = isinstance(made, type) and made.__module__ == module.__name__
            for name in made.names if own and issubclass(made, kind) else ():
                if name in found:
                    raise ValueError(
                        f"two blocks are called {{{name}}}: {found[name].__module__} and"
                        f" {made.__module__}"
                    )
                found[name] = made
    return found


def setup(app):
    # such as "02": only this chapter's pages are built in full
    app.add_config_value("course_chapter", "", "env")
    for node in (block.element, block.text_element):
        app.add_node(node, html=(block.visit_element, block.depart_element))
    for name, directive in defined(block.Block).items():
        # docutils has admonitions of its own
        app.add_directive(name, directive, override=True)
    for name, role in defined(block.Role).items():
        app.add_role(name, role())
    for module in modules():
        if hasattr(module, "setup"):
            module.setup(app)

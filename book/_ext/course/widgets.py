"""Widgets on a page: the still picture stands where the live one will, and what is the same for all
is shipped once.

A widget's output carries two views, `widget-view+json` and `text/html` (its `still`); myst-nb would
keep only the first. Here both go into one `div.lk-mount`, where `widget-host.js` finds them.
A core ipywidget (the live panel) keeps its still picture alone: on a page it would look alive and
not be. Of the embedded state only what the page shows remains, without CSS and modules (files of
the site) and without the still picture (the host reads it off the page).
A module is written as a classic script. That runs from a folder as from a server, whatever the
server's content security policy, and before the page is loaded, so that no widget grows later.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

from course.block import html
from labkit.widgets.base import stylesheet

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
ELSEWHERE = ("_css", "still")  # the site has the one, the page the other
LOG = logging.getLogger(__name__)


def key(text: str) -> str:
    """Part of a file's name that changes with its content, so that no browser keeps an old one."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def css_name() -> str:
    return f"lk-widgets.{key(stylesheet())}.css"


def classic(module: str) -> str:
    """A widget's module as a classic script, which lays it down where the host finds it.

    ValueError for a module that is more than one file with one default export.
    """
    body, exports = re.subn(r"^export default ", "return ", module, flags=re.M)
    if exports != 1 or re.search(r"^\s*(import|export)\b", body, re.M):
        raise ValueError("a widget's module is one file with one `export default`, and no import")
    return f'(window.labkitModules ??= {{}})["{key(module)}"] = (() => {{\n{body}\n}})();\n'


class JoinViews(SphinxPostTransform):
    """Put a widget's two views together, before myst-nb selects one."""

    default_priority = 3  # SelectMimeType of myst-nb has 4
    formats = ("html",)

    def run(self, **kwargs):
        for bundle in self.document.findall(nodes.container):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            views = {child["mime_type"]: child for child in bundle.children}
            if VIEW not in views:
                continue
            still = views["text/html"].astext() if "text/html" in views else ""
            view = views[VIEW].astext()
            if "lk lk-panel " in still:
                view = ""
            elif "lk-still" not in still:
                where = {"location": bundle, "type": "labkit", "subtype": "widget"}
                LOG.warning("a widget without a still picture is dead on a page", **where)
            views[VIEW].children = [html(f'<div class="lk-mount">{still}{view}</div>')]


def slim(page: dict, shown: set[str]) -> tuple[dict, dict[str, str]]:
    """The state of the widgets shown, without what stands elsewhere, and their modules by key."""
    states = {}
    modules = {}
    for model, entry in page["state"].items():
        if model not in shown or entry["model_module"] != "anywidget":
            continue
        state = {
            name: value
            for name, value in entry["state"].items()
            if name not in ELSEWHERE and value is not None
        }
        module = state["_esm"]
        modules[key(module)] = module
        states[model] = entry | {"state": state | {"_esm": key(module)}}
    return page | {"state": states}, modules


def embed(app, pagename, templatename, context, doctree):
    """Move the page's widget state, slimmed, to the end of its body; take it and the host away
    where no widget is shown.
    """
    scripts = context.get("script_files", [])
    body = context.get("body") or ""
    state = next((s for s in scripts if getattr(s, "attributes", {}).get("type") == STATE), None)
    if state is None:
        return
    scripts.remove(state)
    views = [part.split("</script>")[0] for part in body.split(f'<script type="{VIEW}">')[1:]]
    shown = {json.loads(view)["model_id"] for view in views}
    page, modules = slim(json.loads(state.attributes["body"]), shown)
    static = Path(app.outdir) / "_static"
    static.mkdir(exist_ok=True)
    for name, module in modules.items():
        path = f"lk-{name}.js"
        (static / path).write_text(classic(module), encoding="utf-8")
        app.add_js_file(path, priority=400, defer="defer")  # before the host
    if page["state"]:
        data = json.dumps(page, separators=(",", ":"), ensure_ascii=False)
        data = data.replace("</", r"<\/")  # or it would end the script
        context["body"] = f'{body}<script type="{STATE}">{data}</script>'
    else:
        hosts = tuple(app.config.nb_ipywidgets_js)
        scripts[:] = [s for s in scripts if not str(getattr(s, "filename", "")).endswith(hosts)]
    if 'class="lk ' in body:
        app.add_css_file(css_name())


def write_css(app, exception):
    if exception is None and app.builder.format == "html":
        (Path(app.outdir) / "_static" / css_name()).write_text(stylesheet(), encoding="utf-8")


def setup(app):
    app.add_post_transform(JoinViews)
    app.connect("html-page-context", embed, priority=900)
    app.connect("build-finished", write_css)

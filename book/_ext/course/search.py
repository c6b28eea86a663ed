"""The search: every section of every page and every term of the glossary, found by what words mean
rather than how they are written.

The index is text; `search.js` cuts it into stems and ranks it in the browser. Both are one script,
loaded when a reader first opens the search, so that it works from a folder as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from rjsmin import jsmin
from sphinx import addnodes
from sphinx.environment.collectors import EnvironmentCollector
from sphinx.search.en import english_stopwords, js_porter_stemmer

ENGINE = Path(__file__).with_suffix(".js")
SKIP = (
    nodes.literal_block,
    nodes.raw,
    nodes.math,
    nodes.math_block,
    nodes.comment,
    nodes.system_message,
)
# Words of questions, which no section is about.
QUESTIONS = """
am can do does from get how i me my we what when where which who why you your
"""
STOPWORDS = {*english_stopwords, *QUESTIONS.split()} - {"not", "no", "near"}
# What means the same. Abbreviations of the glossary are added: their definition begins with them.
SYNONYMS = [
    ["KV", "key value"],
    ["MoE", "mixture of experts"],
    ["MLA", "multi-head latent attention"],
    ["SWA", "sliding window attention"],
    ["MHA", "multi-head attention"],
    ["MQA", "multi-query attention"],
    ["bf16", "bfloat16"],
    ["fp16", "float16", "half precision"],
    ["fp32", "float32"],
    ["int8", "8 bits", "8 bit"],
    ["int4", "4 bits", "4 bit"],
    ["RoPE", "rotary embedding", "rotary position embedding"],
    ["paged", "paging", "paged attention"],
    ["speculative decoding", "draft model", "assisted generation"],
    ["memory", "VRAM"],
]


class SectionCollector(EnvironmentCollector):
    """What can be found on each page: {docname: [[anchor, title, text], ...]}."""

    def clear_doc(self, app, env, docname):
        sections(env).pop(docname, None)

    def merge_other(self, app, env, docnames, other):
        sections(env).update({docname: sections(other)[docname] for docname in docnames})

    def process_doc(self, app, doctree):
        sections(app.env)[app.env.docname] = [
            *(
                [section["ids"][0], section.next_node(nodes.title).astext(), own_text(section)]
                for section in doctree.findall(nodes.section)
            ),
            *terms(doctree),
        ]


def sections(env) -> dict[str, list]:
    return env.__dict__.setdefault("course_sections", {})


def terms(doctree) -> Iterator[list[str]]:
    """The glossary's entries."""
    for glossary in doctree.findall(addnodes.glossary):
        for item in glossary.findall(nodes.definition_list_item):
            term = item.next_node(nodes.term)
            meaning = item.next_node(nodes.definition)
            yield [term["ids"][0], term.astext(), " ".join(meaning.astext().split())]


def own_text(section: nodes.section) -> str:
    """The words of a section without its title, its subsections, its glossary, code and maths."""
    apart = (nodes.section, nodes.title, addnodes.glossary)
    parts = []
    for child in section.children:
        if not isinstance(child, apart):
            parts += [
                text.astext()
                for text in child.findall(nodes.Text)
                if not any(isinstance(node, SKIP) for node in ancestors(text, child))
            ]
    return " ".join(" ".join(parts).split())


def ancestors(node: nodes.Node, top: nodes.Node) -> Iterator[nodes.Node]:
    while node is not top:
        node = node.parent
        yield node


def abbreviations(rows: list[list[str]]) -> list[list[str]]:
    """`TTFT` and `Time to first token`, where the definition begins with what the letters stand
    for.
    """
    found = []
    for *_, title, text in rows:
        meaning = re.match(r"[\w /-]+(?=[:,.;])", text)
        if re.fullmatch(r"[A-Z]{2,5}", title) and meaning:
            found.append([title, meaning[0]])
    return found


def script(env, titles: dict[str, str]) -> str:
    """The index and what searches it. `titles`: of the pages, in reading order."""
    rows = [
        [docname, title, *section]
        for docname, title in titles.items()
        for section in sections(env).get(docname, [])
    ]
    index = {
        "sections": rows,
        "synonyms": SYNONYMS + abbreviations(rows),
        "stopwords": sorted(STOPWORDS),
    }
    packed = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    code = jsmin(f"{js_porter_stemmer};{ENGINE.read_text()}")
    return f"window.courseIndex = {packed};\n{code}\n"


def setup(app):
    app.add_env_collector(SectionCollector)

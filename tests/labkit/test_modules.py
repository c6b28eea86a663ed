"""Which files a piece of Python depends on is read from its source, and so is what they say."""

import ast
import graphlib

import pytest

from labkit import modules

TREE = {
    "labkit/__init__.py": "_HOME = {'GPT': 'model', 'Engine': 'engine'}\n",
    "labkit/model.py": "from labkit import fast\nfrom labkit.mixers import make\nclass GPT: pass\n",
    "labkit/mixers/__init__.py": "from labkit.mixers.attention import make\n",
    "labkit/mixers/attention.py": "from ..step import Step\ndef make(): pass\n",
    "labkit/step.py": "import math\n",
    "labkit/fast/__init__.py": "",
    "labkit/fast/gemm.c": "int f(void) { return 1; }  // one\n",
    "labkit/engine/__init__.py": "from labkit.engine.engine import Engine\n",
    "labkit/engine/engine.py": "from . import blocks\n",
    "labkit/engine/blocks.py": "def late():\n    from labkit import tables\n",
    "labkit/tables.py": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from labkit.model import GPT\nelse:\n    import labkit.step\n"
    ),
    "__init__.py": "",
    "ch05_swa/ring.py": "from labkit_labs.ch05_swa import helper\n",
    "ch05_swa/helper.py": "import labkit\ndef f(): return labkit.Engine\n",
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(
        modules, "packages", lambda: {"labkit": tmp_path / "labkit", "labkit_labs": tmp_path}
    )
    return tmp_path


def below(tree, paths) -> set[str]:
    return {str(path.relative_to(tree)) for path in paths}


@pytest.mark.parametrize(
    "source, found",
    [
        ("import labkit", set()),  # says only where names live
        ("import labkit\nlabkit.GPT", {"labkit/model.py"}),
        ("import labkit as lk\nlk.engine.blocks.late", {"engine/__init__", "engine/blocks"}),
        ("from labkit import GPT", {"labkit/model.py"}),
        ("from labkit import GPT as G, step", {"labkit/model.py", "labkit/step.py"}),
        ("from labkit.engine.blocks import late", {"engine/__init__", "engine/blocks"}),
        ("import labkit.mixers.attention", {"mixers/__init__", "mixers/attention"}),
        ("from labkit import mixers\nmixers.attention", {"mixers/__init__", "mixers/attention"}),
        ("def f():\n    from labkit import step", {"labkit/step.py"}),
        ("%pip install x\n!ls\nfrom labkit import step", {"labkit/step.py"}),
        ("import numpy, os.path\nfrom json import loads", set()),
        ("from labkit_labs.ch05_swa import ring", {"__init__.py", "ch05_swa/ring.py"}),
    ],
)
def test_what_a_cell_imports(tree, source, found):
    full = {f if f.endswith(".py") else f"labkit/{f}.py" for f in found}
    assert below(tree, modules.imports_of(source)) == full


def test_what_a_file_imports(tree):
    at = lambda name: below(tree, modules.imports(tree / name))
    assert at("labkit/mixers/attention.py") == {"labkit/step.py"}  # two dots up
    assert at("labkit/engine/engine.py") == {"labkit/engine/__init__.py", "labkit/engine/blocks.py"}
    assert at("labkit/engine/blocks.py") == {"labkit/tables.py"}  # inside a function
    assert at("labkit/tables.py") == {"labkit/step.py"}  # not what only a type checker sees
    assert at("labkit/fast/gemm.c") == set()


def test_modules_that_are_found_by_name_count(tree):
    """A view that is nowhere imported still draws on the page: changed, the page is old."""
    views = tree / "labkit/views"
    views.mkdir()
    (views / "__init__.py").write_text("import pkgutil\nKINDS = pkgutil.iter_modules(__path__)\n")
    (views / "decode.py").write_text("from labkit import step\n")
    found = below(tree, modules.closure(views / "__init__.py"))
    assert found == {"labkit/views/__init__.py", "labkit/views/decode.py", "labkit/step.py"}


def test_a_closure_follows_imports_and_takes_what_a_package_carries(tree):
    engine = {f"labkit/engine/{name}.py" for name in ("__init__", "engine", "blocks")}
    ring = {"__init__.py", "ch05_swa/ring.py", "ch05_swa/helper.py", *engine}
    rest = {"labkit/tables.py", "labkit/step.py"}
    of = lambda *names, **given: below(tree, modules.closure(*[tree / n for n in names], **given))
    assert of("ch05_swa/ring.py") == ring | rest
    # what is left out is not followed either, be it a module or a package
    assert of("ch05_swa/ring.py", without=["labkit.tables"]) == ring
    assert of("ch05_swa/ring.py", without=["labkit.engine"]) == ring - engine
    assert {"labkit/fast/__init__.py", "labkit/fast/gemm.c"} <= of("labkit/model.py")
    with pytest.raises(ValueError, match=r"no module of the course is called 'labkit\.tabels'"):
        of("labkit/model.py", without=["labkit.tabels"])


def test_the_map_of_a_package(tree):
    found = modules.graph(tree / "labkit")
    assert found == {
        "model": {"fast", "mixers"},
        "mixers": {"mixers.attention"},
        "mixers.attention": {"step"},
        "step": set(),
        "fast": set(),
        "engine": {"engine.engine"},
        "engine.engine": {"engine.blocks"},
        "engine.blocks": {"tables"},
        "tables": {"step"},
    }
    assert modules.rooms(found) == {
        "model": {"fast", "mixers"},
        "mixers": {"step"},
        "engine": {"tables"},
        "tables": {"step"},
        "fast": set(),
        "step": set(),
    }
    (tree / "labkit/step.py").write_text("def f():\n    import labkit\n    labkit.GPT\n")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(modules.graph(tree / "labkit")).prepare()


CODE = '''"""Says what it is."""
from labkit import step

def f(x):
    """Doubles."""
    return 2 * x  # twice


LAB = dict(title="a")
'''


@pytest.mark.parametrize(
    "old, new, same",
    [
        ("# twice", "# two times", True),
        ('"""Doubles."""', '"""Twice."""', True),
        ('"""Says what it is."""\n', "", True),
        ("2 * x", "2 *\\\n        x", True),
        ("2 * x", "(2 * x)", True),
        ('"a"', '"" "a"', True),
        ("2 * x", "3 * x", False),
        ("2 * x", "x * 2", False),
        ("def f(x)", "def f(x, y=None)", False),
        ('"a"', '"b"', False),
    ],
)
def test_a_digest_changes_with_what_code_says_and_not_with_how(tmp_path, old, new, same):
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    assert old in CODE
    before.write_text(CODE)
    after.write_text(CODE.replace(old, new))
    assert (modules.digest(before) == modules.digest(after)) is same


def test_a_digest_can_be_of_a_part(tmp_path):
    """Of a lab, say, without the words that it says of its rows."""
    functions = lambda tree: ast.Module([n for n in tree.body if hasattr(n, "name")], [])
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(CODE)
    after.write_text(CODE.replace('"a"', '"b"'))
    assert modules.digest(before, see=functions) == modules.digest(after, see=functions)
    assert modules.digest(before) != modules.digest(after)
    after.write_text(CODE.replace("2 * x", "3 * x"))
    assert modules.digest(before, see=functions) != modules.digest(after, see=functions)


@pytest.mark.parametrize(
    "other, same",
    [
        ('int f(void)\n{\n  return 1;\n}\nchar *s = "// kept";\n', False),  # lines count
        ('int f(void) {   return 1; }\n/* a\n comment */\nchar *s = "// kept";\n', True),
        ('int f(void) { return 2; }\nchar *s = "// kept";', False),
        ('int f(void) { return 1; }\nchar *s = "// lost";', False),
    ],
)
def test_comments_of_c_do_not_count(tmp_path, other, same):
    before, after = tmp_path / "before.c", tmp_path / "after.c"
    before.write_text('int f(void) { return 1; }  // one\nchar *s = "// kept";')
    after.write_text(other)
    assert (modules.digest(before) == modules.digest(after)) is same


def test_a_digest_is_of_all_files_whatever_their_names_and_order(tmp_path):
    a, b, c = (tmp_path / f"{name}.py" for name in "abc")
    a.write_text("x = 1")
    b.write_text("x = 2")
    c.write_text("x = 1")
    assert modules.digest(a, b) == modules.digest(b, a) == modules.digest(b, c)
    assert modules.digest(a, b) != modules.digest(a)


def test_the_digest_of_a_syntax_tree_is_pinned(tmp_path):
    """A stored row keeps it for years: another Python must not make another hash."""
    path = tmp_path / "a.py"
    path.write_text(
        "async def f(a, /, *b: int, c=1.5, **d) -> None:\n    return f'{a!r:>{c}}', ..."
    )
    assert modules.digest(path) == "816800b8e625caec"


# Rooms of labkit (a module, or a package as a whole) from the ground up: an import goes down. A new
# room stands one floor above the highest that it imports.
FLOORS = (
    "config dtypes machines palette paths sampling step tables",
    "chapters formulas hf_sizes kernels modules plotting published source speculative",
    "checks environment linear ops reference timed",
    "caches ffn mixers results",
    "moe",
    "model",
    "graphs",
    "decode weights",
    "bench traces",
    "lab quant rivals trace",
    "engine widgets",
    "gpu",
    "cli",
)


def test_no_import_in_labkit_runs_up_its_floors():
    rooms = modules.rooms(modules.graph())
    floor = {room: i for i, names in enumerate(FLOORS) for room in names.split()}
    assert not set(rooms) - set(floor), "these rooms stand on no floor"
    up = [f"{a} -> {b}" for a in rooms for b in rooms[a] if floor[a] <= floor[b]]
    assert not up, "these imports don't go down"


def test_no_circle_in_labkit():
    graphlib.TopologicalSorter(modules.graph()).prepare()


def test_what_is_not_python_is_refused(tmp_path):
    path = tmp_path / "lab.py"
    path.write_text("x = 1\nfor\n")
    for refuse in (modules.imports, modules.digest):
        with pytest.raises(ValueError, match=r"lab\.py can't be read as Python: .*, line 2"):
            refuse(path)
    with pytest.raises(ValueError, match="this cell can't be read as Python"):
        modules.imports_of("a b")


def test_a_lab_reaches_the_kernels_it_is_timed_with():
    labs = modules.packages()["labkit_labs"]
    found = {path.name for path in modules.closure(labs / "labkit" / "model.py")}
    assert {"model.py", "attention.py", "caches.py", "attention.c", "linear.c"} <= found

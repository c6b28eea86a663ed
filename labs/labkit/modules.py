"""Which of the course's own files a piece of Python imports, and one hash of what they say.

Sources are read, never run: an import inside a function counts as one at the top does, one under
`if TYPE_CHECKING` does not. A page is run again, a clip rendered again and a stored row called old
when the files found here have changed; comments, layout and docstrings change nothing.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from labkit import paths

# what a package carries beside its Python: read when the package is
CARRIED = (".c", ".cpp", ".h", ".js", ".css")
# who asks for this finds modules by their names: all that lie beside it count
BY_NAME = (0, ("pkgutil", "iter_modules"))
# the table of a package that fetches its public names when they are first used: {name: module}
LAZY = "_HOME"


def packages() -> dict[str, Path]:
    """The course's own packages, each with its folder; the clips' and the book's only in a
    checkout.
    """
    labs = paths.labs().resolve()
    found = {"labkit": Path(__file__).resolve().parent, "labkit_labs": labs}
    beside = (labs.parent / "animations", labs.parent / "book/_ext/course")
    return found | {folder.name: folder for folder in beside if folder.is_dir()}


# -- what is imported ------------------------------------------------------------------------------


def imports(path: Path | str) -> set[Path]:
    """The course's files that importing or calling into this one imports directly.

    A package's `__init__` counts, since it runs before its modules; labkit's own does not, since it
    only says where a name lives. Raises ValueError for a file that isn't Python.
    """
    return _imports(Path(path).resolve(), packages())


def imports_of(source: str) -> set[Path]:
    """The same for source text, such as a page's code cells; lines for IPython (`%`, `!`) are
    passed over.
    """
    return _files(re.sub(r"^\s*[%!].*$", "", source, flags=re.M), "this cell", packages())


def closure(*paths: Path | str, without: Iterable[str] = ()) -> list[Path]:
    """These files and all that they import, directly or through others, sorted; with what a
    reached package carries beside its Python (C, JavaScript).

    without: imported modules that are neither counted nor followed, such as "labkit.plotting"; a
    package stands for all that is in it.
    """
    roots = packages()
    barred = {_place(name, roots) for name in without}
    left = {Path(path).resolve() for path in paths}
    found: set[Path] = set()
    while left:
        path = left.pop()
        found.add(path)
        imported = _imports(path, roots) - found
        left |= {p for p in imported if barred.isdisjoint([p, *p.parents])}
    reached = {path.parent for path in found if (path.parent / "__init__.py").is_file()}
    carried = {p for folder in reached for p in folder.iterdir() if p.suffix in CARRIED}
    return sorted(found | carried)


def graph(folder: Path | str | None = None) -> dict[str, set[str]]:
    """Module -> modules that it imports, all inside one package (labkit, or that of `folder`), by
    their dotted names in it: `mixers.attention`; a package is named without its `__init__`.

    The top `__init__` is left out, and so is what Python runs on the way to a module: the map shows
    what the authors wrote.
    """
    top = Path(folder).resolve() if folder else packages()["labkit"]
    lazy = top / "__init__.py"
    found = {}
    for path in sorted(set(top.rglob("*.py")) - {lazy}):
        walks = _walks(path.read_text(), path.name, {top.name: top}, path.parent)
        targets = {walk[-1] for walk in walks if walk} - {path, lazy}
        found[_dotted(top, path)] = {_dotted(top, target) for target in targets}
    return found


def rooms(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """A graph with each package folded into one: `mixers.attention` -> `mixers`."""
    found: dict[str, set[str]] = {}
    for module, targets in arrows.items():
        room = module.split(".")[0]
        found.setdefault(room, set()).update({t.split(".")[0] for t in targets} - {room})
    return found


def _place(module: str, roots: dict[str, Path]) -> Path:
    """A module's file, or a package's folder. Raises ValueError for one that isn't there."""
    top, *names = module.split(".")
    path = roots.get(top, Path(top)).joinpath(*names)
    if path.is_dir():
        return path
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    raise ValueError(f"no module of the course is called {module!r}")


def _dotted(top: Path, path: Path) -> str:
    inside = path.relative_to(top).with_suffix("")
    return ".".join(part for part in inside.parts if part != "__init__")


def _imports(path: Path, roots: dict[str, Path]) -> set[Path]:
    if path.suffix != ".py":
        return set()
    source = path.read_text()
    found = _files(source, path.name, roots, path.parent)
    if BY_NAME in _mentions(source, path.name) and not _homes(path):
        found |= set(path.parent.glob("*.py"))
    return found - {path}


def _files(source: str, name: str, roots: dict[str, Path], inside: Path | None = None) -> set[Path]:
    """Every file on the way to what is imported, but the `__init__` of a lazy package."""
    found = {path for walk in _walks(source, name, roots, inside) for path in walk}
    inits = [folder / "__init__.py" for folder in roots.values()]
    return found - {init for init in inits if _homes(init)}


def _walks(
    source: str, name: str, roots: dict[str, Path], inside: Path | None
) -> Iterator[list[Path]]:
    """For each name of ours that the source imports, or reaches through a dot: the files that
    Python would run on the way to it, the module itself last.
    """
    for level, names in _mentions(source, name):
        if level and inside:
            yield _walk(inside.joinpath(*[".."] * (level - 1)).resolve(), names)
        elif not level and names[0] in roots:
            yield _walk(roots[names[0]], names[1:])


Mention = tuple[
    int, tuple[str, ...]
]  # dots in front, names: `from ..a import b` is (2, ("a", "b"))


@cache  # by the text itself, so that it can't go stale
def _mentions(source: str, name: str) -> frozenset[Mention]:
    """What a source imports, and what it reaches through the names that its imports give."""
    nodes = list(_running(_tree(source, name)))
    bound: dict[str, Mention] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names = tuple(alias.name.split("."))
                # `import a.b` gives the name `a`, `import a.b as c` gives `a.b`
                bound[alias.asname or alias.name] = (0, names)
                bound.setdefault(names[0], (0, names[:1]))
        elif isinstance(node, ast.ImportFrom):
            start = tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                bound[alias.asname or alias.name] = (node.level, (*start, alias.name))
    found = set(bound.values())
    for node in nodes:
        if isinstance(node, ast.Attribute) and (chain := _chain(node)) and chain[0] in bound:
            level, names = bound[chain[0]]
            found.add((level, (*names, *chain[1:])))
    return frozenset(found)


def _walk(package: Path, names: Iterable[str]) -> list[Path]:
    """The files from a package down to `names`, as far as they are modules: the rest are
    attributes.
    """
    init = package / "__init__.py"
    here = [init] if init.is_file() else []
    name, *rest = [*names, ""]
    if name and (package / name).is_dir():
        return here + _walk(package / name, rest[:-1])
    if (package / f"{name}.py").is_file():
        return [*here, package / f"{name}.py"]
    if name and (home := _homes(init).get(name)):
        return here + _walk(package, home.split("."))
    return here


def _homes(init: Path) -> dict[str, str]:
    """Where a lazy package's public names live; empty for any other file."""
    source = init.read_text() if init.is_file() else ""
    return _table(source, init.name) if f"{LAZY} = {{" in source else {}


@cache
def _table(source: str, name: str) -> dict[str, str]:
    for node in _tree(source, name).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == LAZY:
            return ast.literal_eval(node.value)
    return {}


def _chain(node: ast.expr) -> list[str]:
    """`labkit.weights.smol` as a list of names; empty for what doesn't start with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (start := _chain(node.value)):
        return [*start, node.attr]
    return []


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from _running(other)
            continue
        yield node
        yield from _running(node)


def _tree(source: str, name: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as e:
        raise ValueError(f"{name} can't be read as Python: {e.msg}, line {e.lineno}") from None


# -- what it says ----------------------------------------------------------------------------------


def digest(*paths: Path | str, see: Callable[[ast.Module], ast.Module] | None = None) -> str:
    """One short hash of what these files say: of Python its syntax tree without docstrings, of C
    its text without comments, of the rest their bytes. Where a file lies and what it is called
    doesn't count. Raises ValueError for a file that isn't Python.

    see: makes of each syntax tree the one that counts, and leaves the given one as it is.
    """
    each = sorted(_said(Path(path), see) for path in paths)
    return hashlib.sha256("\n".join(each).encode()).hexdigest()[:16]


def _said(path: Path, see: Callable | None) -> str:
    if path.suffix == ".py":
        return _hash_of_python(path.read_text(), path.name, see)
    said = path.read_bytes()
    if path.suffix in (".c", ".cpp", ".h"):
        said = _without_comments(said.decode()).encode()
    return hashlib.sha256(said).hexdigest()


@cache
def _hash_of_python(source: str, name: str, see: Callable | None) -> str:
    tree = _tree(source, name)
    return hashlib.sha256(_shape(see(tree) if see else tree).encode()).hexdigest()


def _shape(value) -> str:
    """A syntax tree as text, the same under every version of Python: `ast.dump` is not, as new
    versions give nodes new fields, which are left out here where they are empty.
    """
    if isinstance(value, list):
        kept = [v for v in value if not (isinstance(v, ast.Expr) and _is_text(v.value))]
        return f"[{','.join(map(_shape, kept))}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = [
        f"{name}={_shape(field)}"
        for name, field in ast.iter_fields(value)
        if field not in (None, []) and name not in ("ctx", "kind", "type_comment")
    ]
    return f"{type(value).__name__}({','.join(fields)})"


def _is_text(node: ast.expr) -> bool:
    """A string that stands alone: a docstring, wherever it stands."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _without_comments(c: str) -> str:
    """C without comments and without the layout of its lines; what stands in quotes is kept."""
    token = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|/\*.*?\*/|//[^\n]*', re.S)
    bare = token.sub(lambda m: " " if m[0].startswith("/") else m[0], c)
    lines = (" ".join(line.split()) for line in bare.splitlines())
    return "\n".join(line for line in lines if line)

"""The formulas in JavaScript, made from their Python source: the same operations in the same order,
so that a page computes what labkit does; and so a model's sizes are checked, and read from a file.

Translated is what the formulas are written in; anything else is refused in its words. Numbers are
doubles there, so whole ones are exact below 2**53.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, fields
from types import ModuleType

from labkit import config
from labkit.config import ModelConfig
from labkit.formulas import costs, floors, roofline, serving, symbols
from labkit.formulas.parts import Part

OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
COMPARISONS = {ast.Eq: "===", ast.NotEq: "!==", ast.Is: "==", ast.IsNot: "!="}
COMPARISONS |= {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
FUNCTIONS = {
    "min": "Math.min({})",
    "max": "Math.max({})",
    "math.ceil": "Math.ceil({})",
    "math.floor": "Math.floor({})",
    "int": "Math.trunc({})",
    "len": "{}.length",
    "str": "String({})",
    "tuple": "[...{}]",
}
TYPES = {  # what isinstance asks for
    "int": "Number.isInteger({})",
    "bool": "(typeof {} === 'boolean')",
    "str": "(typeof {} === 'string')",
    "dict": "isDict({})",
    "list | tuple": "Array.isArray({})",
}
# what Python has and JavaScript has not; a name that is not known is answered with the known ones
PRELUDE = """\
const sum = (many) => many.reduce((a, b) => a + b, 0);
const range = (a, b = null) =>
  b === null ? range(0, a) : Array.from({ length: b - a }, (_, i) => a + i);
const enumerate = (many) => many.map((one, i) => [i, one]);
const repeat = (many, n) => range(n).flatMap(() => many);
const has = (many, one) => Array.isArray(many) ? many.includes(one) : Object.hasOwn(many, one);
const get = (dict, name, missing = null) => Object.hasOwn(dict, name) ? dict[name] : missing;
const mod = (a, b) => ((a % b) + b) % b;
const isDict = (one) => typeof one === "object" && one !== null && !Array.isArray(one);
const repr = (one) =>
  one === null || one === undefined ? "None"
  : typeof one === "boolean" ? (one ? "True" : "False")
  : typeof one === "string" ? `'${one}'`
  : Array.isArray(one) ? `[${one.map(repr).join(", ")}]`
  : isDict(one) ? `{${Object.entries(one).map((pair) => pair.map(repr).join(": ")).join(", ")}}`
  : String(one);
const unknown = (kind, name, known) => {
  const names = Array.isArray(known) ? known : Object.keys(known);
  return `no ${kind} is called ${repr(name)}; choose from ${names.join(", ")}`;
};"""
METHODS = {
    "items": "Object.entries({0})",
    "values": "Object.values({0})",
    "get": "get({all})",
    "append": "{0}.push({1})",
    "extend": "{0}.push(...{1})",
    "update": "Object.assign({0}, {1})",
}
MODULES = {"f": "symbols", "symbols": "symbols"}  # as the formulas import one another
PYTHON_ONLY = {"whole", "_check_scaling"}  # of the modules that are translated
RESERVED = {"new", "default", "function", "var", "let", "const", "delete", "typeof", "void"}


class Translator(ast.NodeVisitor):
    """Python to JavaScript, as text. signatures: the parameters of each function, by its name."""

    def __init__(self, signatures: dict[str, list[str]], classes: set[str]):
        self.signatures, self.classes = signatures, classes

    def generic_visit(self, node):
        said = ast.unparse(node).splitlines()[0]
        raise NotImplementedError(f"{said!r} is a {type(node).__name__}: it has no translation")

    def all(self, nodes, between: str = ", ") -> str:
        return between.join(map(self.visit, nodes))

    # -- statements ------------------------------------------------------------------------

    def block(self, nodes, first: str = "") -> str:
        said = [self.visit(node) for node in nodes if not _is_docstring(node)]
        return " ".join(filter(None, ["{", first, *said, "}"]))

    def function(self, node: ast.FunctionDef) -> str:
        """Parameters and body, its variables declared first."""
        args = [*node.args.args, *node.args.kwonlyargs]
        required = [None] * (len(node.args.args) - len(node.args.defaults))
        defaults = [*required, *node.args.defaults, *node.args.kw_defaults]
        given = [
            _name(a.arg) + (f" = {self.visit(default)}" if default else "")
            for a, default in zip(args, defaults)
            if a.arg != "self"
        ]
        given += [f"...{node.args.vararg.arg}"] if node.args.vararg else []
        given += [node.args.kwarg.arg] if node.args.kwarg else []  # one object
        stored = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and _is_stored(n)]
        params = {*_params(node), *([node.args.kwarg.arg] if node.args.kwarg else [])}
        own = [_name(n) for n in dict.fromkeys(stored) if n not in params]
        let = f"let {', '.join(own)};" if own else ""
        return f"({', '.join(given)}) {self.block(node.body, let)}"

    def visit_Expr(self, node):
        return f"{self.visit(node.value)};"

    def visit_Return(self, node):
        return f"return {self.visit(node.value)};"

    def visit_Assign(self, node):
        if len(node.targets) > 1:
            self.generic_visit(node)
        return f"{self.visit(node.targets[0])} = {self.visit(node.value)};"

    def visit_AugAssign(self, node):
        if type(node.op) not in OPERATORS or _is_list(node.value):
            self.generic_visit(node)
        return f"{self.visit(node.target)} {OPERATORS[type(node.op)]}= {self.visit(node.value)};"

    def visit_If(self, node):
        other = f" else {self.block(node.orelse)}" if node.orelse else ""
        return f"if ({self.visit(node.test)}) {self.block(node.body)}{other}"

    def visit_For(self, node):
        each, found = self.visit(node.target), self.visit(node.iter)
        return f"for ({each} of {found}) {self.block(node.body)}"

    def visit_Raise(self, node):
        said = node.exc.args
        if ast.unparse(node.exc.func) == "UnknownName":
            words = f"unknown({self.all(said)})"
        else:
            words = self.visit(said[0])
        return f"throw new RangeError({words});"

    # -- expressions -----------------------------------------------------------------------

    def visit_Constant(self, node):
        words = {None: "null", True: "true", False: "false"}
        plain = isinstance(node.value, str | int | float) and not isinstance(node.value, bool)
        return repr(node.value) if plain else words[node.value]

    def visit_Name(self, node):
        return _name(node.id)

    def visit_Attribute(self, node):
        if isinstance(node.value, ast.Name) and node.value.id in MODULES:
            return f"{MODULES[node.value.id]}.{node.attr}"
        return f"{self.visit(node.value)}.{node.attr}"

    def visit_Subscript(self, node):
        return f"{self.visit(node.value)}[{self.visit(node.slice)}]"

    def visit_BinOp(self, node):
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Pow):
            return f"Math.pow({left}, {right})"
        if isinstance(node.op, ast.FloorDiv):
            return f"Math.floor({left} / {right})"
        if isinstance(node.op, ast.Mod):
            return f"mod({left}, {right})"
        if isinstance(node.op, ast.Mult) and _is_list(node.left):
            return f"repeat({left}, {right})"
        if type(node.op) not in OPERATORS or _is_list(node.left) or _is_list(node.right):
            self.generic_visit(node)
        return f"({left} {OPERATORS[type(node.op)]} {right})"

    def visit_UnaryOp(self, node):
        sign = {ast.USub: "-", ast.Not: "!"}.get(type(node.op)) or self.generic_visit(node)
        return f"({sign}{self.visit(node.operand)})"

    def visit_BoolOp(self, node):
        return f"({self.all(node.values, ' && ' if isinstance(node.op, ast.And) else ' || ')})"

    def visit_IfExp(self, node):
        return f"({self.visit(node.test)} ? {self.visit(node.body)} : {self.visit(node.orelse)})"

    def visit_Compare(self, node):
        sides = [*map(self.visit, [node.left, *node.comparators])]
        held = []
        for left, op, right in zip(sides, node.ops, sides[1:]):
            if isinstance(op, ast.In | ast.NotIn):
                held.append(f"{'' if isinstance(op, ast.In) else '!'}has({right}, {left})")
            else:
                held.append(f"{left} {COMPARISONS[type(op)]} {right}")
        return f"({' && '.join(held)})"

    def visit_Tuple(self, node):
        return f"[{self.all(node.elts)}]"

    visit_List = visit_Tuple

    def visit_Starred(self, node):
        return f"...{self.visit(node.value)}"

    def visit_Dict(self, node):
        pairs = [f"{self.visit(k)}: {self.visit(v)}" for k, v in zip(node.keys, node.values)]
        return f"{{ {', '.join(pairs)} }}"

    def visit_DictComp(self, node):
        pair = ast.Tuple([node.key, node.value])
        return f"Object.fromEntries({self.mapped(node.generators, pair)})"

    def visit_GeneratorExp(self, node):
        return self.mapped(node.generators, node.elt)

    visit_ListComp = visit_GeneratorExp

    def mapped(self, generators, made) -> str:
        (each,) = generators
        if each.ifs:
            self.generic_visit(each)
        return f"{self.visit(each.iter)}.map(({self.visit(each.target)}) => {self.visit(made)})"

    def visit_JoinedStr(self, node):
        if any(getattr(part, "format_spec", None) for part in node.values):
            self.generic_visit(node)
        return f"`{''.join(map(self.part, node.values))}`"

    def part(self, node) -> str:
        """A piece of a sentence: words, or a value, which `!r` shows as Python would."""
        if isinstance(node, ast.Constant):
            return node.value
        said = self.visit(node.value)
        return f"${{repr({said})}}" if node.conversion == ord("r") else f"${{{said}}}"

    def visit_Call(self, node):
        name = ast.unparse(node.func)
        if name == "isinstance":
            asked = TYPES.get(ast.unparse(node.args[1])) or self.generic_visit(node)
            return asked.format(self.visit(node.args[0]))
        args = [*map(self.visit, node.args)]
        if name == "getattr" and len(args) == 2:
            return "{}[{}]".format(*args)
        if name in FUNCTIONS:
            return FUNCTIONS[name].format(", ".join(args))
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            given = [self.visit(node.func.value), *args]
            return METHODS[node.func.attr].format(*given, all=", ".join(given))
        ours = {*self.signatures, *self.classes, "sum", "range", "enumerate"}
        if isinstance(node.func, ast.Name) and name not in ours:
            self.generic_visit(node)
        given, named = args, {k.arg: k.value for k in node.keywords}
        if None in named:  # a dict of names: one object
            given.append(self.visit(named[None]))
        elif named:  # what is named there stands in its place here
            places = self.signatures[name][len(given) :]
            given += [self.visit(named[p]) if p in named else "undefined" for p in places]
            if not places:  # of any name: one object
                pairs = [f"{name}: {self.visit(value)}" for name, value in named.items()]
                given.append(f"{{ {', '.join(pairs)} }}")
        new = "new " if name in self.classes else ""
        return f"{new}{self.visit(node.func)}({', '.join(given)})"


def _is_docstring(node) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_list(node) -> bool:
    """A list as it stands: JavaScript's + would make a string of it."""
    return isinstance(node, ast.List | ast.Tuple | ast.ListComp)


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _name(name: str) -> str:
    return {"self": "this"}.get(name, f"{name}_" if name in RESERVED else name)


def _params(node: ast.FunctionDef) -> list[str]:
    return [a.arg for a in [*node.args.args, *node.args.kwonlyargs]]


def javascript(*more: ModuleType) -> str:
    """A script that defines `formulas`: the functions of this package by their names, those of
    `symbols` in `formulas.symbols`, and `ModelConfig`, made from an object of sizes and checked as
    in Python. more: modules that it is to hold, too. ValueError for a name that two of them have.
    """
    # the package calls its function so
    modules = [config, inspect.getmodule(Part), costs, roofline, serving, floors, *more]
    functions = [node for module in modules for node in _functions(module)]
    names = [node.name for node in functions]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two modules have a function called {', '.join(sorted(twice))}")
    translator = Translator(
        {node.name: _params(node) for node in functions}, {"Part", "Hardware", "ModelConfig"}
    )
    write = lambda node: f"function {node.name}{translator.function(node)}"
    constants = {k: v for module in modules for k, v in _constants(module, translator).items()}
    kept = _functions(symbols)
    lines = [
        "// made by labkit.formulas.javascript; change the Python instead",
        "const formulas = (() => {",
        PRELUDE,
        "const symbols = (() => {",
        *map(write, kept),
        f"return {{ {', '.join(node.name for node in kept)} }};",
        "})();",
        *(f"const {name} = {value};" for name, value in constants.items()),
        _class(translator, Part, "elements"),
        _class(translator, roofline.Hardware, "ridge"),
        _class(translator, ModelConfig, "types", "window_of", "has_experts", "rope_dim"),
        *map(write, functions),
        f"return {{ symbols, Part, Hardware, ModelConfig, {', '.join([*constants, *names])} }};",
        "})();",
    ]
    return "\n".join(lines) + "\n"


def _constants(module: ModuleType, translator: Translator) -> dict[str, str]:
    """What a module calls in capitals, in JavaScript."""
    tree = ast.parse(inspect.getsource(module))
    return {
        node.targets[0].id: translator.visit(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
    }


def _functions(module) -> list[ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(module))
    return [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name not in PYTHON_ONLY]


def _class(translator: Translator, given: type, *methods: str) -> str:
    """A dataclass with some of its methods; one that has many sizes takes them by name."""
    known = {f.name: None if f.default is MISSING else f.default for f in fields(given)}
    plain = {name: translator.visit(ast.Constant(value)) for name, value in known.items()}
    if given is ModelConfig:
        sizes = ", ".join(f"{name}: {value}" for name, value in plain.items())
        made = f"constructor(sizes) {{ Object.assign(this, {{ {sizes} }}, sizes); check(this); }}"
    else:
        sizes = ", ".join(f"{name} = {value}" for name, value in plain.items())
        kept = " ".join(f"this.{name} = {name};" for name in plain)
        made = f"constructor({sizes}) {{ {kept} }}"
    tree = ast.parse(textwrap.dedent(inspect.getsource(given))).body[0]
    written = [
        f"{'get ' if node.decorator_list else ''}{node.name}{translator.function(node)}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in methods
    ]
    return f"class {given.__name__} {{ {made} {' '.join(written)} }}"

"""The places of a file where one token can be changed, and the changes.

A sign or an operator swapped, a number changed, a minus, a negation, a `stop_gradient` or a `1 -` dropped, the branches
of a `where` swapped, an axis changed, a minimum for a maximum, a sum for a mean, `frozen` for `live`. Left alone:
strings, annotations, imports, defaults in the body of a class (they are settings), `__post_init__`, what is raised and
the condition of an `if` that does nothing but raise, and arguments of `eval_shape`, of which only shapes count.
"""

import ast
import copy
from dataclasses import dataclass
from typing import Any

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
PAIRS = (("minimum", "maximum"), ("min", "max"), ("argmin", "argmax"), ("sum", "mean"), ("any", "all"))
NAMES = {name: other for pair in PAIRS for name, other in (pair, pair[::-1])}
LEFT_ALONE = (ast.Import, ast.ImportFrom, ast.Raise, ast.Assert, ast.JoinedStr)
TYPE_LEVEL = ("eval_shape", "isinstance")
CONTAINERS = (ast.Tuple, ast.List, ast.ListComp, ast.Dict, ast.DictComp, ast.JoinedStr)


@dataclass(frozen=True)
class Mutant:
    """One change: the characters from `begin` to `end` (line from 1, column in bytes) of the file become `after`."""

    path: str  # from the repository's root
    begin: tuple[int, int]
    end: tuple[int, int]
    line: str  # the line on which the change begins, without its indentation
    before: str
    after: str

    @property
    def change(self) -> str:
        return f"{self.before} -> {self.after}"

    def applied(self, source: str) -> str:
        """The file with the change made."""
        lines = source.encode().splitlines(keepends=True)
        (first, start), (last, stop) = self.begin, self.end
        head, tail = lines[first - 1][:start], lines[last - 1][stop:]
        # Brackets, as the change may bind less than what is around it; a statement (`x += 1`) takes none.
        after = f"({self.after})" if isinstance(ast.parse(self.after).body[0], ast.Expr) else self.after
        changed = head + after.encode() + tail
        return b"".join([*lines[: first - 1], changed, *lines[last:]]).decode()


def mutants(source: str, path: str) -> list[Mutant]:
    """All mutants of a file, in the order of its text."""
    places = Places()
    places.visit(ast.parse(source))
    lines, found = source.splitlines(), []
    for node, changed in places.found:
        begin, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
        line = lines[node.lineno - 1].strip()
        found.append(Mutant(path, begin, end, line, ast.unparse(node), ast.unparse(changed)))
    return sorted(found, key=lambda mutant: (mutant.begin, mutant.end, mutant.after))


class Places(ast.NodeVisitor):
    """Collects pairs of a node and what it is changed into."""

    def __init__(self):
        self.found: list[tuple[ast.AST, ast.AST]] = []
        self.arguments: list[set[str]] = []

    def change(self, node: ast.AST, **fields) -> None:
        changed = copy.copy(node)
        for name, value in fields.items():
            setattr(changed, name, value)
        self.found.append((node, changed))

    def all(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    # What is left alone.

    def visit(self, node):
        if not isinstance(node, LEFT_ALONE):
            super().visit(node)

    def visit_AnnAssign(self, node):
        if self.arguments:
            self.all(node.value)

    def visit_ClassDef(self, node):
        self.all(*(one for one in node.body if isinstance(one, ast.FunctionDef)))

    def visit_If(self, node):
        if all(isinstance(one, ast.Raise) for one in node.body):
            self.all(*node.orelse)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node):
        if node.name != "__post_init__":
            self.function(node, node.body)

    def visit_Lambda(self, node):
        self.function(node, [node.body])

    def function(self, node, body: list) -> None:
        given = node.args
        every = (*given.posonlyargs, *given.args, *given.kwonlyargs)
        self.arguments.append({one.arg for one in every}.union(*self.arguments))
        self.all(*given.defaults, *given.kw_defaults, *body)
        self.arguments.pop()

    # What is changed.

    def visit_Constant(self, node):
        value: Any = node.value
        if type(value) in (int, float):
            self.change(node, value=type(value)({0: 1, 1: 2}.get(value, 2 * value)))

    def visit_UnaryOp(self, node):
        if not isinstance(node.op, ast.UAdd):
            self.found.append((node, node.operand))
        self.generic_visit(node)

    def visit_BinOp(self, node):
        kind = OPERATORS.get(type(node.op))
        of_arrays = not any(isinstance(side, CONTAINERS) or text(side) for side in (node.left, node.right))
        aliased = isinstance(node.op, ast.BitOr) and not self.arguments  # a union of types
        if kind and of_arrays and not aliased:
            self.change(node, op=kind())
        if isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Constant) and node.left.value == 1:
            self.found.append((node, node.right))
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        kind = OPERATORS.get(type(node.op))
        if kind and not isinstance(node.op, ast.BitOr) and not isinstance(node.value, CONTAINERS):
            self.change(node, op=kind())
        self.visit(node.value)

    def visit_BoolOp(self, node):
        self.change(node, op=OPERATORS[type(node.op)]())
        self.generic_visit(node)

    def visit_Compare(self, node):
        for i, op in enumerate(node.ops):
            if type(op) in OPERATORS:
                self.change(node, ops=[*node.ops[:i], OPERATORS[type(op)](), *node.ops[i + 1 :]])
        self.generic_visit(node)

    def visit_Call(self, node):
        name = last(node.func)
        if name in TYPE_LEVEL:
            return
        if name == "where" and len(node.args) == 3:
            self.change(node, args=[node.args[0], node.args[2], node.args[1]])
        if name == "stop_gradient":
            self.found.append((node, node.args[0]))
        self.generic_visit(node)

    def visit_keyword(self, node):
        axis = ast.unparse(node.value)
        if node.arg == "axis" and axis.removeprefix("-").isdecimal():
            self.found.append((node.value, ast.Constant(1 if axis == "0" else 0)))
        else:
            self.visit(node.value)

    def visit_Attribute(self, node):
        if node.attr in NAMES and last(node.value) != "tree":
            self.change(node, attr=NAMES[node.attr])
        self.generic_visit(node)

    def visit_Name(self, node):
        other = {"frozen": "live", "live": "frozen"}.get(node.id)
        if node.id in ("min", "max"):
            self.change(node, id=NAMES[node.id])
        elif other and self.arguments and other in self.arguments[-1]:
            self.change(node, id=other)


def last(node: ast.expr) -> str:
    """The last name of a dotted one, '' of anything else."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)

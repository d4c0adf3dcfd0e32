"""A rule that ruff has not: an array is never overwritten with a slice of itself (`make lint` runs this).

    x.at[1:].set(x[:-1])                     lax.dynamic_update_slice(x, x[:-1], ...)

XLA writes such an update in place on CPUs where a reshape follows, and then reads what it has written already
(openxla/xla issue 49176; wrong in jaxlib 0.10.2 and 0.11.2 alike). `jnp.concatenate` and `jnp.roll` are safe.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("jaxrl", "envs", "experiments", "docs", "tests")


def shifted_writes(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each write of a slice of an array into that array."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            target = written(node)
            if target is not None and any(slices(argument, target) for argument in node.args):
                yield node.lineno, ast.unparse(node)


def written(call: ast.Call) -> str | None:
    """The array that a call writes into: of `x.at[...].set(...)` and its kin, and of `dynamic_update_slice(x, ...)`."""
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Subscript):
        at = function.value.value
        if isinstance(at, ast.Attribute) and at.attr == "at" and sliced(function.value.slice):
            return ast.unparse(at.value)
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name.startswith("dynamic_update_slice") and call.args:
        return ast.unparse(call.args[0])
    return None


def sliced(index: ast.expr) -> bool:
    """Whether an index holds a range other than the whole axis."""
    return any(isinstance(node, ast.Slice) and (node.lower or node.upper or node.step) for node in ast.walk(index))


def slices(argument: ast.expr, array: str) -> bool:
    """Whether an expression holds a range of that array, or a dynamic slice of it."""
    for node in ast.walk(argument):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == array and sliced(node.slice):
            return True
        if isinstance(node, ast.Call) and "dynamic_slice" in ast.unparse(node.func) and node.args:
            return ast.unparse(node.args[0]) == array
    return False


def main() -> int:
    found = 0
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for line, text in shifted_writes(path.read_text()):
                found += 1
                print(f"{path.relative_to(ROOT)}:{line}: {text}: XLA gets this wrong on CPUs; use jnp.concatenate.")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())

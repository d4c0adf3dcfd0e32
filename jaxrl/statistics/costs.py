"""What a compiled program computes and moves, read from its optimised HLO (`compiled.as_text()`).

`compiled.cost_analysis()` counts the body of a loop once, and so a scan of 1,000 steps as one. Here a loop counts as
often as XLA knows it to run. Otherwise an operation is what XLA counts as one: for each output element of an
elementwise op, whatever its type, two for each multiply-add of a product, one for each element that a reduction takes
in. Transcendentals count as one each, apart. What has no formula here (a library's factorisation) is named.

Bytes are what the ops that run on their own, fusions among them, read and write: operands and results in full, but of a
slice or a gather only what is taken, and of an update in place only what is written. Caches can spare memory some of
that traffic, and nothing adds to it: it is an upper bound of what memory sees.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cache
from typing import NamedTuple


@dataclass(frozen=True)
class Cost:
    """Sums, so that `a + b`, `a - b` and `a * n` mean what they say.

    Attributes:
        flops: operations, transcendentals not among them.
        transcendentals: exponentials, roots, powers, tanh and the like.
        bytes: read and written by ops that run on their own.
        ops: how many of those run.
        open_loops: runs of loops whose length only the data decides.
        uncounted: what was not counted as arithmetic, by the name of the op or of what it calls.
    """

    flops: int = 0
    transcendentals: int = 0
    bytes: int = 0
    ops: int = 0
    open_loops: int = 0
    uncounted: frozenset[str] = frozenset()

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(self._sums(), other._sums())), self.uncounted | other.uncounted)

    def __sub__(self, other: "Cost") -> "Cost":
        return self + other * -1

    def __mul__(self, n: int) -> "Cost":
        return Cost(*(a * n for a in self._sums()), self.uncounted)

    def _sums(self) -> list[int]:
        return [getattr(self, field.name) for field in fields(self)[:-1]]


class Array(NamedTuple):
    dims: tuple[int, ...]
    bytes: int  # of all its elements

    @property
    def elements(self) -> int:
        return math.prod(self.dims)


Shape = list[Array]  # one array, or those of a tuple


class Op(NamedTuple):
    """One instruction: `%name = shape opcode(operands), attributes`."""

    name: str
    shape: Shape
    opcode: str
    operands: list[str]
    attributes: str
    root: bool


ELEMENTWISE = {
    "abs", "add", "and", "ceil", "clamp", "compare", "complex", "convert", "count-leading-zeros", "divide", "floor",
    "imag", "is-finite", "maximum", "minimum", "multiply", "negate", "not", "or", "popcnt", "real", "reduce-precision",
    "remainder", "round-nearest-afz", "round-nearest-even", "select", "shift-left", "shift-right-arithmetic",
    "shift-right-logical", "sign", "subtract", "xor",
}  # fmt: skip
TRANSCENDENTAL = {
    "acos", "acosh", "asin", "asinh", "atan2", "atanh", "cbrt", "cosh", "cosine", "erf", "exponential",
    "exponential-minus-one", "log", "log-plus-one", "logistic", "power", "rsqrt", "sine", "sinh", "sqrt", "tan", "tanh",
}  # fmt: skip
MOVING = {
    "bitcast-convert", "broadcast", "concatenate", "copy", "copy-start", "dynamic-slice", "dynamic-update-slice",
    "gather", "iota", "pad", "reshape", "reverse", "slice", "transpose",
}  # fmt: skip
FREE = {
    "add-dependency", "after-all", "async-done", "async-update", "bitcast", "constant", "copy-done", "domain",
    "get-tuple-element", "opt-barrier", "parameter", "partition-id", "replica-id", "tuple",
}  # fmt: skip
TAKING = {"slice", "dynamic-slice", "gather"}  # these read no more of their first operand than they give
PLACING = {"dynamic-update-slice", "scatter"}  # these write no more of it than they are given


def cost(text: str, trips: int = 1, branch: Callable[..., Cost] = max) -> Cost:
    """The cost of running a program once.

    Args:
        text: `jax.jit(f).lower(*args).compile().as_text()`.
        trips: how often a loop runs whose length only the data decides.
        branch: which branch of a conditional counts, by operations and then bytes: `max` or `min`.
    """
    computations, entry = parsed(text)

    @cache
    def within(name: str) -> Cost:
        """What a fused or applied computation computes; what it moves is the affair of the op that calls it."""
        return summed(name, computed)

    @cache
    def executed(name: str) -> Cost:
        """A computation whose ops run one by one."""
        return summed(name, ran)

    def summed(name: str, each: Callable[[Op, list[Shape]], Cost]) -> Cost:
        shapes = {op.name: op.shape for op in computations[name]}
        return sum((each(op, [shapes[name] for name in op.operands]) for op in computations[name]), Cost())

    def ran(op: Op, operands: list[Shape]) -> Cost:
        if op.opcode in FREE:
            return Cost()
        if op.opcode == "while":
            known = re.search(r'"known_trip_count":\{"n":"(\d+)"', op.attributes)
            turn = sum(map(executed, callees(op)), Cost())
            return turn * int(known[1]) if known else turn * trips + Cost(open_loops=1)
        if op.opcode == "conditional":
            return branch(map(executed, callees(op)), key=lambda one: (one.flops + one.transcendentals, one.bytes))
        if op.opcode in ("call", "async-start"):
            return executed(callees(op)[0])
        fused = op.opcode == "fusion"
        moved = through(computations[callees(op)[0]]) if fused else touched(op, operands)
        return computed(op, operands) + Cost(bytes=moved, ops=1)

    def computed(op: Op, operands: list[Shape]) -> Cost:
        if op.opcode in MOVING | FREE:
            return Cost()
        made, given = op.shape[0].elements, operands[0][0] if operands else Array((0,), 0)
        called = lambda: within(callees(op)[0])
        if op.opcode in ELEMENTWISE:
            return Cost(flops=made)
        if op.opcode in TRANSCENDENTAL:
            return Cost(transcendentals=made)
        if op.opcode in ("fusion", "call"):
            return called()
        if op.opcode == "reduce":
            return called() * (given.elements - made)
        if op.opcode == "reduce-window":
            return called() * (made * (math.prod(window(op, "size")) - 1))
        if op.opcode == "scatter":
            return called() * operands[-1][0].elements
        if op.opcode == "sort":  # comparisons
            length = given.dims[numbers(op, r"dimensions=\{")[0]]
            return Cost(flops=given.elements * max(length - 1, 0).bit_length())
        if op.opcode == "convolution":
            return Cost(flops=convolved(op, given.dims, operands[1][0].dims))
        target = "".join(re.findall(r'custom_call_target="([^"]*)"', op.attributes))
        if op.opcode == "dot" or target.startswith("__cublas"):  # whose calls keep a dot's numbers as their own
            sums = numbers(op, r'lhs_contracting_dim(?:s=\{|ensions":\[)')
            return Cost(flops=2 * made * math.prod(given.dims[i] for i in sums))
        return Cost(uncounted=frozenset([target or op.opcode]))

    return executed(entry)


def convolved(op: Op, data: tuple[int, ...], kernel: tuple[int, ...]) -> int:
    """Operations of a convolution: what falls on padding, or between dilated inputs, is not computed."""
    inputs, kernels, outputs = re.findall(r"dim_labels=(\w+)_(\w+)->(\w+)", op.attributes)[0]
    out = op.shape[0].dims
    pairs = 1  # of an input and a weight that meet, over all places of an output, axis by axis
    for i, extent in enumerate(window(op, "size")):
        stride, spread, gap = (window(op, name)[i] for name in ("stride", "rhs_dilate", "lhs_dilate"))
        length = (data[inputs.index(str(i))] - 1) * gap + 1
        starts = [o * stride - window(op, "pad")[i] for o in range(out[outputs.index(str(i))])]
        places = [start + k * spread for start in starts for k in range(extent)]
        pairs *= sum(0 <= place < length and place % gap == 0 for place in places)
    return 2 * pairs * out[outputs.index("b")] * out[outputs.index("f")] * kernel[kernels.index("i")]


def window(op: Op, field: str) -> list[int]:
    """One field of `window={size=3x3 stride=2x2 pad=1_1x1_1}`, a number for each dimension (of a pad, the lower)."""
    said = dict(word.split("=") for word in re.findall(r"window=\{([^}]*)\}", op.attributes)[0].split())
    size = said["size"].split("x")
    words = said[field].split("x") if field in said else [str(int(field != "pad"))] * len(size)
    return [int(word.split("_")[0]) for word in words]


# ---------------------------------------------------------------------------------------------------------- bytes


def touched(op: Op, operands: list[Shape]) -> int:
    """Bytes that an op reads and writes."""
    if op.opcode in TAKING:
        return 2 * size(op.shape) + sum(map(size, operands[1:]))
    if op.opcode in PLACING:
        return written(op, operands) + sum(map(size, operands[targets(op) :]))
    return size(op.shape) + sum(map(size, operands))


def through(ops: Iterable[Op]) -> int:
    """Bytes that a fusion reads and writes: an operand from which it only takes slices is not read in full."""
    named = {op.name: op for op in ops}

    def origin(name: str) -> str:
        while named[name].opcode == "bitcast":
            name = named[name].operands[0]
        return name

    root = next(op for op in named.values() if op.root)
    results = [named[origin(name)] for name in (root.operands if root.opcode == "tuple" else [root.name])]
    placed = [op for op in results if op.opcode in PLACING]
    total = sum(size(op.shape) for op in results if op not in placed)
    total += sum(written(op, [named[name].shape for name in op.operands]) for op in placed)
    for op in named.values():
        if op.opcode == "parameter":
            users = [user for user in named.values() if user.opcode not in ("bitcast", "tuple")]
            uses = [(user, [i for i, name in enumerate(user.operands) if origin(name) == op.name]) for user in users]
            # The first operand of what takes slices is read slice by slice, and that of an update in place not at all.
            part = lambda user: size(user.shape) if user.opcode in TAKING else 0
            sliced = lambda user, at: at == [0] and (user.opcode in TAKING or user in placed)
            read = sum(part(user) if sliced(user, at) else size(op.shape) for user, at in uses if at)
            total += min(read, size(op.shape))
    return total


def written(op: Op, operands: list[Shape]) -> int:
    """Bytes of the updates of an op of PLACING."""
    n = targets(op)
    return sum(map(size, operands[n + 1 :] if op.opcode == "scatter" else operands[n : n + 1]))


def targets(op: Op) -> int:
    """The arrays that an op of PLACING changes: its first operands. A scatter has as many updates, and its indices."""
    return len(op.operands) // 2 if op.opcode == "scatter" else 1


def size(shape: Shape) -> int:
    return sum(array.bytes for array in shape)


# -------------------------------------------------------------------------------------------------------- reading


def parsed(text: str) -> tuple[dict[str, list[Op]], str]:
    """The computations of a module by name, and the name of the one that it runs."""
    computations, entry, ops = {}, "", []
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            ops = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif said := re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$", line):
            ops.append(instruction(said[2], re.sub(r"/\*.*?\*/", "", said[3]), bool(said[1])))
    return computations, entry


def instruction(name: str, said: str, root: bool) -> Op:
    end = closing(said) if said.startswith("(") else said.index(" ")
    shape, (opcode, rest) = said[:end], said[end:].strip().split("(", 1)
    end = closing("(" + rest) - 1
    return Op(name, arrays(shape), opcode, re.findall(r"%([\w.\-]+)", rest[:end]), rest[end:], root)


def arrays(shape: str) -> Shape:
    """`(f32[2,3]{1,0}, pred[])` as arrays: predicates take a byte, tokens nothing."""
    found = []
    for kind, extent in re.findall(r"(\w+)\[([^\]]*)\]", shape):
        dims = tuple(int(n) for n in re.findall(r"\d+", extent))
        bits = int((re.findall(r"\d+", kind) or [8 * (kind == "pred")])[0])
        found.append(Array(dims, math.prod(dims) * bits // 8))
    return found or [Array((0,), 0)]


def closing(text: str) -> int:
    """Behind the parenthesis that closes the one with which a text begins."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"no closing parenthesis in: {text[:80]}")


def callees(op: Op) -> list[str]:
    """The computations that an op calls."""
    listed = re.findall(r"branch_computations=\{([^}]*)\}", op.attributes)
    one = r"(?:calls|to_apply|condition|body|true_computation|false_computation)=%?([\w.\-]+)"
    return re.findall(r"[\w.\-]+", listed[0]) if listed else re.findall(one, op.attributes)


def numbers(op: Op, start: str) -> list[int]:
    """The numbers of an attribute that begins so, up to its closing bracket."""
    return [int(n) for n in re.findall(r"\d+", re.findall(start + r"([^\]}]*)", op.attributes)[0])]

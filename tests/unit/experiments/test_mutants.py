"""Mutation testing: which tokens it changes and which it leaves alone, who is killed, and what it says."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.mutants import __main__ as program
from experiments.mutants import trial
from experiments.mutants.places import mutants
from jaxrl.errors import BadInput

MODULE = '''"""A doc of 1 - 2."""
import math

WIDE = int | float


class Config:
    lr: float = 1e-3

    def __post_init__(self):
        if self.lr < 0:
            raise ValueError(f"lr is {self.lr + 1}")

    def rate(self):
        return self.lr + 3


def loss(live, frozen, x: "int | float", axis: int = 5):
    """Minus 1."""
    if x > 7:
        raise ValueError("x is " + str(8 * x))
    return where(x < 0, -x, stop_gradient(frozen)) * (1 - x)
'''


def changes(source: str) -> set[str]:
    return {mutant.change for mutant in mutants(source, "a.py")}


def body(expression: str) -> set[str]:
    """The changes of one expression, in a function of what a loss is given."""
    return changes(f"def f(live, frozen, x, y):\n    return {expression}\n")


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("x + y", {"x + y -> x - y"}),
        ("x / y", {"x / y -> x * y"}),
        ("x & y", {"x & y -> x | y"}),
        ("x and y", {"x and y -> x or y"}),
        ("x <= y", {"x <= y -> x < y"}),
        ("x == y", {"x == y -> x != y"}),
        ("-x", {"-x -> x"}),
        ("~x", {"~x -> x"}),
        ("not x", {"not x -> x"}),
        ("f(0, 1, 0.25)", {"0 -> 1", "1 -> 2", "0.25 -> 0.5"}),
        ("1 - x", {"1 - x -> 1 + x", "1 - x -> x", "1 -> 2"}),
        ("x.min(axis=-1)", {"x.min -> x.max", "-1 -> 0"}),
        ("jnp.sum(x, axis=0)", {"jnp.sum -> jnp.mean", "0 -> 1"}),
        ("x.argmax(axis=1)", {"x.argmax -> x.argmin", "1 -> 0"}),
        ("max(x, y)", {"max -> min"}),
        ("jax.lax.stop_gradient(x)", {"jax.lax.stop_gradient(x) -> x"}),
        ("where(x, live, y)", {"where(x, live, y) -> where(x, y, live)", "live -> frozen"}),
        ("frozen['actor']", {"frozen -> live"}),
        ("jax.eval_shape(lambda: 1 + x)", set()),
        ("jax.tree.all(x)", set()),
        ("isinstance(x, int | float)", set()),
        ("'a' + x", set()),
        ("f'{x + 1}'", set()),
        ("(x,) + y", set()),
    ],
)
def test_what_one_token_becomes(expression, expected):
    assert body(expression) == expected


def test_what_is_no_term_is_left_alone():
    """Docs, annotations, settings and their checks, imports, and what is raised."""
    found = changes(MODULE)
    assert found == {
        "self.lr + 3 -> self.lr - 3", "3 -> 6", "5 -> 10", "x < 0 -> x <= 0", "0 -> 1", "-x -> x", "1 - x -> 1 + x",
        "1 - x -> x", "1 -> 2", "stop_gradient(frozen) -> frozen", "frozen -> live",
        "where(x < 0, -x, stop_gradient(frozen)) -> where(x < 0, stop_gradient(frozen), -x)",
        "where(x < 0, -x, stop_gradient(frozen)) * (1 - x) -> where(x < 0, -x, stop_gradient(frozen)) / (1 - x)",
    }  # fmt: skip


def test_a_change_touches_nothing_else():
    """Also where a line holds letters of several bytes, and where what is put in binds less than what is around it."""
    source = "def f(x):\n    y = 'é' * g(x * 2) ** 3  # as it was\n    x += 1\n    return y\n"
    applied = {mutant.change: mutant.applied(source) for mutant in mutants(source, "a.py")}
    assert applied["x * 2 -> x / 2"] == source.replace("x * 2", "(x / 2)")
    assert applied["x += 1 -> x -= 1"] == source.replace("x += 1", "x -= 1")
    assert applied["3 -> 6"] == source.replace("3", "(6)")


def test_every_file_of_the_product_can_be_changed():
    for path in program.files():
        source = (program.ROOT / path).read_text()
        for mutant in program.drawn(mutants(source, path), 2, seed=0):
            assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source)), mutant


def test_a_draw_is_by_the_seed_and_no_matter_of_other_files():
    one, other = mutants(MODULE, "a.py"), mutants(MODULE, "b.py")
    first = program.drawn(one + other, 12, seed=0)
    assert len(set(first)) == 12 and first == program.drawn(other + one, 12, seed=0)
    assert set(first) != set(program.drawn(one + other, 12, seed=1))
    grown = program.drawn([*one, *other, *mutants("def g(x):\n    return x + 1\n", "c.py")], 12, seed=0)
    assert len(set(first) & set(grown)) >= 10
    assert {mutant.path for mutant in first} == {"a.py", "b.py"}


HALF = "def half(x):\n    return x / 2 if x > 0 else slow(x)\n\n\ndef slow(x):\n    return x\n"
TESTS = "from jaxrl import half\n\n\ndef test_half():\n    assert half(4) == 2 and half(-1) == -1\n"
# What stands in place of the second line's expression, and what becomes of it.
TOLD = {
    "x / 2 if x > 0 else slow(x)": "survived",
    "x * 2 if x > 0 else slow(x)": "killed",
    "x / 2 if x >= 0 else slow(x)": "survived",
    "nothing": "killed",
    "slow(x) if x < 0 else __import__('time').sleep(60)": "timeout",
}
JUDGE = """
import json, sys
from pathlib import Path
from experiments.mutants import trial
from experiments.mutants.places import Mutant

trial.ROOT, trial.HEAVY = Path(sys.argv[1]), ("jax", "pytest")
seconds = lambda after: 4.0 if "sleep" in after else 60.0
mutants = [Mutant("jaxrl/__init__.py", (2, 11), (2, 38), "", "", after) for after in json.loads(sys.argv[2])]
trials = [(mutant, ["tests/test_half.py"], seconds(mutant.after)) for mutant in mutants]
trials += [(None, ["-k", "nothing", "tests/test_half.py"], 60.0), (None, ["tests/test_half.py"], 60.0)]
for mutant, tests, outcome in trial.verdicts(trials, 2):
    print(json.dumps([mutant.after if mutant else tests[0], outcome.verdict, outcome.said]))
"""


def test_killed_survived_and_late(tmp_path):
    """Mutants of a package of one line, each in a copy whose folder comes first; from a process without threads."""
    for folder, name, text in (("jaxrl", "__init__.py", HALF), ("tests", "test_half.py", TESTS)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    judge = [sys.executable, "-c", JUDGE, str(tmp_path), json.dumps(list(TOLD))]
    lines = subprocess.run(judge, cwd=program.ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    found = {after: (verdict, said) for after, verdict, said in map(json.loads, lines)}
    expected = {**TOLD, "-k": "no tests", "tests/test_half.py": "survived"}
    assert {after: verdict for after, (verdict, _) in found.items()} == expected
    assert "test_half" in found["x * 2 if x > 0 else slow(x)"][1]
    assert (tmp_path / "jaxrl" / "__init__.py").read_text() == HALF


def test_what_a_record_says(monkeypatch, tmp_path):
    found = mutants(MODULE, "jaxrl/a.py")[:4]
    verdicts = ("killed", "survived", "timeout", "survived")
    explained = {"jaxrl/a.py": {found[1].line: {found[1].change: "as nothing asks"}}}
    monkeypatch.setattr(program, "EXPLAINED", tmp_path / "explained.json")
    program.EXPLAINED.write_text(json.dumps(explained))
    record = program.summary([(one, trial.Outcome(verdict, 1.0)) for one, verdict in zip(found, verdicts)])
    assert (record["mutants"], record["killed"], record["of_which_by_time"], record["share"]) == (4, 2, 1, 0.5)
    assert record["files"] == {"jaxrl/a.py": {"killed": 1, "survived": 2, "timeout": 1}}
    assert [one["explained"] for one in record["survivors"]] == ["as nothing asks", None]


def test_every_explanation_is_of_a_place_that_is_there():
    for path, lines in json.loads(program.EXPLAINED.read_text()).items():
        there = {(mutant.line, mutant.change) for mutant in mutants((program.ROOT / path).read_text(), path)}
        told = {(line, change) for line, changes in lines.items() for change in changes}
        assert told <= there, f"{path}: {sorted(told - there)}"


def test_every_file_has_tests():
    for path in program.BESIDE:
        assert (program.ROOT / path).is_file(), path
    for path in program.files():
        assert all((program.ROOT / test).is_file() for test in program.tests_of(path)), path


@pytest.mark.parametrize(
    "args, words",
    [
        (["--count", "0"], "count is 0"),
        (["--workers", "-1"], "workers is -1"),
        (["--all"], "name the files"),
        (["--paths", "jaxrl/nothing.py"], "no file"),
        (["--paths", "tests/small.py"], "no file of jaxrl"),
        (["--counts", "3"], "--count"),
    ],
)
def test_what_cannot_be_asked(args, words):
    with pytest.raises(BadInput, match=words):
        program.parse(args)


def test_the_tests_of_a_file_come_from_its_own_room():
    assert program.tests_of("jaxrl/agents/sac.py") == ["tests/unit/agents/test_sac.py"]
    assert Path(program.tests_of("jaxrl/core.py")[-1]).name == "test_core.py"

"""Environments by name: a table, `package:name` and `module:factory` ids, and other packages' entry points.

Nothing heavy is imported at module level: a command line lists and suggests names without waiting for jax.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from envs import adapters, arm, classic, control, factored, grid, gym, legged, memory, tabular
from envs.entry import Entry

if TYPE_CHECKING:
    from jaxrl.core import Env

GROUP = "jaxrl.envs"  # the entry-point group: `name = "package.module:factory"`


FAMILIES = (arm, classic, control, factored, grid, gym, legged, memory, tabular)

TABLE = {
    **{name: entry for family in FAMILIES for name, entry in family.TABLE.items()},
    **{f"probe-{n}": Entry("envs.probes:probe", settings={"n": n}) for n in range(1, 6)},
    "random-walk": Entry("envs.probes:random_walk"),
    "drifting-series": Entry("envs.probes:drifting_series"),
}


def declared() -> dict[str, Any]:
    """The entry points of other installed packages, by name."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """All ids that `make` knows without an import, sorted."""
    return sorted({*TABLE, *declared()})


def foreign(id: str) -> bool:
    """Whether `make` or `adapters.host` imports a module that the id itself names, of nobody that is known here.

    Names of the table, of packages with an adapter and of declared entry points are known.
    """
    if id in TABLE or id in declared():
        return False
    package, _, name = id.partition(":")
    known = package in adapters.PURE or package in adapters.HOST
    return not known or ":" in name  # gymnasium imports MODULE of 'gymnasium:MODULE:id'


def default_repeat(id: str) -> int:
    """The action repeat that the literature runs this environment with; 1 where the table does not say."""
    if id.startswith("dm_control:"):  # the same tasks on another engine, with our hyphens or with its underscores
        id = id.removeprefix("dm_control:").replace("_", "-")
    return TABLE[id].repeat if id in TABLE else 1


def make(id: str, repeat: int = 1, **settings: Any) -> Env:
    """The environment of that id, its actions held for `repeat` steps.

    Args:
        id: a name from `names()`, 'package:name' of another package (`envs.adapters`), or 'module:factory' of anything
            that can be imported.
        repeat: action repeat; `default_repeat(id)` gives the usual one.
        **settings: arguments of the factory.

    Raises:
        BadInput: the id, its module or its factory does not exist; the factory does not take these settings or does
            not return an Env.
    """
    from envs.core import action_repeat

    entry = TABLE.get(id) or adapters.entry(id) or (Entry(id) if ":" in id else None)
    factory = _declared_factory(id) if entry is None else _imported(id, entry.target)
    settings = {**(entry.settings if entry else {}), **settings}
    env = replace(_called(id, factory, settings), name=id)
    return env if repeat == 1 else action_repeat(env, repeat)


def _declared_factory(id: str):
    from jaxrl.core import BadInput, unknown

    points = declared()
    if id not in points:
        raise unknown("environment", id, names())
    try:
        return points[id].load()
    except (ImportError, AttributeError) as error:
        raise BadInput(
            f"environment '{id}' is declared as {points[id].value}, which does not load: {error}."
        ) from error


def _imported(id: str, target: str):
    from jaxrl.core import BadInput, unknown

    module_name, _, factory = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:  # malformed names raise the latter two
        missing = getattr(error, "name", None)
        own = missing is None or module_name == missing or module_name.startswith(f"{missing}.")
        reason = "there is no such module" if own else f"it needs '{missing}', which is not installed"
        if isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError):
            reason = " ".join(str(error).split())  # a name that a module lacks, a library that does not load
        raise BadInput(f"environment '{id}': cannot import '{module_name}': {reason}.") from error
    if not callable(getattr(module, factory, None)):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise BadInput(f"environment '{id}': {unknown(f'factory in {module_name}', factory, known)}")
    return getattr(module, factory)


def _called(id: str, factory, settings: dict[str, Any]) -> Env:
    from jaxrl.core import BadInput, Env

    try:
        signature = inspect.signature(factory)
    except ValueError as error:
        raise BadInput(f"environment '{id}': its factory has no signature: wrap it in a function.") from error
    try:
        signature.bind(**settings)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise BadInput(f"environment '{id}': {error}; its factory takes {takes}.") from error
    env = factory(**settings)
    if not isinstance(env, Env):
        raise BadInput(f"environment '{id}': its factory returned a {type(env).__name__}; it must return an Env.")
    return env


def check_env(env: Env, steps: int | None = None) -> list[str]:
    """What is wrong with an environment, in readable sentences; empty where nothing is.

    Args:
        steps: length of the trial; None suits the environment's limit, 0 looks at shapes alone and compiles nothing.
    """
    from envs.checks import findings

    return findings(env, steps)


def check(env: Env, steps: int | None = None) -> None:
    """Raise `BadInput` with the first findings of `check_env`, remarks that begin with 'note:' aside."""
    from jaxrl.core import BadInput

    faults = [finding for finding in check_env(env, steps) if not finding.startswith("note:")]
    if faults:
        raise BadInput(f"environment '{getattr(env, 'name', env)}': {' '.join(faults[:3])}")

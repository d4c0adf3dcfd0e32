"""Environments of other packages, as 'package:name'. Nothing is imported before one is asked for.

`PURE` ones are written in JAX and become an Env like any other. `HOST` ones are simulators outside JAX: Python steps
them outside the compiled loop (`jaxrl.host`), so that `make` refuses them and `host` makes them.
"""

import importlib
from types import ModuleType
from typing import Any

from envs.entry import Entry
from jaxrl.errors import BadInput

PURE = {
    "brax": "envs.adapters.brax:environment",
    "craftax": "envs.adapters.craftax:environment",
    "gymnax": "envs.adapters.gymnax:environment",
    "playground": "envs.adapters.playground:environment",
}
HOST = {
    "dm_control": "envs.adapters.dm_control:simulated",
    "gymnasium": "envs.adapters.gymnasium:simulated",
}


def entry(id: str) -> Entry | None:
    """The line of a package's environment, as `make` reads it; None where the part before the colon is no package.

    Raises:
        BadInput: the environment is a simulator on the host.
    """
    package, _, name = id.partition(":")
    if package in HOST:
        raise BadInput(
            f"environment '{id}' runs on the host, outside jit, and is no pure Env: make it with "
            "envs.adapters.host(id), or train on it with experiments.train."
        )
    return Entry(PURE[package], settings={"name": name}) if package in PURE else None


def on_host(id: str) -> bool:
    """Is this the id of a simulator on the host?"""
    return id.partition(":")[0] in HOST


def host(id: str, repeat: int = 1, **settings: Any):
    """The `jaxrl.host.Host` of that id, its actions held for `repeat` steps.

    Args:
        **settings: arguments of the package's own constructor.

    Raises:
        BadInput: no package that is known here, one that is not installed, or a name that it does not have.
    """
    from jaxrl.errors import unknown

    package, _, name = id.partition(":")
    if package not in HOST:
        raise unknown("package of host environments", package, HOST)
    module, _, factory = HOST[package].partition(":")
    return getattr(importlib.import_module(module), factory)(name, repeat, **settings)


def needed(module: str, id: str, extra: str | None) -> ModuleType:
    """A module of another package; where it cannot be imported, a sentence that says which extra brings it.

    Args:
        extra: of ours; None where the package comes with jaxrl itself.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        install = f"'jaxrl[{extra}]'" if extra else "jaxrl"
        reason = str(error).splitlines()[0] if str(error) else "it is not installed"
        package = module.partition(".")[0]
        raise BadInput(
            f"environment '{id}' needs the package '{package}' ({reason}): pip install {install}."
        ) from error


def built(id: str, make: Any, *args: Any, **settings: Any) -> Any:
    """What a package's constructor returns; what it objects to is one sentence."""
    try:
        return make(*args, **settings)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"environment '{id}' cannot be made: {reason}") from error

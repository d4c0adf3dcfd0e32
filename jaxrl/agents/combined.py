"""Agents as sums: 'drqv2+taco+moe' is DrQ-v2 with two additions.

An addition is a module that exports `Config` and `add(recipe, specs, config, base) -> Recipe`, which puts it on top of
a recipe whose own numbers are `base`. What cannot be put on top goes in from below: `seams(specs, config, base)`, where
there is one, gives keyword arguments for the base's `recipe`. `NUMBERS`, where there are any, are the base's as the
addition's paper has them. The sum's `Config` is the base's, with a field for each addition's.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

from jaxrl.agents import addends
from jaxrl.core import BadInput, Recipe, Specs


def find(name: str) -> ModuleType | SimpleNamespace:
    """What exports `Config` and `recipe` for an agent's name, as `jaxrl.agents.addends` reads it: a module, or a sum.

    Raises:
        BadInput: as `addends`; or a module that cannot be imported, or lacks what it has to export.
    """
    target, additions = addends(name)
    base = loaded(target, "agent", ("Config", "recipe"))
    return summed(base, {n: loaded(t, "addition", ("Config", "add")) for n, t in additions.items()})


def loaded(target: str, kind: str, wanted: Sequence[str]) -> ModuleType:
    """A module that exports these."""
    try:
        module = importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name and (target == error.name or target.startswith(f"{error.name}.")):
            raise BadInput(f"{kind} '{target}': there is no module '{error.name}' here to import.") from error
        raise BadInput(f"{kind} '{target}' needs '{error.name}', which is not installed.") from error
    except ImportError as error:  # a name that a module lacks, a library that does not load
        raise BadInput(f"{kind} '{target}' cannot be imported: {' '.join(str(error).split())}.") from error
    for export in wanted:
        if not hasattr(module, export):
            listed = " and ".join(wanted)
            raise BadInput(f"{kind} '{target}': module {target} has no '{export}'; an {kind} exports {listed}.")
    return module


def summed(base: ModuleType, additions: dict[str, ModuleType]) -> ModuleType | SimpleNamespace:
    """`Config` and `recipe` of the base with these additions, put on in that order; the base itself without any."""
    if not additions:
        return base
    inherited = {field.name: field.type for field in dataclasses.fields(base.Config)}
    wanted = {name: value for module in additions.values() for name, value in getattr(module, "NUMBERS", {}).items()}
    changed = {name: value for name, value in wanted.items() if name in inherited}
    kind = dataclasses.make_dataclass(
        "Config",
        [(name, inherited[name], dataclasses.field(default=value)) for name, value in changed.items()]
        + [(name, one.Config, dataclasses.field(default_factory=one.Config)) for name, one in additions.items()],
        bases=(base.Config,),
        frozen=True,
    )

    def recipe(specs: Specs, config: Any) -> Recipe:
        seams = {}
        for name, module in additions.items():
            given = module.seams(specs, getattr(config, name), config) if hasattr(module, "seams") else {}
            for seam in given:
                if seam in seams:
                    raise BadInput(f"'{name}' and an addition before it both change the agent's {seam}: choose one.")
                if not takes(base.recipe, seam):
                    raise BadInput(f"'{name}' changes an agent's {seam}, which this one fixes: try drqv2+{name}.")
            seams |= given
        made = base.recipe(specs, config, **seams)
        for name, module in additions.items():
            made = module.add(made, specs, getattr(config, name), config)
        return made

    return SimpleNamespace(Config=kind, recipe=recipe)


def takes(fn: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that name."""
    return name in inspect.signature(fn).parameters


def configured(kind: type, settings: dict[str, Any]) -> Any:
    """A configuration with these fields changed; an addition's are a dict under its name."""
    usual = kind()
    inner = {name: configured(type(getattr(usual, name)), v) for name, v in settings.items() if isinstance(v, dict)}
    return kind(**{**settings, **inner})

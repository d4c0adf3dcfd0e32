"""Play the policy of a run, and print one JSON line.

    python -m experiments.evaluate runs/NAME --episodes 32

From Python:

    from experiments.evaluate import load
    policy = load("runs/NAME")
    action = policy(obs)            policy.env is the environment; policy.step(obs, memory) for agents with memory

A run directory is data. Names of jaxrl's own agents and environments, of packages with an adapter and of declared entry
points load; modules of others that a run names are imported only if they are named here too: `--trust NAME`.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import TRUST, agent_module, answer, compile_cache, environment, flags, quiet_stdout, say_json
from jaxrl.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Options:
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="the run's directory")]
    episodes: Annotated[int, tyro.conf.arg(help="to play, for each seed")] = 8
    trust: Annotated[tuple[str, ...], tyro.conf.arg(help=TRUST)] = ()


def builder(trust: Collection[str] = ()) -> Callable[[dict[str, Any]], Any]:
    """`about -> (env, recipe)` of what a run was made with.

    Args:
        trust: names of agents, additions and environments of others that may be imported.

    Raises:
        BadInput (the function): a name of others that is not trusted; a field that is missing, or no such thing.
    """

    def build(about: dict[str, Any]):
        checked(about, trust)
        module = agent_module(about["agent"])
        env, _ = environment(about["env"], about["repeat"], about.get("pixels"), tried=True)
        try:
            config = read(module.Config, about["config"])
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"the run's configuration is not one of {about['agent']}: {error}.") from error
        return env, module.recipe(env.specs, config)

    return build


def checked(about: dict[str, Any], trust: Collection[str]) -> None:
    """Raise `BadInput` for what a run's manifest must not ask for."""
    from envs.registry import foreign as foreign_environment
    from jaxrl.agents import foreign as foreign_agents

    kinds = {"agent": str, "env": str, "repeat": int, "config": dict}
    for name, kind in kinds.items():
        if not isinstance(about.get(name), kind) or isinstance(about[name], bool):
            raise BadInput(f"the run's {name} is {about.get(name)!r}, not a {kind.__name__}: its manifest was edited.")
    if not isinstance(about.get("pixels"), int | None):
        raise BadInput(f"the run's pixels is {about['pixels']!r}, not a number or null: its manifest was edited.")
    named = [("agent", word) for word in foreign_agents(about["agent"])]
    named += [("environment", about["env"])] if foreign_environment(about["env"]) else []
    for kind, name in named:
        if name not in trust:
            raise BadInput(
                f"the run names the {kind} '{name}', which is not jaxrl's own: loading it would run that module's "
                f"code. If you know it, add --trust {name} (in Python, trust=('{name}',))."
            )


def read(kind: type, stored: dict[str, Any]) -> Any:
    """A configuration from its JSON: the opposite of `experiments.train.written`."""
    default = kind()

    def value(name: str) -> Any:
        was, now = getattr(default, name), stored[name]
        if dataclasses.is_dataclass(was) and isinstance(now, dict):
            return read(type(was), now)
        if was is not None and now is not None and sort(was) != sort(now):
            raise TypeError(f"{name} is {now!r}, where {was!r} is usual")
        return tuple(now) if isinstance(now, list) else now

    return kind(**{field.name: value(field.name) for field in dataclasses.fields(kind) if field.name in stored})


def sort(value: Any) -> str:
    """What a value is in JSON: whole and real numbers are one sort, tuples are lists."""
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "list", tuple: "list", dict: "dict"}
    return kinds.get(type(value), type(value).__name__)


def load(run: str | Path, seed: int | None = None, trust: Collection[str] = ()):
    """The policy of a run; see `jaxrl.run.load`, and `builder` of `trust`."""
    from jaxrl.run import load

    return load(run, builder(trust), seed)


def main(args: Sequence[str]) -> int:
    options = flags(Options, args, "experiments.evaluate", __doc__)
    with quiet_stdout():
        compile_cache()
        from jaxrl.run.checkpoint import fingerprint
        from jaxrl.run.evaluation import returns, saved
        from jaxrl.run.sinks import plain
        from jaxrl.statistics import interval, iqm

        run = saved(options.run, builder(options.trust))
        scores = returns(run, options.episodes)
        low, high = map(plain, interval(scores))
        line = {
            "return_iqm": float(iqm(scores)),
            "return_low": low,
            "return_high": high,
            "episodes": options.episodes,
            "seeds": len(run.runs.seeds),
            "diverged": sorted(run.diverged),
            "steps": run.step,
            "parameters_sha256": fingerprint(run.parts),
            "run": str(options.run),
        }
    say_json(line)
    return 0


if __name__ == "__main__":
    answer(main, at_once=True)

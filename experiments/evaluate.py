"""Play the policy of a run, and print one JSON line.

    python -m experiments.evaluate runs/NAME --episodes 32

From Python:

    from experiments.evaluate import load
    policy = load("runs/NAME")
    action = policy(obs)            policy.env is the environment; policy.step(obs, memory) for agents with memory
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import agent_module, answer, compile_cache, environment, flags, quiet_stdout, say_json


@dataclasses.dataclass(frozen=True)
class Options:
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="the run's directory")]
    episodes: Annotated[int, tyro.conf.arg(help="to play, for each seed")] = 8


def build(about: dict[str, Any]):
    """(env, recipe) of what a run was made with."""
    module = agent_module(about["agent"])
    env, _ = environment(about["env"], about["repeat"], about.get("pixels"), tried=True)
    return env, module.recipe(env.specs, read(module.Config, about["config"]))


def read(kind: type, stored: dict[str, Any]) -> Any:
    """A configuration from its JSON: the opposite of `experiments.train.written`."""
    default = kind()

    def value(name: str) -> Any:
        was, now = getattr(default, name), stored[name]
        if dataclasses.is_dataclass(was):
            return read(type(was), now)
        return tuple(now) if isinstance(now, list) else now

    return kind(**{field.name: value(field.name) for field in dataclasses.fields(kind) if field.name in stored})


def load(run: str | Path, seed: int | None = None):
    """The policy of a run; see `jaxrl.run.load`."""
    from jaxrl.run import load

    return load(run, build, seed)


def main(args: Sequence[str]) -> int:
    options = flags(Options, args, "experiments.evaluate", __doc__)
    with quiet_stdout():
        compile_cache()
        from jaxrl.run.checkpoint import fingerprint
        from jaxrl.run.evaluation import returns, saved
        from jaxrl.run.sinks import plain
        from jaxrl.statistics import interval, iqm

        run = saved(options.run, build)
        scores = returns(run, options.episodes)
        low, high = map(plain, interval(scores))
        line = {
            "return_iqm": float(iqm(scores)),
            "return_low": low,
            "return_high": high,
            "episodes": options.episodes,
            "seeds": len(run.runs.seeds),
            "steps": run.step,
            "parameters_sha256": fingerprint(run.parts),
            "run": str(options.run),
        }
    say_json(line)
    return 0


if __name__ == "__main__":
    answer(main)

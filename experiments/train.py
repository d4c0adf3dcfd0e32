"""Train an agent on an environment, or continue a run.

    python -m experiments.train --agent sac --env cartpole-swingup --steps 100000 --run runs/mine [--resume [--at STEP]]

The last line of stdout is one JSON object. Exit codes: 0 finished, or stopped by SIGTERM or SIGHUP and saved; 1 numbers
are no longer finite, of all seeds ("diverged" lists those of some); 2 bad input, or an end that could not be saved,
said in one sentence; 130 interrupted: a first SIGINT saves after the chunk, a second one does not wait for it.
"""

import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import (
    agent_module,
    answer,
    check_env,
    compile_cache,
    environment,
    flags,
    peek,
    quiet_stdout,
    say_json,
    without,
)
from jaxrl.agents import AGENTS, addends
from jaxrl.errors import BadInput

PROGRAM = "experiments.train"


def told(help: str, **how: Any) -> Any:
    return tyro.conf.arg(help=help, **how)


@dataclasses.dataclass(frozen=True)
class Options:
    name: Annotated[
        str,
        told(
            f"one of {', '.join(AGENTS)}; or package.module; with '+' additions. With --help, lists its own flags.",
            name="agent",
        ),
    ] = "sac"
    env: Annotated[str, told("an environment by name, or module:factory")] = "cartpole-swingup"
    steps: Annotated[int, told("frames to train for, action repeat counted; rounded up to whole chunks")] = 100_000
    seed: Annotated[int, told("of the first seed")] = 0
    seeds: Annotated[int, told("trained in one process, counting on from --seed")] = 1
    run: Annotated[str | None, told("the run's directory; default runs/AGENT-ENV-SEED")] = None
    resume: Annotated[bool, told("continue what the directory holds; starts afresh where that is nothing")] = False
    at: Annotated[int | None, told("with --resume: from the checkpoint of this step; newer ones are set aside")] = None
    repeat: Annotated[int | None, told("frames for which an action is held; default what the task is run with")] = None
    pixels: Annotated[int | None, told("side of the pictures to learn from in place of the state")] = None
    evaluate_episodes: Annotated[int, told("of the greedy policy after each chunk, for each seed")] = 8
    chunk: Annotated[int | None, told("frames between checkpoints and logs; default a twentieth of the run")] = None
    saving: Annotated[float, told("largest share of the wall time spent on checkpoints")] = 0.05
    wandb: Annotated[bool, told("record to Weights & Biases too")] = False


def parse(args: Sequence[str]) -> tuple[Any, Any]:
    """(options, the agent's module). Names are checked first; without --agent, help leaves the agents unimported."""
    agent = peek(args, "--agent", Options.name)
    addends(agent)
    check_env(peek(args, "--env", Options.env))
    if {"-h", "--help"} & set(args) and not peek(args, "--agent", ""):
        flags(Options, args, PROGRAM, __doc__)  # answers and exits
    module = agent_module(agent)
    own = dataclasses.field(default_factory=module.Config)
    both = dataclasses.make_dataclass("Options", [("agent", module.Config, own)], bases=(Options,), frozen=True)
    return flags(both, args, PROGRAM, __doc__), module


def finite(config: Any, prefix: str = "agent") -> None:
    """Raise `BadInput` for the first number of a configuration that is not finite, which its record could not hold."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(value):
            finite(value, name)
        entries = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(entry) for entry in entries if isinstance(entry, float)):
            raise BadInput(f"{name} is {value}; give a finite number (or None, where its help names it).")


def main(args: Sequence[str]) -> int:
    options, module = parse(args)
    finite(options.agent)
    with quiet_stdout():
        compile_cache()
        from jaxrl.run import Diverged, Settings, execute

        run = options.run or f"runs/{options.name}-{options.env.replace(':', '-')}-{options.seed}"
        again = without(args, "--at")
        again = [word for word in again if word not in ("--resume", "--no-resume")]
        settings = Settings(
            **{f.name: getattr(options, f.name) for f in dataclasses.fields(Settings) if hasattr(options, f.name)},
            again=shlex.join([python(), "-m", PROGRAM, *again, "--resume"]),
        )
        env, repeat = environment(
            options.env, options.repeat, options.pixels, tried=(Path(run) / "checkpoints").exists()
        )
        recipe = module.recipe(env.specs, options.agent)
        about = {
            "agent": options.name,
            "env": options.env,
            "repeat": repeat,
            "pixels": options.pixels,
            "config": written(options.agent),
        }
        try:
            line = execute(env, recipe, run, settings, about)
        except Diverged as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    say_json(line)
    return 130 if line.get("signal") == "SIGINT" else 0


def python() -> str:
    """This interpreter, as one would type it here."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def written(config: Any) -> dict[str, Any]:
    """A configuration as JSON: dataclasses as dicts, tuples as lists, anything else by its repr."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(name): plain(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return value if isinstance(value, str | int | float | bool | None) else repr(value)

    return plain(dataclasses.asdict(config))


if __name__ == "__main__":
    answer(main, at_once=True)

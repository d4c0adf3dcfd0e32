"""Watch the policy of a run, or random actions in an environment, and print one JSON line.

    python -m experiments.play runs/NAME --video            an MP4, beside the run's other files
    python -m experiments.play --env cheetah-run --gif --sheet

Pictures are drawn on the device, a whole film in one compiled scan.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import TRUST, answer, check_env, compile_cache, environment, flags, quiet_stdout, say_json
from jaxrl.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Options:
    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(help="the run's directory")] = None
    env: Annotated[str | None, tyro.conf.arg(help="an environment to play at random, instead of a run")] = None
    video: Annotated[bool, tyro.conf.arg(help="write an MP4")] = False
    gif: Annotated[bool, tyro.conf.arg(help="write a GIF; what is written where nothing is asked for")] = False
    sheet: Annotated[bool, tyro.conf.arg(help="write a PNG of 12 evenly spaced pictures")] = False
    seconds: Annotated[float, tyro.conf.arg(help="length of the film")] = 8.0
    fps: Annotated[int, tyro.conf.arg(help="pictures a second, one for each step that the agent acts")] = 25
    size: Annotated[int, tyro.conf.arg(help="pixels a side")] = 240
    camera: Annotated[str | None, tyro.conf.arg(help="a camera of the model; none is the usual one")] = None
    seed: Annotated[int, tyro.conf.arg(help="of starts and of random actions")] = 0
    trust: Annotated[tuple[str, ...], tyro.conf.arg(help=TRUST)] = ()
    out: Annotated[Path | None, tyro.conf.arg(help="files, without their suffix")] = None


def film(env, act, memory, steps: int, shape: tuple[int, int], camera: str | None):
    """`(key) -> (frames uint8 [steps, H, W, 3], rewards float32 [steps])`, beginning again where an episode ends.

    Args:
        act: (obs, memory, key) -> (action, memory); memory: () -> what an episode begins with.
    """
    import jax

    from envs.core import bare
    from jaxrl.core import fold

    def play(key):
        def step(carry, i):
            state, obs, held = carry
            frame = env.draw(bare(state), shape, camera)
            key_action, key_reset = jax.random.split(fold(key, i + 1))
            action, held = act(obs, held, key_action)
            state, out = env.step(state, action)

            def again():
                state, out = env.reset(key_reset)
                return state, out.obs, memory()

            after = jax.lax.cond(out.end, again, lambda: (state, out.obs, held))
            return after, (frame, out.reward.sum())

        state, out = env.reset(fold(key, 0))
        return jax.lax.scan(step, (state, out.obs, memory()), jax.numpy.arange(steps))[1]

    return play


def player(options: Options):
    """(environment, act, memory, its name) of a run or of random actions."""
    if options.run is None:
        env, _ = environment(options.env, None, tried=True)
        return env, lambda obs, memory, key: (env.specs.action.sample(key), memory), tuple, options.env
    from experiments.evaluate import load

    policy = load(options.run, trust=options.trust)
    return policy.env, lambda obs, memory, key: policy.step(obs, memory), policy.memory, policy.env.name


def check(options: Options) -> None:
    """Raise `BadInput` for what can be seen before anything is loaded."""
    if (options.run is None) == (options.env is None):
        raise BadInput("name one of the two: a run's directory, or --env and an environment.")
    if options.env is not None:
        check_env(options.env)
    if options.size < 1:
        raise BadInput(f"size is {options.size}; a picture has at least 1 pixel a side.")
    if options.fps < 1:
        raise BadInput(f"fps is {options.fps}; at least 1 picture a second is needed.")
    if round(options.seconds * options.fps) < 1:
        raise BadInput(f"seconds is {options.seconds}, less than one picture at {options.fps} a second.")


def write(options: Options, frames: Any, out: Path) -> list[str]:
    """The files asked for; a GIF where none is."""
    from jaxrl.run import video

    made = []
    if options.video:
        made.append(video.mp4(frames, out.with_name(f"{out.name}.mp4"), options.fps))
    if options.sheet:
        made.append(video.sheet(frames, out.with_name(f"{out.name}.png")))
    if options.gif or not made:
        made.append(video.gif(frames, out.with_name(f"{out.name}.gif"), options.fps))
    return [str(path) for path in made]


def main(args: Sequence[str]) -> int:
    options = flags(Options, args, "experiments.play", __doc__)
    check(options)
    with quiet_stdout():
        compile_cache()
        import jax
        import numpy as np

        env, act, memory, name = player(options)
        if getattr(env, "draw", None) is None:
            raise BadInput(f"{name} has no picture: an environment is watched through its `draw`.")
        steps, shape = round(options.seconds * options.fps), (options.size, options.size)
        play = jax.jit(film(env, act, memory, steps, shape, options.camera))
        frames, rewards = jax.tree.map(np.asarray, play(jax.random.key(options.seed)))
        out = options.out or (options.run / "play" if options.run else Path("runs") / f"play-{options.env}")
        line = {"files": write(options, frames, out), "steps": steps, "reward": float(rewards.sum()), "env": name}
    say_json(line)
    return 0


if __name__ == "__main__":
    answer(main, at_once=True)

"""What recipes share: checks of their numbers and of the action space, each refusal one sentence, and schedules."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl.core import Agent, BadInput, Batch, Box, Discrete, Event, Key, Parts, PyTree, Recipe, Specs, below, unknown
from jaxrl.nets import T2T, Conv, ConViT, Impala, Net, net, side_after


def at_least(config: Any, **lowest: float) -> None:
    """Raise `BadInput` for the first field below its lowest value, or of such entries. Traced values are left alone."""
    for name, low in lowest.items():
        value = getattr(config, name)
        if not all(entry >= low for entry in numbers(value)):
            raise BadInput(f"{name} is {value}; it must be at least {low}.")


def within(config: Any, **ranges: tuple[float, float]) -> None:
    """Raise `BadInput` for the first field outside its closed range, or with entries that are. Traced values pass."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not all(low <= entry <= high for entry in numbers(value)):
            raise BadInput(f"{name} is {value}; it must lie between {low} and {high}.")


def numbers(value: Any) -> tuple[float, ...]:
    """A number, or those of a tuple, as far as they are known before anything is traced."""
    entries = value if isinstance(value, tuple) else (value,)
    return tuple(entry for entry in entries if isinstance(entry, int | float))


def falling(lr: float | jax.Array, frames: int) -> float | jax.Array | Callable[[jax.Array], jax.Array]:
    """A learning rate that falls linearly to 0 over that many frames; constant where they are 0.

    The clock is that of a tick's beginning: the first update has the whole rate, and the last still has some.
    """
    return lr if frames == 0 else lambda now: lr * jnp.maximum(1 - now / frames, 0)


def fading(tx: optax.GradientTransformation, share: float | jax.Array) -> optax.GradientTransformation:
    """An optimiser by which every parameter also falls by a share of itself at each step, whatever the rate is."""
    if isinstance(share, int | float) and share == 0:
        return tx
    return optax.chain(tx, optax.add_decayed_weights(-share))


def vector(agent: str, observation: PyTree) -> int:
    """The length of an observation that is one vector; `BadInput` for any other, and for an empty one."""
    shape = getattr(observation, "shape", None)
    if shape is None or len(shape) != 1:
        what = "a pytree" if shape is None else f"of shape {shape}"
        remedy = "wrap the environment in flat_observation(env)"
        if seen_as_image(observation):
            what, remedy = (
                f"images of shape {shape}",
                "take drq or drqv2, which see, or wrap it in flat_observation(env)",
            )
        raise BadInput(f"{agent} needs observations that are one vector, and these are {what}: {remedy}.")
    if shape[0] == 0:
        raise BadInput(f"{agent} needs observations, and these are empty: show at least one number, if a constant.")
    return shape[0]


def seen_as_image(observation: PyTree) -> bool:
    return len(getattr(observation, "shape", ())) == 3 and observation.dtype == jnp.uint8


def image(agent: str, observation: PyTree) -> tuple[int, int, int]:
    """Height, width and channels of an observation that is one image; `BadInput` for any other."""
    if not seen_as_image(observation):
        raise BadInput(
            f"{agent} learns from images (uint8 [H, W, C]), and these observations are none: try --pixels 84."
        )
    return observation.shape


def encoder(agent: str, observation: PyTree, config: Any) -> tuple[Net, jax.ShapeDtypeStruct]:
    """A config's `encoder`, and the features that it makes of one picture.

    'conv' has the config's `channels`, `strides` and `sizes`; the others have sizes of their own, for 48 to 84 pixels.

    Raises:
        BadInput: the observation is no image or one of a size that does not suit, or the three are not equally long.
    """
    side = min(image(agent, observation)[:2])
    patch = next((size for size in (8, 12, 7, 6) if side % size == 0), 8)
    kinds = {"conv": lambda: convolutions(side, config), "impala": Impala, "convit": lambda: ConViT(patch), "t2t": T2T}
    if config.encoder not in kinds:
        raise unknown("encoder", config.encoder, kinds)
    made = net(kinds[config.encoder](), observation)
    return made, jax.eval_shape(lambda key, obs: made.apply(made.init(key), obs), jax.random.key(0), observation)


def convolutions(side: int, config: Any) -> Conv:
    """The convolutions of a config, for images of that side."""
    layers = {name: len(getattr(config, name)) for name in ("channels", "strides", "sizes")}
    if len(set(layers.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in layers.items())
        raise BadInput(f"{listed} layers of the encoder: give as many of each.")
    if side_after(side, config.strides, config.sizes) < 1:
        raise BadInput(f"images of {side} pixels are too small for strides of {config.strides}: drop a layer.")
    return Conv(config.channels, config.strides, config.sizes)


def vision(agent: str, observation: PyTree, config: Any) -> tuple[Net, jax.ShapeDtypeStruct]:
    """As `encoder`, where images are shown; a vector is its own features. Raises BadInput for anything else."""
    if seen_as_image(observation):
        return encoder(agent, observation, config)
    vector(agent, observation)
    return Net(lambda key: (), lambda parameters, obs: obs), observation


def further(name: str, agent: Agent, own: Callable[[Key, Parts], Parts]) -> Callable[[Key], Parts]:
    """`init` of an agent with further parts, made from a key and the parts that are there: these stay what they were.

    Args:
        name: of the addition, by which it has a key of its own.

    Raises:
        BadInput: a part of that name is there already.
    """

    def init(key):
        parts = agent.init(key)
        more = own(jax.random.fold_in(key, zlib.crc32(name.encode())), parts)
        for part in more:
            if part in parts:
                raise BadInput(f"the agent has a part '{part}' already: two additions of one kind do not go together.")
        return {**parts, **more}

    return init


def viewed(name: str, agent: Agent, *wanted: str) -> Mapping[str, Callable[..., Any]]:
    """The agent's views; `BadInput` where one is lacking that the addition `name` looks through."""
    for view in wanted:
        if view not in agent.views:
            raise BadInput(f"{name} looks at an agent's {view}, which this one does not show: try drqv2+{name}.")
    return agent.views


def present(agent: Agent, *names: str) -> tuple[str, ...]:
    """Those of some parts that the agent has."""
    return tuple(name for name in names if name in agent.shapes)


def experienced(name: str, recipe: Recipe) -> Callable[[PyTree], Batch]:
    """All that a recipe's source holds, as a function of its state; `BadInput` where it does not keep it."""
    if recipe.source.everything is None:
        raise BadInput(f"{name} learns from all that was experienced, which this agent's source does not keep.")
    return recipe.source.everything


def rows(key: Key, weight: jax.Array, count: int) -> jax.Array:
    """Places drawn from those whose weight [S] is above 0, again and again: int32 [count]."""
    last = jnp.cumsum(weight > 0)
    return jnp.searchsorted(last, 1 + below(key, (count,), jnp.maximum(last[-1], 1)))


def tick(recipe: Recipe, specs: Specs) -> int:
    """Frames by which a tick moves the clock."""
    return recipe.num_envs * recipe.unroll * specs.frames


def periodic(name: str, period: int, fn: Callable[..., Any], recipe: Recipe, specs: Specs) -> Event:
    """An event each so many frames, rounded up to whole ticks."""
    return Event(-(-period // tick(recipe, specs)) * tick(recipe, specs), fn, name)


def stacked(agent: str, specs: Specs) -> int:
    """How many RGB frames an observation shows, so that replay stores each once.

    Raises:
        BadInput: the observation is no image, or shows more frames than an episode has.
    """
    frames = max(image(agent, specs.observation)[2] // 3, 1)
    if specs.limit is not None and frames > specs.limit + 1:
        raise BadInput(
            f"observations are stacks of {frames} frames, and an episode has {specs.limit + 1}, its first one counted: "
            "lower --repeat or the stack."
        )
    return frames


def continuous(agent: str, action: Box | Discrete) -> int:
    """The number of action dimensions of a Box of [-1, 1]; `BadInput` for any other space."""
    if not isinstance(action, Box):
        raise BadInput(
            f"{agent} acts in continuous spaces, and this environment's actions are {action}: try dqn or ppo."
        )
    if len(action.shape) != 1:
        raise BadInput(f"{agent} needs actions of one axis, not of shape {action.shape}: flatten them in a wrapper.")
    if action.shape[0] == 0:
        raise BadInput(f"{agent} needs at least 1 number of an action, and this environment's have none.")
    if not jnp.issubdtype(action.dtype, jnp.floating):
        raise BadInput(f"{agent} acts in real numbers, and this environment in {action}: wrap it in scale_action(env).")
    if not (np.all(np.asarray(action.low) == -1) and np.all(np.asarray(action.high) == 1)):  # also inside a trace
        raise BadInput(
            f"{agent} acts in [-1, 1], and this environment in [{action.low}, {action.high}]: "
            "wrap it in scale_action(env)."
        )
    return action.shape[0]


def discrete(agent: str, action: Box | Discrete) -> int:
    """The number of actions of a Discrete space; `BadInput` for any other."""
    if not isinstance(action, Discrete):
        raise BadInput(f"{agent} chooses among discrete actions, and this environment's are {action}: try sac or ppo.")
    return action.n

"""gymnasium, both ways, tested with 1.4.0: 'gymnasium:Pendulum-v1' on the host, and an Env as a vector environment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.adapters import built, needed
from envs.adapters.simulators import repeated, scaled, spec
from envs.core import concatenated, is_plain, vectors
from jaxrl.core import BadInput, Box, Discrete, Env, PyTree, Specs, unknown
from jaxrl.host import Host
from jaxrl.simulators import Step, number


class Simulated:
    """One gymnasium environment, its observations and actions as our specs have them."""

    def __init__(self, env: Any, show: Callable, scale: Callable):
        self.env, self.show, self.scale = env, show, scale

    def reset(self, seed: int) -> PyTree:
        try:
            out = self.env.reset(seed=seed)
        except TypeError as error:
            if "seed" not in str(error):
                raise
            raise BadInput("reset takes no seed, so that no run could be repeated: give it reset(seed=None)") from error
        if not (isinstance(out, tuple) and len(out) == 2):
            raise BadInput("reset returned no (observation, info), as gymnasium's environments do")
        return self.show(out[0])

    def step(self, action: np.ndarray) -> Step:
        out = self.env.step(self.scale(action))
        if not (isinstance(out, tuple) and len(out) == 5):
            many = len(out) if isinstance(out, tuple) else 1
            raise BadInput(
                f"step returned {many} value{'s' * (many > 1)}, where gymnasium's environments return 5: observation, "
                "reward, terminated, truncated, info"
            )
        obs, reward, terminated, truncated, _ = out
        return Step(self.show(obs), number(reward), bool(terminated), bool(truncated))

    def close(self) -> None:
        self.env.close()


def simulated(name: str, repeat: int = 1, **settings: Any) -> Host:
    """The host environment of a registered id.

    Args:
        **settings: of `gymnasium.make`.

    Raises:
        BadInput: no such id, or a space without a counterpart here.
    """
    id = f"gymnasium:{name}"
    gymnasium = needed("gymnasium", id, "gymnasium")
    if name not in gymnasium.registry and ":" not in name:  # 'module:id' imports what registers it
        raise unknown("gymnasium environment", name, gymnasium.registry)

    def make() -> Any:
        try:
            return built(id, gymnasium.make, name, **settings)
        except gymnasium.error.Error as error:
            raise BadInput(f"environment '{id}' cannot be made: {' '.join(str(error).split())}") from error

    simulator = repeated(lambda: Simulated(make(), show, scale), repeat)
    one = make()
    action, scale = _actions(gymnasium.spaces, one.action_space, id)
    observation, raw = _observations(gymnasium.spaces, one.observation_space, id)
    plain = is_plain(observation)
    layout = () if plain else vectors(observation)
    show = raw if plain else lambda obs: concatenated(raw(obs), np)
    seen = observation if plain else spec((sum(size for _, size in layout),))
    steps = one.spec and one.spec.max_episode_steps
    limit = None if steps is None else -(-steps // repeat)
    one.close()
    return Host(simulator, Specs(seen, action, repeat, limit, layout=layout), id)


def _actions(spaces: Any, space: Any, id: str) -> tuple[Box | Discrete, Callable]:
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n)), lambda action: space.start + int(action)
    if isinstance(space, spaces.Box):
        box, scale = scaled(id, space.low, space.high, whole=np.issubdtype(space.dtype, np.integer))
        return box, lambda action: scale(action).astype(space.dtype)
    raise BadInput(f"environment '{id}' has actions of {space}: only a Box and a Discrete are adapted.")


def _observations(spaces: Any, space: Any, id: str) -> tuple[PyTree, Callable]:
    """(specs, gymnasium's observation -> ours): bytes stay bytes, other numbers float32, a Discrete one-hot; a Dict and
    a Tuple are pytrees of these."""
    if isinstance(space, spaces.Box):
        dtype = np.uint8 if space.dtype == np.uint8 else np.float32
        return spec(space.shape, dtype), lambda obs: np.asarray(obs, dtype)
    if isinstance(space, spaces.Discrete):
        rows = np.eye(int(space.n), dtype=np.float32)
        return spec((int(space.n),)), lambda obs: rows[int(obs - space.start)]
    if isinstance(space, spaces.Dict):
        parts = {name: _observations(spaces, inner, id) for name, inner in space.items()}
        show = lambda obs: {name: one(obs[name]) for name, (_, one) in parts.items()}
        return {name: shape for name, (shape, _) in parts.items()}, show
    if isinstance(space, spaces.MultiDiscrete) and len(space.nvec.shape) == 1:
        space = spaces.Tuple([spaces.Discrete(n, start=start) for n, start in zip(space.nvec, space.start)])
    if isinstance(space, spaces.MultiBinary):
        return spec(space.shape), lambda obs: np.asarray(obs, np.float32)
    if isinstance(space, spaces.Tuple):
        shapes, shows = zip(*(_observations(spaces, inner, id) for inner in space.spaces))
        return shapes, lambda obs: tuple(show(one) for show, one in zip(shows, obs))
    raise BadInput(
        f"environment '{id}' has observations of {space}: only numbers, and Dicts and Tuples of them, are adapted."
    )


# ---------------------------------------------------------------------------------------------- ours, as gymnasium's


def to_gymnasium(env: Env, num_envs: int = 1, seed: int = 0):
    """An Env as a `gymnasium.vector.VectorEnv`, stepped by one compiled program.

    It resets in the same step: where an episode ended, the observation is the next one's first, `final_obs` and
    `final_info` in the info hold what the ending step showed. Actions are in the Env's own bounds.

    Args:
        seed: of the first episodes, until `reset(seed=...)` gives another.

    Raises:
        BadInput: gymnasium is not installed; rewards of several agents.
    """
    needed("gymnasium", env.name, "gymnasium")
    from envs.adapters.vector import Vector

    return Vector(env, num_envs, seed)


def space_of(spec: Any) -> Any:
    """gymnasium's space of an action or an observation of ours."""
    from gymnasium import spaces

    if isinstance(spec, Discrete):
        return spaces.Discrete(spec.n, dtype=np.int32)
    if isinstance(spec, Box):
        low, high = (np.broadcast_to(np.asarray(bound, spec.dtype), spec.shape) for bound in (spec.low, spec.high))
        return spaces.Box(low, high, spec.shape, np.dtype(spec.dtype).type)
    if isinstance(spec, dict):
        return spaces.Dict({name: space_of(inner) for name, inner in spec.items()})
    if not isinstance(spec, jax.ShapeDtypeStruct):
        raise BadInput(f"an observation of {type(spec).__name__} has no space in gymnasium: make it a dict of arrays.")
    dtype = np.dtype(spec.dtype)
    if jnp.issubdtype(dtype, np.floating):
        return spaces.Box(-np.inf, np.inf, spec.shape, dtype.type)
    if dtype == np.bool_:
        return spaces.MultiBinary(spec.shape)
    return spaces.Box(np.iinfo(dtype).min, np.iinfo(dtype).max, spec.shape, dtype.type)

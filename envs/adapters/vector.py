"""The vector environment that `envs.adapters.gymnasium.to_gymnasium` makes; importing this needs gymnasium."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.adapters.gymnasium import space_of
from envs.core import Env, batched
from jaxrl.core import BadInput, PyTree


class Vector(VectorEnv):
    """`num_envs` copies of an Env; see `to_gymnasium`."""

    def __init__(self, env: Env, num_envs: int, seed: int):
        envs = batched(env, num_envs)
        self.env, self.num_envs = env, num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.single_observation_space, self.single_action_space = (
            space_of(env.specs.observation),
            space_of(env.specs.action),
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._reset, self._step = jax.jit(envs.reset), jax.jit(envs.step, donate_argnums=0)
        self._key, self._state = jax.random.key(seed), None
        if jax.eval_shape(lambda key: env.step(*_start(env, key)), self._key)[1].reward.ndim:
            raise BadInput(f"{env.name} rewards several agents, and gymnasium's vector environments one.")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[PyTree, dict[str, Any]]:
        """All environments anew; without a seed, on the episodes that follow those of the last reset."""
        super().reset(seed=seed)
        if options and "reset_mask" in options:
            raise BadInput("reset_mask is for vector environments without automatic reset: this one resets by itself.")
        self._key, key = jax.random.split(self._key if seed is None else jax.random.key(seed))
        self._state, obs = self._reset(key)
        return jax.tree.map(np.array, obs), {}

    def step(self, actions: Any) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """(observations, rewards float32, terminations, truncations, info)."""
        if self._state is None:
            raise BadInput("step came before reset: call reset() first.")
        actions = jnp.asarray(actions, self.env.specs.action.dtype)
        self._state, out, following = self._step(self._state, actions)
        out, following = jax.tree.map(np.array, (out, following))  # copies: nothing that was returned changes later
        info = {name: value for name, value in out.info.items() if name != "episode"}
        end = out.terminated | out.truncated
        if end.any():
            info |= {"final_obs": self._ended(end, out.obs), "_final_obs": end}
            info |= {
                "final_info": {"episode": {"r": out.info["episode"]["return"], "l": out.info["episode"]["length"]}}
            }
            info["_final_info"] = end
        return following, out.reward, out.terminated, out.truncated, info

    def _ended(self, end: np.ndarray, obs: PyTree) -> np.ndarray:
        """One observation for each episode that ended, None elsewhere, as gymnasium has it."""
        final = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(end):
            final[i] = jax.tree.map(lambda x, i=i: x[i], obs)
        return final


def _start(env: Env, key: jax.Array) -> tuple[PyTree, jax.Array]:
    return env.reset(key)[0], env.specs.action.sample(key)

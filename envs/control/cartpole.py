"""DM Control's cart-pole: keep a pole upright on a cart, from upright (balance) or from hanging (swingup).

Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve difficult learning control problems" (1983);
rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [5]: cart position (m), cosine and sine of the pole's angle from upright, cart velocity (m/s),
angular velocity of the pole (rad/s). Action [1]: force on the cart, +-10 N at +-1.
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key


def reset_upright(key: Key) -> State:
    """Near the centre of the rail, within 2 degrees of upright."""
    key_position, key_velocity = jax.random.split(key)
    widest = jnp.array([0.1, 0.034])  # m, rad
    qpos = widest * jax.random.uniform(key_position, (2,), minval=-1.0, maxval=1.0)
    return physics.start(qpos, 0.01 * jax.random.normal(key_velocity, (2,)))


def reset_hanging(key: Key) -> State:
    """At the centre of the rail, the pole hanging still but for noise that breaks the symmetry."""
    noise = 0.01 * jax.random.normal(key, (2, 2))
    return physics.start(jnp.array([0.0, jnp.pi]) + noise[0], noise[1])


def observe(state: State) -> jax.Array:
    position, angle = state.qpos
    return jnp.stack([position, jnp.cos(angle), jnp.sin(angle), *state.qvel])


def smooth_reward(state: State, action: jax.Array) -> jax.Array:
    """Uprightness, times factors within [1/2, 1] for the centre, [4/5, 1] for little force, [1/2, 1] for low speed."""
    position, angle = state.qpos
    upright = (1 + jnp.cos(angle)) / 2
    centred = (1 + tolerance(position, margin=2.0)) / 2
    gentle = (4 + tolerance(action[0], margin=1.0, sigmoid="quadratic", at_margin=0.0)) / 5
    slow = (1 + tolerance(state.qvel[1], margin=5.0)) / 2
    return upright * centred * gentle * slow


def sparse_reward(state: State, action: jax.Array) -> jax.Array:
    """1 where the cart is within 25 cm of the centre and the cosine of the angle above 0.995, else 0."""
    position, angle = state.qpos
    return tolerance(position, -0.25, 0.25) * tolerance(jnp.cos(angle), 0.995, 1.0)


def balance() -> Env:
    return _task("balance", reset_upright, smooth_reward)


def balance_sparse() -> Env:
    return _task("balance-sparse", reset_upright, sparse_reward)


def swingup() -> Env:
    return _task("swingup", reset_hanging, smooth_reward)


def swingup_sparse() -> Env:
    return _task("swingup-sparse", reset_hanging, sparse_reward)


def _task(name, reset, reward) -> Env:
    return physics.environment(f"cartpole-{name}", physics.load("cartpole"), reset, observe, reward)

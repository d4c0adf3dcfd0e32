"""What a walking robot is paid for: one named function a term, of what `Walk` shows, with its unit.

After Rudin et al. (2022) and Long et al., "Hybrid internal model" (2024). A control step pays the sum of weight times
term, times its duration.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

STANCE = 0.3  # m, the height wanted of the trunk above the ground below it
CLEARANCE = -0.2  # m, the height wanted of a swinging foot, in the trunk's frame
SHARP = 0.25  # m2/s2 or rad2/s2, the squared error at which tracking is worth 1/e


class Walk(NamedTuple):
    """What the terms see, in the trunk's frame where not said otherwise.

    Fields: command [3] (m/s, m/s, rad/s); linear [3] (m/s) and angular [3] (rad/s), velocities of the trunk; gravity
    [3], the unit vector down; height [] (m), of the trunk above the ground; acceleration [12] (rad/s2) and magnitude of
    power [12] (W), of the joints; feet [4, 3] (m) and swing [4, 3] (m/s), where the feet are and how they move relative
    to the trunk's origin; actions [3, 12], the last, the one before it and the one before that.
    """

    command: jax.Array
    linear: jax.Array
    angular: jax.Array
    gravity: jax.Array
    height: jax.Array
    acceleration: jax.Array
    power: jax.Array
    feet: jax.Array
    swing: jax.Array
    actions: jax.Array


def tracking_linear(walk: Walk) -> jax.Array:
    """1 where the commanded velocity is met, 1."""
    return jnp.exp(-jnp.sum((walk.command[:2] - walk.linear[:2]) ** 2) / SHARP)


def tracking_yaw(walk: Walk) -> jax.Array:
    """1 where the commanded rate of turning is met, 1."""
    return jnp.exp(-((walk.command[2] - walk.angular[2]) ** 2) / SHARP)


def bounce(walk: Walk) -> jax.Array:
    """Vertical speed, m2/s2."""
    return walk.linear[2] ** 2


def roll(walk: Walk) -> jax.Array:
    """Roll and pitch rates, rad2/s2."""
    return jnp.sum(walk.angular[:2] ** 2)


def tilt(walk: Walk) -> jax.Array:
    """The squared sine of the angle from upright, 1."""
    return jnp.sum(walk.gravity[:2] ** 2)


def jerkiness(walk: Walk) -> jax.Array:
    """Joint accelerations, rad2/s4."""
    return jnp.sum(walk.acceleration**2)


def power(walk: Walk) -> jax.Array:
    """Mechanical power of the joints, spent or absorbed, W."""
    return jnp.sum(walk.power)


def crouch(walk: Walk) -> jax.Array:
    """The trunk's height against its stance, m2."""
    return (walk.height - STANCE) ** 2


def dragging(walk: Walk) -> jax.Array:
    """Feet that move sideways off their clearance, m3/s."""
    return jnp.sum((walk.feet[:, 2] - CLEARANCE) ** 2 * jnp.linalg.norm(walk.swing[:, :2] + 1e-9, axis=1))


def action_rate(walk: Walk) -> jax.Array:
    """The change of the action, squared, 1."""
    return jnp.sum((walk.actions[0] - walk.actions[1]) ** 2)


def smoothness(walk: Walk) -> jax.Array:
    """The change of that change, squared, 1."""
    return jnp.sum((walk.actions[0] - 2 * walk.actions[1] + walk.actions[2]) ** 2)


WEIGHTS = {
    tracking_linear: 1.0,
    tracking_yaw: 0.5,
    bounce: -2.0,
    roll: -0.05,
    tilt: -0.2,
    jerkiness: -2.5e-7,
    power: -2e-5,
    crouch: -1.0,
    dragging: -0.01,
    action_rate: -0.01,
    smoothness: -0.01,
}


def total(walk: Walk) -> jax.Array:
    """The weighted sum, a second."""
    return sum((weight * term(walk) for term, weight in WEIGHTS.items()), jnp.float32(0))

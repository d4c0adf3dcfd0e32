"""DM Control's swimmer: a chain of links in a viscous plane that brings its nose to a target.

Coulom, "Reinforcement learning using neural networks, with applications to motor control" (2002); rewards and constants
as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [4 links + 1]: joint angles, the target from the nose, velocities of all links (see `observe`).
Action [links - 1]: torques of the joints, +-0.5 mN m at +-1. The state's task is the target's position [2].
"""

import functools

import jax
import jax.numpy as jnp
import mujoco

from envs.control import physics
from envs.control.physics import Model, State
from envs.control.rewards import tolerance
from jaxrl.core import BadInput, Env, Key

SUBSTEPS = 15  # of 2 ms in one control step
HALF = 0.05  # m, from the middle of a link to its joints
NOSE = 0.01  # m, before the front end of the head
TARGET = 0.1  # m, its radius
NEAR, FAR = 0.3, 2.0  # m, half the side of the square that the target is drawn from, one time in five and else


def xml(links: int) -> str:
    """The model of a swimmer of so many links; lengths in m, masses in kg, torques in N m.

    Each link is to the water a thin plate on edge (the drag of MuJoCo's inertia box), and to the eye a capsule.
    """
    bend, far = 360 / links, links / 6  # degrees, either way; the camera's distance, in those of six links
    plate = '<geom type="box" size="0.001 0.05 0.01" mass="0.01" rgba="0 0 0 0"/>'
    body = f'{plate}<geom type="capsule" fromto="0 -0.05 0 0 0.05 0" size="0.01"/>'
    chain = "".join(
        f'<body name="link_{i}" pos="0 0.1 0"><joint name="joint_{i}" range="{-bend} {bend}"/>{body}'
        for i in range(1, links)
    )
    motors = "".join(f'<motor name="motor_{i}" joint="joint_{i}"/>' for i in range(1, links))
    return f"""
    <mujoco model="swimmer">
      <option timestep="0.002" density="3000" iterations="3" ls_iterations="4">
        <flag contact="disable"/>
      </option>
      <default>
        <joint pos="0 -0.05 0" axis="0 0 1" solreflimit="0.05 1" solimplimit="0 0.8 0.1" armature="1e-6"/>
        <geom mass="0" contype="0" conaffinity="0"/>
        <motor gear="5e-4" ctrlrange="-1 1"/>
        <default class="root">
          <joint armature="0" solreflimit="0.02 1" solimplimit="0.9 0.95 0.001"/>
        </default>
      </default>
      <worldbody>
        <geom name="floor" type="plane" size="2 2 0.1"/>
        <site name="target" pos="1 1 0.05" size="0.1" rgba="0.78 0.26 0.24 1"/>
        <body name="head" pos="0 0 0.05">
          <camera name="side" pos="0 {-0.2 * far} {0.5 * far}" xyaxes="1 0 0 0 1 1" mode="trackcom" fovy="60"/>
          <joint name="x" class="root" type="slide" axis="1 0 0"/>
          <joint name="y" class="root" type="slide" axis="0 1 0"/>
          <joint name="yaw" class="root"/>
          <geom name="head" type="ellipsoid" pos="0 -0.022 0" size="0.02 0.04 0.017"/>
          <geom name="nose" pos="0 -0.06 0" size="0.004" rgba="0.27 0.60 0.62 1"/>
          {body}
          {chain}{"</body>" * (links - 1)}
        </body>
      </worldbody>
      <actuator>{motors}</actuator>
    </mujoco>"""


@functools.cache
def machine(links: int) -> Model:
    return physics.compiled(mujoco.MjModel.from_xml_string(xml(links)))


def turned(angle: jax.Array, vector: jax.Array) -> jax.Array:
    """A vector [..., 2] as it is seen in frames at those angles [...]."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = vector[..., 0], vector[..., 1]
    return jnp.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)


def to_target(state: State) -> jax.Array:
    """From the nose to the target, in the frame of the head, whose back is +y: m [2]."""
    front = state.qpos[:2] - jnp.array([0.0, HALF])  # about which the head turns
    return turned(state.qpos[2], state.task - front) + jnp.array([0.0, NOSE])


def velocities(state: State) -> jax.Array:
    """Of each link's middle in its own frame, (x, y, yaw), m/s and rad/s [links, 3].

    With u_k the unit vector along link k, its middle is at front + HALF (2 (u_0 + ... + u_(k-1)) + u_k).
    """
    angle, spin = jnp.cumsum(state.qpos[2:]), jnp.cumsum(state.qvel[2:])
    swing = -spin[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)  # the derivative of u
    middle = state.qvel[:2] + HALF * (2 * jnp.cumsum(swing, axis=0) - swing)
    return jnp.concatenate([turned(angle, middle), spin[:, None]], axis=-1)


def observe(state: State) -> jax.Array:
    """Joint angles [links - 1] (rad), the target from the nose in the head's frame [2], velocities [3 links]."""
    return jnp.concatenate([state.qpos[3:], to_target(state), velocities(state).ravel()])


def reward(state: State, action: jax.Array) -> jax.Array:
    """1 where the nose is in the target; half a metre further a tenth."""
    return tolerance(jnp.linalg.norm(to_target(state)), 0.0, TARGET, margin=5 * TARGET, sigmoid="long_tail")


def swimmer6() -> Env:
    return swimmer(6)


def swimmer15() -> Env:
    return swimmer(15)


def swimmer(links: int) -> Env:
    """The task with so many links.

    Raises:
        BadInput: fewer than 3.
    """
    if links < 3:
        raise BadInput(f"links is {links}; a swimmer has at least 3.")
    model = machine(links)
    bend = 2 * jnp.pi / links
    widest = jnp.concatenate([jnp.array([0.0, 0.0, jnp.pi]), jnp.full(links - 1, bend)])

    def reset(key: Key) -> State:
        """Any heading and any posture at rest; the target near or, four times in five, anywhere in the plane."""
        key_pose, key_near, key_target = jax.random.split(key, 3)
        qpos = widest * jax.random.uniform(key_pose, widest.shape, minval=-1.0, maxval=1.0)
        side = jnp.where(jax.random.bernoulli(key_near, 0.2), NEAR, FAR)
        target = side * jax.random.uniform(key_target, (2,), minval=-1.0, maxval=1.0)
        return physics.start(qpos, jnp.zeros(model.c.nv), target)

    def marks(state: State) -> dict[str, jax.Array]:
        return {"target": jnp.append(state.task, 0.05)}

    return physics.environment(f"swimmer{links}", model, reset, observe, reward, SUBSTEPS, marks=marks)

"""A quadruped that follows velocity commands over terrain by what its own body feels.

The task of Long et al., "Hybrid internal model: learning agile legged locomotion with simulated robot response" (2024),
after Rudin et al. (2022), with a robot of our own.

Observation, float32 [270]: six of proprioception [45], the newest first: command (forward, left, m/s, times 2; turn,
rad/s, times 0.25), angular velocity (rad/s, times 0.25), unit gravity, joint angles from their defaults (rad), joint
velocities (rad/s, times 0.05), all in the trunk's frame and with noise; and the last action. Joints are hip, thigh and
calf of the front left, front right, hind left and hind right leg.
With `privileged`, a dict: `policy`, these; `critic`, float32 [238]: the newest without noise [45], linear velocity
(times 2) [3], the force on the trunk (N) [3] and heights of 17 x 11 points of the ground, 10 cm apart [187].
Action [12]: joint angles from their defaults, a quarter of a radian at 1, held by a PD law of up to 33.5 N m.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.control import physics
from envs.control.physics import Model, State, mjx
from envs.core import time_limit
from envs.legged import rewards, terrain
from envs.legged.rewards import Walk
from envs.legged.terrain import Terrain
from jaxrl.core import Box, Env, Key, PyTree, Specs, first, fold, unknown

SUBSTEPS, DT = 4, 0.02  # physics steps of 5 ms; s
LIMIT = 1000  # control steps
HISTORY = 6
KP, KD, TORQUE = 40.0, 1.0, 33.5  # N m/rad, N m s/rad, N m
REACH = 0.25  # rad, at an action of 1
ACTION = 4.0  # the largest
STAND = np.float32([0.1, 0.8, -1.5, -0.1, 0.8, -1.5, 0.1, 1.0, -1.5, -0.1, 1.0, -1.5])  # rad
NOISE = np.repeat(np.float32([0.0, 0.05, 0.05, 0.01, 0.075, 0.0]), [3, 3, 3, 12, 12, 12])  # half its width, as observed
SPEED, TURN = 1.0, 1.0  # m/s and rad/s, the largest commands
STILL = 0.2  # m/s, below which a commanded speed is none
COMMAND, FORCE, KICK = 500, 400, 800  # control steps from one new command, force, kick to the next
HELD = 25  # control steps for which a force acts
TRUNK = 1  # the body
GRID = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 17), np.linspace(-0.5, 0.5, 11), indexing="ij"), -1).reshape(-1, 2)
CORNERS = np.stack(np.meshgrid([-0.17, 0.17], [-0.08, 0.08], [-0.055, 0.055], indexing="ij"), -1).reshape(-1, 3)
HIPS = np.array([[x, y, 0.0] for x in (0.18, -0.18) for y in (0.05, -0.05)])  # m
TILE, DEPTH = 0.2, 0.4  # m, side of a tile and half of how deep it reaches, in pictures
PAVED = TILE * np.stack(np.meshgrid(*[np.arange(-6, 7)] * 2), -1).reshape(-1, 2)
OFFSET, THIGH, CALF = 0.085, 0.2, 0.2  # m, from hip to thigh (outwards), of a thigh, of a calf


class Robot(NamedTuple):
    """How this episode's robot differs: `[low, high]` of each in `RANGES`, drawn uniformly at reset.

    Fields: payload (kg, on the trunk); centre (m [3], shift of the trunk's centre of mass); friction (of the feet, 1);
    strength [12], stiffness and damping (factors on torque, KP and KD); latency (physics steps before an action acts).
    """

    payload: jax.Array
    centre: jax.Array
    friction: jax.Array
    strength: jax.Array
    stiffness: jax.Array
    damping: jax.Array
    latency: jax.Array


RANGES = Robot((-1.0, 2.0), (-0.05, 0.05), (0.2, 1.25), (0.9, 1.1), (0.9, 1.1), (0.9, 1.1), (0.0, 3.0))
USUAL = Robot(0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0)


class Task(NamedTuple):
    """What an episode keeps beside the body.

    Fields: key; t, control steps so far, int32 []; terrain; robot; command [2] (m/s) and heading (rad, of the world),
    which is turned to; force [3] (N, on the trunk, in the world's axes); actions [3, 12], the newest first;
    acceleration [12] (rad/s2) and power [12] (W), of the last control step; walk, what the rewards see; history
    [HISTORY, 45], the newest first.
    """

    key: Key
    t: jax.Array
    terrain: Terrain
    robot: Robot
    command: jax.Array
    heading: jax.Array
    force: jax.Array
    actions: jax.Array
    acceleration: jax.Array
    power: jax.Array
    walk: Walk
    history: jax.Array


# ---------------------------------------------------------------------------------------------------- the body


@cache
def load() -> Model:
    return physics.load("quadruped", Path(__file__).parent)


@cache
def pictured() -> Model:
    """The model with tiles for a floor, which `tiles` lays on the terrain around the robot."""
    spec = mujoco.MjSpec.from_file(str(Path(__file__).parent / "quadruped.xml"))
    spec.geom("floor").rgba[3] = 0
    for i, (x, y) in enumerate(np.rint(PAVED / TILE).astype(int)):
        shade = 0.5 + 0.1 * ((x + y) % 2)
        size, rgba = [TILE / 2, TILE / 2, DEPTH], [0.9 * shade, shade, 0.9 * shade, 1]
        spec.worldbody.add_site(name=f"tile{i}", type=mujoco.mjtGeom.mjGEOM_BOX, size=size, rgba=rgba)
    return physics.compiled(spec.compile())


def tiles(height: Callable, state: State) -> dict[str, jax.Array]:
    """Where the centres of the tiles are, m [3] by name: they move by two tiles at a time, so that shades stay."""
    middle = 2 * TILE * jnp.round(state.qpos[:2] / (2 * TILE))
    places = middle + jnp.asarray(PAVED, jnp.float32)
    top = jax.vmap(height, in_axes=(None, 0))(state.task.terrain, places)
    at = jnp.concatenate([places, top[:, None] - DEPTH], axis=1)
    return {f"tile{i}": at[i] for i in range(len(PAVED))}


def feet(joints: jax.Array) -> jax.Array:
    """Centres of the feet in the trunk's frame, m [4, 3], from the joints' angles [12]."""
    hip, thigh, calf = joints.reshape(4, 3).T
    outward = jnp.asarray(np.sign(HIPS[:, 1]) * OFFSET, jnp.float32)
    forward = -THIGH * jnp.sin(thigh) - CALF * jnp.sin(thigh + calf)
    down = THIGH * jnp.cos(thigh) + CALF * jnp.cos(thigh + calf)
    sideways = jnp.cos(hip) * outward + jnp.sin(hip) * down
    upward = jnp.sin(hip) * outward - jnp.cos(hip) * down
    return jnp.asarray(HIPS, jnp.float32) + jnp.stack([forward, sideways, upward], axis=1)


def yaw(turned: jax.Array) -> jax.Array:
    """The heading of the trunk, rad []."""
    return jnp.arctan2(turned[1, 0], turned[0, 0])


def laid(normal: jax.Array) -> jax.Array:
    """Quaternions [N, 4] that turn the vertical to unit normals [N, 3]."""
    x, y, z = normal.T
    quat = jnp.stack([1 + z, -y, x, jnp.zeros_like(z)], axis=1)
    return quat / jnp.linalg.norm(quat, axis=1, keepdims=True)


def built(model: Model, robot: Robot) -> mjx.Model:
    """The device's model of this episode's robot: its inertias, and how its feet grip."""
    x = model.x
    mass = x.body_mass[TRUNK]
    return x.replace(
        body_mass=x.body_mass.at[TRUNK].add(robot.payload),
        body_inertia=x.body_inertia.at[TRUNK].multiply(1 + robot.payload / mass),
        body_ipos=x.body_ipos.at[TRUNK].add(robot.centre),
        geom_friction=x.geom_friction.at[:, 0].multiply(robot.friction),
    )


def torques(robot: Robot, state: State, action: jax.Array) -> jax.Array:
    """The PD law, N m [12]."""
    wrong = jnp.asarray(STAND) + REACH * action - state.qpos[7:]
    wanted = KP * robot.stiffness * wrong - KD * robot.damping * state.qvel[6:]
    return jnp.clip(robot.strength * wanted, -TORQUE, TORQUE)


def moved(model: Model, height: Callable, state: State, action: jax.Array) -> State:
    """The state after one control step, its joints' accelerations and powers noted."""
    task = state.task
    x = physics.under(built(model, task.robot), state.context)
    push = jnp.zeros((model.c.nbody, 6)).at[TRUNK, :3].set(task.force)

    def once(state, i):
        late = jnp.where(i < task.robot.latency, task.actions[0], action)
        control = torques(task.robot, state, late)
        stand = state.qpos[:3] + feet(state.qpos[7:]) @ physics.turned(state.qpos[3:7]).T
        point, normal = terrain.surface(height, task.terrain, stand[:, :2])
        data = model.data.replace(mocap_pos=point, mocap_quat=laid(normal), xfrc_applied=push)
        after = physics.advanced(model._replace(data=data), x, state, control)[0]
        return after, jnp.abs(control * after.qvel[6:])

    after, power = jax.lax.scan(once, state, jnp.arange(SUBSTEPS))
    acceleration = (after.qvel[6:] - state.qvel[6:]) / DT
    actions = jnp.concatenate([action[None], task.actions[:2]])
    task = task._replace(t=task.t + 1, actions=actions, acceleration=acceleration, power=power.mean(axis=0))
    return after._replace(task=task)


# ------------------------------------------------------------------------------------- what happens to the robot


def drawn(key: Key, ranges: Robot) -> Robot:
    shapes = Robot((), (3,), (), (12,), (), (), ())
    keys = jax.random.split(key, len(ranges))
    values = (
        jax.random.uniform(k, shape, minval=low, maxval=high) for k, shape, (low, high) in zip(keys, shapes, ranges)
    )
    robot = Robot(*values)
    return robot._replace(latency=jnp.round(robot.latency))


def ordered(key: Key) -> tuple[jax.Array, jax.Array]:
    """A new command: velocity (forward, left, m/s [2]) and heading (rad [])."""
    key_speed, key_heading = jax.random.split(key)
    speed = jax.random.uniform(key_speed, (2,), minval=-SPEED, maxval=SPEED)
    heading = jax.random.uniform(key_heading, (), minval=-jnp.pi, maxval=jnp.pi)
    return jnp.where(jnp.linalg.norm(speed) > STILL, speed, 0.0), heading


def disturbed(state: State, pushes: bool) -> State:
    """The state with what this control step brings: a command, a force, a kick."""
    task = state.task
    key_command, key_force, key_kick = jax.random.split(fold(task.key, task.t), 3)
    now = lambda period: (task.t % period == 0) & (task.t > 0)
    speed, heading = ordered(key_command)
    task = task._replace(
        command=jnp.where(now(COMMAND), speed, task.command), heading=jnp.where(now(COMMAND), heading, task.heading)
    )
    if pushes:
        force = jax.random.uniform(key_force, (3,), minval=-30.0, maxval=30.0)
        held = jnp.where(task.t % FORCE == HELD, 0.0, task.force)
        task = task._replace(force=jnp.where(now(FORCE), force, held))
        kick = jax.random.uniform(key_kick, (2,), minval=-1.0, maxval=1.0)
        state = state._replace(qvel=state.qvel.at[:2].add(jnp.where(now(KICK), kick, 0.0)))
    return state._replace(task=task)


def seen(height: Callable, state: State) -> State:
    """The state with what its rewards see, and its history, brought up to now."""
    task = state.task
    turned, joints = physics.turned(state.qpos[3:7]), state.qpos[7:]
    angular, spin = state.qvel[3:6], state.qvel[6:]
    wrong = task.heading - yaw(turned)
    turn = jnp.clip(0.5 * jnp.arctan2(jnp.sin(wrong), jnp.cos(wrong)), -TURN, TURN)
    at, moving = jax.jvp(feet, (joints,), (spin,))
    walk = Walk(
        command=jnp.append(task.command, turn),
        linear=state.qvel[:3] @ turned,
        angular=angular,
        gravity=-turned[2],
        height=state.qpos[2] - height(task.terrain, state.qpos[:2]),
        acceleration=task.acceleration,
        power=task.power,
        feet=at,
        swing=moving + jnp.cross(angular, at),
        actions=task.actions,
    )
    noise = jax.random.uniform(fold(task.key, task.t + LIMIT + 1), (45,), minval=-1.0, maxval=1.0)
    felt = proprioception(walk, joints, spin) + NOISE * noise
    history = jnp.where(task.t == 0, felt, jnp.concatenate([felt[None], task.history[:-1]]))
    return state._replace(task=task._replace(walk=walk, history=history))


def proprioception(walk: Walk, joints: jax.Array, spin: jax.Array) -> jax.Array:
    """What the robot's own sensors tell, without their noise, float32 [45]."""
    command = walk.command * jnp.array([2.0, 2.0, 0.25])
    parts = [command, 0.25 * walk.angular, walk.gravity, joints - jnp.asarray(STAND), 0.05 * spin, walk.actions[0]]
    return jnp.concatenate(parts)


def overseen(height: Callable, state: State) -> jax.Array:
    """What only the simulator knows, float32 [238]."""
    task, walk = state.task, state.task.walk
    heading = yaw(physics.turned(state.qpos[3:7]))
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    places = state.qpos[:2] + jnp.asarray(GRID, jnp.float32) @ jnp.array([[cos, sin], [-sin, cos]])
    below = jax.vmap(height, in_axes=(None, 0))(task.terrain, places)
    heights = 5.0 * jnp.clip(state.qpos[2] - 0.5 - below, -1.0, 1.0)
    felt = proprioception(walk, state.qpos[7:], state.qvel[6:])
    return jnp.concatenate([felt, 2.0 * walk.linear, task.force, heights])


def fallen(height: Callable, state: State) -> jax.Array:
    """A corner of the trunk touches the ground, bool []."""
    corner = state.qpos[:3] + jnp.asarray(CORNERS, jnp.float32) @ physics.turned(state.qpos[3:7]).T
    return (corner[:, 2] < jax.vmap(height, in_axes=(None, 0))(state.task.terrain, corner[:, :2])).any()


def promotion(task: Task, walked: jax.Array) -> jax.Array:
    """The level of the next episode, int32 []: one more for 4 m from the start, one less for under half of the way
    that was commanded (Rudin et al., 2022)."""
    ordered = jnp.linalg.norm(task.command) * task.t * DT
    change = jnp.where(walked > 4.0, 1, jnp.where(walked < ordered / 2, -1, 0))
    return jnp.clip(task.terrain.level + change, 0, terrain.LEVELS - 1).astype(jnp.int32)


# ---------------------------------------------------------------------------------------------------- the task


def quadruped(
    kind: str = "flat", level: int | None = None, randomised: bool = True, pushes: bool = True, privileged: bool = False
) -> Env:
    """Follow commands over terrain of a kind.

    Args:
        kind: 'flat', 'slopes', 'steps' or 'rough'.
        level: of all episodes, 0 to 9; None draws it anew at each reset.
        randomised: draw the robot from `RANGES` at each reset, else it is always the usual one.
        pushes: a force every 8 s, a kick every 16 s.
        privileged: observe a dict with what a critic may see.

    `info` has `level` and `promoted` (int32 [], of this episode and, by what it has shown so far, of the next) and
    `walked` (m, from the start).

    Raises:
        BadInput: there is no such kind of terrain.
    """
    if kind not in terrain.KINDS:
        raise unknown("kind of terrain", kind, terrain.KINDS)
    model, height = load(), terrain.KINDS[kind]
    ranges = RANGES if randomised else Robot(*((value, value) for value in USUAL))

    def show(state: State) -> tuple[PyTree, dict[str, jax.Array]]:
        walked = jnp.linalg.norm(state.qpos[:2])
        info = {"level": state.task.terrain.level, "promoted": promotion(state.task, walked), "walked": walked}
        obs = state.task.history.ravel()
        return ({"policy": obs, "critic": overseen(height, state)} if privileged else obs), info

    def reset(key: Key):
        key, key_ground, key_robot, key_command, key_pose, key_speed, key_yaw = jax.random.split(key, 7)
        ground = terrain.draw(key_ground)
        if level is not None:
            ground = ground._replace(level=jnp.int32(level))
        joints = jnp.asarray(STAND) * jax.random.uniform(key_pose, (12,), minval=0.5, maxval=1.5)
        joints = jnp.clip(joints, *jnp.asarray(model.c.jnt_range[1:], jnp.float32).T)
        turn = jax.random.uniform(key_yaw, (), minval=-jnp.pi, maxval=jnp.pi) / 2
        # As high as its posture needs: the lowest foot touches the ground.
        root = jnp.zeros(7).at[2].set(0.02 - feet(joints)[:, 2].min())
        root = root.at[jnp.array([3, 6])].set(jnp.stack([jnp.cos(turn), jnp.sin(turn)]))
        qvel = jnp.zeros(model.c.nv).at[:6].set(jax.random.uniform(key_speed, (6,), minval=-0.5, maxval=0.5))
        command, heading = ordered(key_command)
        zero = jnp.zeros(12)
        task = Task(
            key, jnp.int32(0), ground, drawn(key_robot, ranges), command, heading, jnp.zeros(3), jnp.zeros((3, 12)),
            zero, zero, None, jnp.zeros((HISTORY, 45)),
        )  # fmt: skip
        state = seen(height, physics.start(jnp.concatenate([root, joints]), qvel, task))
        return state, first(*show(state))

    def step(state: State, action: jax.Array):
        state = seen(height, moved(model, height, disturbed(state, pushes), jnp.clip(action, -ACTION, ACTION)))
        obs, info = show(state)
        reward = DT * rewards.total(state.task.walk)
        return state, first(obs, info)._replace(reward=reward, terminated=fallen(height, state))

    def draw(state: State, shape, camera):
        from envs.render import picture  # only where something is drawn

        if kind == "flat":
            return picture(model.c, physics.placed(model, state), shape, camera)
        return picture(pictured().c, physics.placed(pictured(), state), shape, camera, tiles(height, state))

    observation = jax.eval_shape(lambda key: reset(key)[1].obs, jax.random.key(0))
    specs = Specs(observation, Box((12,), -ACTION, ACTION))
    context = dict.fromkeys(physics.CONTEXT, 1.0)
    return time_limit(Env(reset, step, specs, f"legged-{kind}", draw, context), LIMIT)

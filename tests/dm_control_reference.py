"""DM Control as the reference of our tasks: what the tests of every part of the suite compare, and how.

Nothing here knows a task: functions take the factory of ours, DM Control's environment, models, states and substeps. A
task that keeps something beside the body (a target, a touch) passes its own `place`, which calls the one here.
"""

import copy
import warnings
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.control import physics
from envs.control.physics import Model, State
from jaxrl.core import Env

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it announces the missing display and what will be removed from MuJoCo
    from dm_control import suite
    from dm_control.utils import rewards as reference  # noqa: F401  (of which ours are products, too)

MANY = 256
CONSTANTS = (
    "body_mass",
    "body_inertia",
    "body_pos",
    "body_ipos",
    "dof_damping",
    "dof_armature",
    "dof_frictionloss",
    "actuator_gear",
    "actuator_ctrlrange",
    "jnt_type",
    "jnt_axis",
    "jnt_pos",
    "jnt_range",
    "jnt_limited",
    "jnt_stiffness",
    "jnt_solref",
    "jnt_solimp",
    "qpos_spring",
)


def theirs(domain: str, task: str):
    """DM Control's environment, reset once."""
    env = suite.load(domain, task, task_kwargs={"random": 0})
    env.reset()
    return env


def random_states(c: mujoco.MjModel, count: int, task: Callable = lambda qpos, random: ()) -> tuple[State, jax.Array]:
    """States and actions on both sides of what the rewards tell apart; every other one nearly at rest at qpos 0.

    Args:
        task: (qpos [count, nq], generator) -> what the states keep beside the body, [count, ...].
    """
    random = np.random.default_rng(0)
    scale = np.where(np.arange(count) % 2, 1.0, 0.05)[:, None]
    qpos = scale * random.uniform(-2.5, 2.5, (count, c.nq))
    for joint in np.flatnonzero(np.isin(c.jnt_type, (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL))):
        at = c.jnt_qposadr[joint] + (3 if c.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE else 0)
        turned = qpos[:, at : at + 4] + [1, 0, 0, 0]
        qpos[:, at : at + 4] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    qvel = scale * random.normal(0, 6, (count, c.nv))
    kept = jax.tree.map(jnp.float32, task(qpos, random))
    state = State(jnp.float32(qpos), jnp.float32(qvel), jnp.zeros((count, c.nv)), kept)
    return state, jnp.float32(random.uniform(-1, 1, (count, c.nu)))


def one(states: State, i: int) -> State:
    return jax.tree.map(lambda x: np.asarray(x[i], np.float64), states)


def place(them, state: State, action: np.ndarray) -> None:
    """Put DM Control's physics into one of our states."""
    them.physics.data.qpos[:], them.physics.data.qvel[:] = state.qpos, state.qvel
    them.physics.set_control(action)
    them.physics.forward()


def stand_still(monkeypatch, sensors: Callable[[State], jax.Array] | None = None) -> None:
    """From here on a step leaves the body as it is, so that it shows the reward and observation of the state given.

    Args:
        sensors: what `physics.sensed` reads meanwhile, a function of the state.
    """
    monkeypatch.setattr(physics, "step", lambda model, state, control, substeps=1: state)
    if sensors:
        monkeypatch.setattr(physics, "sensed", lambda model, state, control, substeps=1: (state, sensors(state)))


def rewards_and_observations_equal(
    make: Callable[[], Env],
    them,
    states: State,
    actions: jax.Array,
    place: Callable = place,
    spread: float = 0.2,
    near: float = 2e-6,
) -> None:
    """Of each state, under `stand_still`; rewards within 1e-5 and at least `spread` apart among the states,
    observations within `near`."""
    env, many = make(), len(actions)
    out = jax.jit(jax.vmap(env.step))({"inner": states, "t": jnp.zeros(many, jnp.int32)}, actions)[1]
    rewards, observations = [], []
    for i in range(many):
        place(them, one(states, i), np.asarray(actions[i]))
        rewards.append(them.task.get_reward(them.physics))
        observations.append(np.concatenate([np.ravel(x) for x in them.task.get_observation(them.physics).values()]))
    assert np.ptp(rewards) > spread
    np.testing.assert_allclose(out.reward, rewards, atol=1e-5)
    np.testing.assert_allclose(out.obs, observations, rtol=1e-6, atol=near)
    assert out.obs.dtype == jnp.float32 and out.obs.shape[1:] == env.specs.observation.shape


def constants_equal(ours: mujoco.MjModel, them: mujoco.MjModel, names: Iterable[str] = CONSTANTS) -> None:
    for name in names:
        np.testing.assert_allclose(getattr(ours, name), getattr(them, name), rtol=1e-6, atol=1e-9, err_msg=name)
    assert ours.opt.timestep == them.opt.timestep
    np.testing.assert_array_equal(ours.opt.gravity, them.opt.gravity)


def clocks_equal(make: Callable[[], Env], them, c: mujoco.MjModel, substeps: int = 1) -> None:
    env = make()
    assert env.specs.limit == them._step_limit
    assert env.specs.action.shape == them.action_spec().shape
    assert c.opt.timestep * substeps == pytest.approx(them.control_timestep())


def c_step(c: mujoco.MjModel, state: State, action: np.ndarray, substeps: int) -> mujoco.MjData:
    """MuJoCo itself over one control step: its data after it."""
    data = mujoco.MjData(c)
    data.qpos[:], data.qvel[:], data.ctrl[:] = state.qpos, state.qvel, action
    data.act[:], data.qacc_warmstart[:] = state.act, state.warmstart
    for _ in range(substeps):
        mujoco.mj_step(c, data)
    return data


def step_equals_c(
    model: Model,
    states: State,
    actions: jax.Array,
    substeps: int = 1,
    touching: int = 0,
    qpos: float | None = None,
    qvel: float | None = None,
    forces: float | None = None,
) -> list[mujoco.MjData]:
    """One control step against C MuJoCo with our model and settings: MuJoCo's data after it, for further comparisons.

    Args:
        touching: at least as many states end in contact; 0 means none does.
        qpos, qvel: largest differences; None is 1e-6 and 2e-6, or 1e-4 and 2e-3 where something touches. Where a limb
            meets the ground between two physics steps, float32's last digit decides in which of them.
        forces: largest difference in log(1 + force) of what the touch sensors read; None where there are none.
    """
    sensing = lambda s, a: physics.sensed(model, s, a, substeps)
    silent = lambda s, a: (physics.step(model, s, a, substeps), ())
    stepped, read = jax.jit(jax.vmap(silent if forces is None else sensing))(states, actions)
    data = [c_step(model.c, one(states, i), np.asarray(actions[i]), substeps) for i in range(len(actions))]
    in_contact = sum(d.ncon > 0 for d in data)
    assert in_contact >= touching if touching else in_contact == 0
    qpos, qvel = qpos or (1e-4 if touching else 1e-6), qvel or (2e-3 if touching else 2e-6)
    np.testing.assert_allclose(stepped.qpos, [d.qpos for d in data], atol=qpos)
    np.testing.assert_allclose(stepped.qvel, [d.qvel for d in data], atol=qvel)
    if forces is not None:
        felt = np.array([d.sensordata for d in data])
        assert (felt > 0).any(axis=0).all()
        np.testing.assert_allclose(np.log1p(read), np.log1p(felt), atol=forces)
    return data


def moments(
    c: mujoco.MjModel, qpos: np.ndarray, count: int, substeps: int = 1, hold: int = 20, steps: int = 400, touching=0.5
) -> tuple[State, jax.Array]:
    """Moments of episodes under random actions, in MuJoCo, with the next actions; a share of them in contact.

    Args:
        qpos: [episodes, nq], where they begin, at rest.
        hold: control steps for which an action is held.
    """
    random, data = np.random.default_rng(1), mujoco.MjData(c)
    seen: tuple[list, list] = ([], [])  # free, in contact
    for begin in qpos:
        mujoco.mj_resetData(c, data)
        data.qpos[:] = begin
        for t in range(steps):
            data.ctrl[:] = random.uniform(-1, 1, c.nu) if t % hold == 0 else data.ctrl
            mujoco.mj_step(c, data, substeps)
            seen[data.ncon > 0].append(np.concatenate([data.qpos, data.qvel]))
    wanted = round(count * touching)
    picks = [np.array(x)[random.permutation(len(x))[:n]] for x, n in zip(seen, (count - wanted, wanted)) if n]
    states = np.float32(np.concatenate(picks))
    assert len(states) == count
    state = State(jnp.asarray(states[:, : c.nq]), jnp.asarray(states[:, c.nq :]), jnp.zeros((count, c.nv)))
    return state, jnp.float32(random.uniform(-1, 1, (count, c.nu)))


def moves_as_theirs(
    ours: mujoco.MjModel,
    them: mujoco.MjModel,
    states: State,
    actions: jax.Array,
    substeps: int = 1,
    at_least: int = 48,
    qpos: float = 1e-6,
    qvel: float = 1e-5,
) -> None:
    """With DM Control's integrator, solver and flags, our file is the same machine, ground and limits included.

    States in which parts of DM Control's body touch one another are left out where ours has no such contacts.

    Args:
        at_least: states that are compared.
    """
    ours = copy.copy(ours)
    for option in ("integrator", "cone", "iterations", "ls_iterations", "disableflags"):
        setattr(ours.opt, option, getattr(them.opt, option))
    compared = 0
    for i in range(len(actions)):
        a, b = (c_step(c, one(states, i), np.asarray(actions[i]), substeps) for c in (ours, them))
        if a.ncon == b.ncon or not (them.geom_bodyid[b.contact.geom] > 0).all(axis=-1).any():
            np.testing.assert_allclose(a.qpos, b.qpos, atol=qpos)
            np.testing.assert_allclose(a.qvel, b.qvel, atol=qvel)
            compared += 1
    assert compared >= at_least


def solver_errors(c: mujoco.MjModel, states: State, actions: jax.Array, few=(1, 4)) -> tuple[float, float]:
    """The largest error in velocity after one physics step, against 100 iterations: of our cap, and of `few`
    (iterations, line search)."""

    def stepped(iterations, ls_iterations):
        capped = copy.copy(c)
        capped.opt.iterations, capped.opt.ls_iterations = iterations, ls_iterations
        return np.array([c_step(capped, one(states, i), np.asarray(actions[i]), 1).qvel for i in range(len(actions))])

    best = stepped(100, 50)
    ours, worst = stepped(c.opt.iterations, c.opt.ls_iterations), stepped(*few)
    return np.abs(ours - best).max(), np.abs(worst - best).max()


def drawn(make: Callable[[], Env], count: int = 1000) -> State:
    """The states of `count` resets."""
    env = make()
    return jax.vmap(lambda i: env.reset(jax.random.key(i))[0]["inner"])(jnp.arange(count))

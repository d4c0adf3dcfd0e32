"""What the control tasks share: models, the physics step, planar kinematics, and the record a task is built from.

Only positions, velocities and the solver's warm start pass from step to step. The rest of `mjx.Data` follows from
these, and carrying it through a scan costs more than a third of a step.
"""

import contextlib
import copy
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.core import never, time_limit
from jaxrl.core import BadInput, Box, Env, Key, PyTree, Specs, first

with contextlib.redirect_stdout(io.StringIO()):  # it announces a missing optional back end on stdout
    from mujoco import mjx
    from mujoco.mjx._src import scan

NARROW = 4  # levels of a tree with a single body, from which on `_levels_apart` acts


class State(NamedTuple):
    """A simulated body between two control steps.

    Fields: qpos [nq], qvel [nv], warmstart [nv] (the acceleration from which the constraint solver starts), task, what
    the task keeps beside the body (a target), which the physics never touches, context, float32 [] by name: how far the
    model differs in this episode (`CONTEXT`), and act [na], what actuators that have a memory hold; () elsewhere.
    """

    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array
    task: PyTree = ()
    context: dict[str, jax.Array] = {}  # noqa: RUF012  (never mutated)
    act: jax.Array | tuple[()] = ()


class Model(NamedTuple):
    """A compiled model.

    Fields: c, MuJoCo's own, read for its constants; x, the same on the device; data, what each step starts from.
    """

    c: mujoco.MjModel
    x: mjx.Model
    data: mjx.Data


@functools.cache
def load(name: str, folder: Path = Path(__file__).parent) -> Model:
    """The model `name`.xml, beside this file or in another folder."""
    return compiled(mujoco.MjModel.from_xml_path(str(folder / f"{name}.xml")))


def compiled(c: mujoco.MjModel) -> Model:
    """MuJoCo's model with the same on the device."""
    # A factory may first be called inside `jit`: the cache must hold arrays, never tracers.
    with jax.ensure_compile_time_eval():
        x = mjx.put_model(c)
        data = mjx.make_data(x)
        # Typed like the sum that replaces it: a weak type would compile the step twice.
        return Model(c, x, data.replace(time=jnp.float32(0)))


def colliding(c: mujoco.MjModel, aside: str = "") -> mujoco.MjModel:
    """A copy of a model in which every part collides with every other, whatever its bits, but for the geom `aside`: to
    draw starts in which nothing touches, also of models that in motion look for few contacts."""
    c = copy.copy(c)
    for of in (c.geom_contype, c.geom_conaffinity, c.body_contype, c.body_conaffinity):
        of[:] = 1
    if aside:
        c.geom(aside).contype = c.geom(aside).conaffinity = 0
    return c


# What `envs.core.contextual` can change: each scales fields of the model, 1 leaving them as they are.
CONTEXT: dict[str, Callable[[mjx.Model, jax.Array], dict[str, PyTree]]] = {
    "mass": lambda x, by: {
        "body_mass": x.body_mass * by,
        "body_inertia": x.body_inertia * by,
        "body_invweight0": x.body_invweight0 / by,
        "dof_invweight0": x.dof_invweight0 / by,
    },
    "friction": lambda x, by: {"geom_friction": x.geom_friction * by},
    "damping": lambda x, by: {"dof_damping": x.dof_damping * by},
    "strength": lambda x, by: {
        "actuator_gainprm": x.actuator_gainprm * by,
        "actuator_biasprm": x.actuator_biasprm * by,
    },
    "gravity": lambda x, by: {"opt": x.opt.replace(gravity=x.opt.gravity * by)},
}


def under(x: mjx.Model, context: dict[str, jax.Array]) -> mjx.Model:
    """The model in the circumstances of an episode; the very same where nothing differs."""
    for name, value in context.items():
        x = x.replace(**CONTEXT[name](x, value))
    return x


def start(qpos: jax.Array, qvel: jax.Array, task: PyTree = ()) -> State:
    return State(qpos, qvel, jnp.zeros_like(qvel), task)


@contextlib.contextmanager
def _levels_apart(x: mjx.Model):
    """Traces MJX's passes through a tree of bodies in a row with a barrier between its levels.

    XLA's CPU compiler fuses a level of one body into all that use it and computes it again for each, so that the work
    grows exponentially with the depth: a step of the arm took 19 ms, and takes 0.1 ms with the barriers. Where a level
    has more bodies it does not, and barriers cost more than they save.
    """
    depth = np.zeros(x.nbody, int)
    for body in range(1, x.nbody):
        depth[body] = depth[x.body_parentid[body]] + 1
    tree = scan.body_tree
    if (np.bincount(depth)[1:] == 1).sum() >= NARROW:
        level = lambda f: lambda below, *args: f(jax.lax.optimization_barrier(below), *args)
        scan.body_tree = lambda m, f, *args, **settings: tree(m, level(f), *args, **settings)
    try:
        yield
    finally:
        scan.body_tree = tree


@jax.jit
def _physics_step(x: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Traced once for a model, however many tasks, checks and scans step it; XLA sees through the call."""
    with _levels_apart(x):
        return mjx.step(x, data)


def advanced(model: Model, x: mjx.Model, state: State, control: jax.Array) -> tuple[State, mjx.Data]:
    """One physics step: the state reached, and the data that led there."""
    data = model.data.replace(qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.warmstart, ctrl=control)
    data = _physics_step(x, data.replace(act=state.act) if model.c.na else data)
    state = state._replace(qpos=data.qpos, qvel=data.qvel, warmstart=data.qacc_warmstart)
    return state._replace(act=data.act) if model.c.na else state, data


def step(
    model: Model,
    state: State,
    control: jax.Array,
    substeps: int = 1,
    keep: Callable[[PyTree, mjx.Model, mjx.Data], PyTree] | None = None,
) -> State:
    """The state after `substeps` physics steps under a constant control [nu].

    Args:
        keep: (task, model, data after a physics step) -> task, where the task remembers what positions and velocities
            do not tell (contact forces). None leaves the task as it is.
    """

    x = under(model.x, state.context)

    def once(state, _):
        state, data = advanced(model, x, state, control)
        return state._replace(task=keep(state.task, x, data)) if keep else state, None

    return jax.lax.scan(once, state, None, length=substeps)[0]


def sensed(model: Model, state: State, control: jax.Array, substeps: int = 1) -> tuple[State, jax.Array]:
    """As `step`, with what the model's sensors read in the last physics step, float32 [nsensordata].

    As in MuJoCo, forces (touch) are those under which the body reached its state; positions and velocities are of the
    moment before.
    """
    x = under(model.x, state.context)

    def once(carry, _):
        state, data = advanced(model, x, carry[0], control)
        return (state, data.sensordata), None

    return jax.lax.scan(once, (state, jnp.zeros(model.c.nsensordata)), None, length=substeps)[0]


def first_free(model: Model, candidates: jax.Array) -> jax.Array:
    """qpos [nq], the first of some [K, nq] in which nothing touches; the last where something does in all of them.

    For starts that the reference draws again and again until nothing touches: K that leave 1e-6 of failures do.
    """

    def touches(qpos):
        return (mjx.collision(model.x, placed(model, start(qpos, jnp.zeros(model.c.nv))))._impl.contact.dist < 0).any()

    taken = jax.vmap(touches)(candidates).at[-1].set(False)
    return candidates[jnp.argmin(taken)]


def placed(model: Model, state: State, moving: bool = False) -> mjx.Data:
    """Where everything is: positions and orientations of bodies, geoms and sites, centres of mass; and, if `moving`,
    the bodies' velocities (`cvel`, `subtree_linvel`). For tasks that have no closed form of what they observe."""
    x, data = model.x, model.data.replace(qpos=state.qpos, qvel=state.qvel)
    with _levels_apart(x):
        data = mjx.com_pos(x, mjx.kinematics(x, data))
        return mjx.subtree_vel(x, mjx.com_vel(x, data)) if moving else data


def centre_velocity(model: Model, data: mjx.Data) -> jax.Array:
    """The velocity of the centre of mass of the whole, m/s [3], of `placed` data that are `moving`."""
    c = model.c
    turning, moving = data.cvel[:, :3], data.cvel[:, 3:]  # of each body, at the centre of mass of its tree
    own = moving + jnp.cross(turning, data.xipos - data.subtree_com[c.body_rootid])
    return jnp.float32(c.body_mass / c.body_mass.sum()) @ own


def turned(quat: jax.Array) -> jax.Array:
    """The rotation of a unit quaternion (w, x, y, z) as a matrix [3, 3], from the body's frame to the world's."""
    w, v = quat[0], quat[1:]
    cross = jnp.cross(jnp.eye(3), v)  # takes u to v x u
    return (w**2 - v @ v) * jnp.eye(3) + 2 * jnp.outer(v, v) + 2 * w * cross


class Planar(NamedTuple):
    """The kinematics of a body that moves in the x-z plane, in closed form: what tasks observe after a step.

    Each part of such a body has one absolute angle about +y, the sum of the hinges that lead to it, and the centre of
    mass is a sum of constant arms turned by these angles. This spares a second pass through `mjx.kinematics`.

    Fields: turns [bodies, nv], from qpos to angles; slide [nv], from qpos to the root's x (m); arms [bodies, 2], (x, z)
    of each body's share in the centre of mass (m).
    """

    turns: np.ndarray
    slide: np.ndarray
    arms: np.ndarray


def planar(c: mujoco.MjModel) -> Planar:
    """The closed form of a model whose only moving tree is planar (bodies exclude the world).

    Raises:
        BadInput: a joint that leaves the plane, a slide that is not at the root, or a body that rests at an angle.
    """
    turns, slide = np.zeros((c.nbody, c.nv)), np.zeros(c.nv)
    arms = np.zeros((c.nbody, 2))
    share = c.body_subtreemass / c.body_subtreemass[1]
    for body in range(1, c.nbody):
        parent, own = c.body_parentid[body], c.body_mass[body] / c.body_subtreemass[1]
        if not np.array_equal(c.body_quat[body], [1, 0, 0, 0]):
            raise BadInput(f"body '{c.body(body).name}' rests at an angle: turn its geoms rather than its frame.")
        turns[body] = turns[parent]
        # With the joint at rest the body hangs from its parent by body_pos; the joint turns it about its own anchor.
        anchor = np.zeros(3)
        for joint in range(c.body_jntadr[body], c.body_jntadr[body] + c.body_jntnum[body]):
            dof, axis = c.jnt_dofadr[joint], c.jnt_axis[joint]
            if c.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE and abs(axis[1]) == 1:
                turns[body, dof] += axis[1]
                anchor = c.jnt_pos[joint]
            elif c.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE and parent == 0 and axis[1] == 0:
                slide[dof] = axis[0]
            else:
                raise BadInput(f"joint '{c.joint(joint).name}' is neither a hinge about y nor a slide of the root.")
        arms[parent] += share[body] * (c.body_pos[body] + anchor)[[0, 2]]
        arms[body] += (own * c.body_ipos[body] - share[body] * anchor)[[0, 2]]
    return Planar(*(np.float32(x) for x in (turns[1:], slide, arms[1:])))


def angles(plane: Planar, qpos: jax.Array) -> jax.Array:
    """Each body's absolute angle about +y, radians [bodies]."""
    return jnp.matmul(plane.turns, qpos)


def forward_speed(plane: Planar, state: State) -> jax.Array:
    """The velocity along x of the centre of mass of the whole body, m/s []."""

    def position(qpos):
        angle = angles(plane, qpos)
        return plane.slide @ qpos + jnp.cos(angle) @ plane.arms[:, 0] + jnp.sin(angle) @ plane.arms[:, 1]

    return jax.jvp(position, (state.qpos,), (state.qvel,))[1]


def environment(
    name: str,
    model: Model,
    reset: Callable[[Key], State],
    observe: Callable[[State], jax.Array],
    reward: Callable[[State, jax.Array], jax.Array],
    substeps: int = 1,
    limit: int = 1000,
    advance: Callable[[State, jax.Array], State] | None = None,
    terminated: Callable[[State], jax.Array] | None = None,
    marks: Callable[[State], dict[str, jax.Array]] | None = None,
    info: Callable[[State], dict[str, jax.Array]] | None = None,
    actions: int | None = None,
    over: Callable[[jax.Array], jax.Array] | None = None,
) -> Env:
    """The task whose observation and reward are functions of the state after the step.

    Args:
        reset: draws a state.
        observe: state -> float32 vector.
        reward: (the state reached, the action that led there) -> float32 [].
        substeps: physics steps in one control step.
        limit: control steps in an episode, after which it is truncated.
        advance: (state, action) -> state, where a control step is more than physics under that control: a task that
            remembers the state before, pushes, or acts through something else. None is `step`.
        terminated: state -> bool [], where the task can end before its limit.
        marks: positions [3] by the name of a site, of what is to be seen and is in the state alone (a target).
        info: state -> what else a TimeStep tells, by name.
        actions: the size of an action, where `advance` makes another control of it; None is the model's nu.
        over: observation -> bool [], as `terminated`, where an observation tells; a task without an end needs none.
    """
    if advance is None:
        advance = lambda state, action: step(model, state, action, substeps)

    show = lambda state: first(observe(state), info(state) if info else None)

    def begin(key):
        state = reset(key)
        return state, show(state)

    def stepped(state, action):
        state = advance(state, action)
        ended = terminated(state) if terminated else jnp.bool_(False)
        return state, show(state)._replace(reward=reward(state, action), terminated=ended)

    def draw(state, shape, camera):
        from envs.render import picture  # only where something is drawn

        return picture(model.c, placed(model, state), shape, camera, marks(state) if marks else {})

    observation = jax.eval_shape(lambda key: observe(reset(key)), jax.random.key(0))
    specs = Specs(observation, Box((actions or model.c.nu,), -1.0, 1.0), over=over if terminated else never)
    return time_limit(Env(begin, stepped, specs, name, draw, dict.fromkeys(CONTEXT, 1.0)), limit)

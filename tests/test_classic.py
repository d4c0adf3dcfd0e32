"""Classic control beside plain numpy written from the published equations, on random states and actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.classic import acrobot, cartpole, mountain_car, pendulum

RNG = np.random.default_rng(0)
MANY = 256


def np_cartpole(x, action):
    position, velocity, angle, spin = x
    force = 10.0 if action == 1 else -10.0
    temp = (force + 0.05 * spin**2 * np.sin(angle)) / 1.1
    turn = (9.8 * np.sin(angle) - np.cos(angle) * temp) / (0.5 * (4.0 / 3.0 - 0.1 * np.cos(angle) ** 2 / 1.1))
    acceleration = temp - 0.05 * turn * np.cos(angle) / 1.1
    y = np.array([position + 0.02 * velocity, velocity + 0.02 * acceleration, angle + 0.02 * spin, spin + 0.02 * turn])
    return y, y, 1.0, bool(abs(y[0]) > 2.4 or abs(y[2]) > 12 * np.pi / 180)


def np_pendulum(x, action):
    angle, velocity = x
    torque = np.clip(action[0], -2, 2)
    wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
    cost = wrapped**2 + 0.1 * velocity**2 + 0.001 * torque**2
    velocity = np.clip(velocity + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
    angle = (angle + velocity * 0.05 + np.pi) % (2 * np.pi) - np.pi
    return np.array([angle, velocity]), np.array([np.cos(angle), np.sin(angle), velocity]), -cost, False


def np_acrobot(x, action):
    def slope(s):
        """Sutton & Barto's equations in their own letters, m = l = I = 1 and l_c = 0.5."""
        t1, t2, v1, v2 = s
        d1 = 0.25 + (1 + 0.25 + np.cos(t2)) + 2
        d2 = 0.25 + 0.5 * np.cos(t2) + 1
        phi2 = 0.5 * 9.8 * np.cos(t1 + t2 - np.pi / 2)
        phi1 = -0.5 * v2**2 * np.sin(t2) - v2 * v1 * np.sin(t2) + 1.5 * 9.8 * np.cos(t1 - np.pi / 2) + phi2
        a2 = (action - 1 + d2 / d1 * phi1 - 0.5 * v1**2 * np.sin(t2) - phi2) / (0.25 + 1 - d2**2 / d1)
        return np.array([v1, v2, -(d2 * a2 + phi1) / d1, a2])

    h = 0.2
    k1 = slope(x)
    k2 = slope(x + h / 2 * k1)
    k3 = slope(x + h / 2 * k2)
    k4 = slope(x + h * k3)
    y = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    y[:2] = (y[:2] + np.pi) % (2 * np.pi) - np.pi
    y[2:] = np.clip(y[2:], [-4 * np.pi, -9 * np.pi], [4 * np.pi, 9 * np.pi])
    t1, t2 = y[:2]
    obs = np.array([np.cos(t1), np.sin(t1), np.cos(t2), np.sin(t2), y[2], y[3]])
    done = bool(-np.cos(t1) - np.cos(t1 + t2) > 1)
    return y, obs, 0.0 if done else -1.0, done


def np_mountain_car(x, push, flag):
    position, velocity = x
    velocity = np.clip(velocity + push - 0.0025 * np.cos(3 * position), -0.07, 0.07)
    position = np.clip(position + velocity, -1.2, 0.6)
    if position == -1.2 and velocity < 0:
        velocity = 0.0
    y = np.array([position, velocity])
    return y, bool(position >= flag and velocity >= 0)


def np_discrete_car(x, action):
    y, done = np_mountain_car(x, (action - 1) * 0.001, 0.5)
    return y, y, -1.0, done


def np_continuous_car(x, action):
    y, done = np_mountain_car(x, action[0] * 0.0015, 0.45)
    return y, y, 100.0 * done - 0.1 * action[0] ** 2, done


# id -> (reference, how far states are drawn, an action, what states are compared by)
TASKS = {
    "cartpole": (np_cartpole, [2.45, 2, 0.25, 2], lambda: RNG.integers(2)),
    "pendulum": (np_pendulum, [3.1, 8], lambda: RNG.uniform(-3, 3, 1)),
    "acrobot": (np_acrobot, [3.1, 3.1, 12, 28], lambda: RNG.integers(3)),
    "mountain-car": (np_discrete_car, [1.2, 0.07], lambda: RNG.integers(3)),
    "mountain-car-continuous": (np_continuous_car, [1.2, 0.07], lambda: RNG.uniform(-1, 1, 1)),
}


STATE = {"cartpole": cartpole.Body, "pendulum": pendulum.Body}  # the others' is the array itself


@pytest.mark.parametrize("id", TASKS)
def test_one_step_is_the_published_one(id):
    reference, span, draw = TASKS[id]
    env = envs.make(id)
    states = RNG.uniform(-1, 1, (MANY, len(span))) * span
    if "car" in id and "pole" not in id:
        states[:, 0] = RNG.uniform(-1.2, 0.6, MANY)
    actions = np.array([draw() for _ in range(MANY)])
    inner = STATE.get(id, lambda x: x)(jnp.asarray(states, jnp.float32))
    inside = {"inner": inner, "t": jnp.zeros(MANY, jnp.int32)}
    after, out = jax.jit(jax.vmap(env.step))(inside, jnp.asarray(actions, env.specs.action.dtype))
    expected = [reference(np.float64(np.float32(x)), a) for x, a in zip(states, actions)]
    wanted, obs, reward, done = (np.array(column) for column in zip(*expected))
    # Float32 against float64 through accelerations of up to some thousand radians a second squared.
    np.testing.assert_allclose(out.obs, obs, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(out.reward, reward, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(out.terminated, done)
    if id not in ("pendulum", "acrobot"):  # whose angles jump at pi; their observations, compared above, do not
        np.testing.assert_allclose(getattr(after["inner"], "x", after["inner"]), wanted, rtol=1e-5, atol=1e-5)
    if id != "pendulum":
        assert 0 < done.sum() < MANY
    assert not out.truncated.any()


@pytest.mark.parametrize(
    "id,low,high",
    [
        ("cartpole", [-0.05] * 4, [0.05] * 4),
        ("pendulum", [-1, -1, -1], [1, 1, 1]),
        ("acrobot", [0.995, -0.1, 0.995, -0.1, -0.1, -0.1], [1, 0.1, 1, 0.1, 0.1, 0.1]),
        ("mountain-car", [-0.6, 0], [-0.4, 0]),
        ("mountain-car-continuous", [-0.6, 0], [-0.4, 0]),
    ],
)
def test_starts_fill_the_published_range(id, low, high):
    _, out = jax.jit(jax.vmap(envs.make(id).reset))(jax.random.split(jax.random.key(1), 512))
    low, high = np.array(low), np.array(high)
    assert (out.obs >= low - 1e-6).all() and (out.obs <= high + 1e-6).all()
    # 512 draws come within a tenth of both ends, but for a chance below 1e-20.
    assert (out.obs.min(axis=0) <= low + 0.1 * (high - low) + 1e-6).all()
    assert (out.obs.max(axis=0) >= high - 0.1 * (high - low) - 1e-6).all()


@pytest.mark.parametrize(
    "id,limit",
    [("cartpole", 500), ("pendulum", 200), ("acrobot", 500), ("mountain-car", 200), ("mountain-car-continuous", 999)],
)
def test_limits_are_the_published_ones(id, limit):
    env = envs.make(id)
    state, _ = env.reset(jax.random.key(0))
    assert env.specs.limit == limit
    out = env.step({**state, "t": jnp.int32(limit - 1)}, jnp.zeros(env.specs.action.shape, env.specs.action.dtype))[1]
    assert bool(out.truncated) and not bool(out.terminated)


@pytest.mark.parametrize("id", [*TASKS, "cartpole-masked"])
def test_classic_tasks_pass_the_check(id):
    assert envs.check_env(envs.make(id), steps=20) == []


def test_masked_cartpole_hides_the_velocities():
    plain, masked = envs.make("cartpole"), envs.make("cartpole-masked")
    for name in ("reset", "step"):
        args = (jax.random.key(3),) if name == "reset" else (plain.reset(jax.random.key(3))[0], jnp.int32(1))
        seen, hidden = (getattr(env, name)(*args)[1].obs for env in (plain, masked))
        assert hidden.tolist() == [seen[0], seen[2]]


def test_a_balancing_policy_keeps_the_pole_up_for_the_whole_episode():
    env = cartpole.cartpole()

    def step(carry, _):
        state, obs = carry
        state, out = env.step(state, (obs @ jnp.array([0.05, 0.1, 1.0, 0.5]) > 0).astype(jnp.int32))
        return (state, out.obs), out

    state, out = env.reset(jax.random.key(0))
    _, out = jax.jit(lambda c: jax.lax.scan(step, c, None, length=500))((state, out.obs))
    assert not out.terminated.any() and out.truncated[-1] and out.reward.sum() == 500


def test_energy_is_kept_where_nothing_drives():
    """Acrobot's Runge-Kutta without torque: total energy drifts by less than a percent over 20 steps."""

    def energy(x):
        t1, t2, v1, v2 = x
        y1, y2 = -0.5 * jnp.cos(t1), -jnp.cos(t1) - 0.5 * jnp.cos(t1 + t2)
        fast2 = v1**2 + 0.25 * (v1 + v2) ** 2 + v1 * (v1 + v2) * jnp.cos(t2)
        return 9.8 * (y1 + y2) + 0.5 * (0.25 * v1**2 + fast2) + 0.5 * (v1**2 + (v1 + v2) ** 2)

    x = jnp.array([0.5, -0.3, 0.2, 0.1])
    _, energies = jax.jit(
        lambda x: jax.lax.scan(lambda x, _: (acrobot.advance(x, jnp.float32(0)), energy(x)), x, None, 20)
    )(x)
    np.testing.assert_allclose(energies, energies[0], rtol=1e-2)


def test_the_pendulum_rests_where_it_hangs_and_the_wall_stops_the_car():
    hanging = jnp.array([jnp.pi, 0.0])
    assert abs(float(pendulum.advance(hanging, jnp.float32(0), pendulum.CONTEXT)[1])) < 1e-5
    assert mountain_car.advance(jnp.array([-1.19, -0.07]), jnp.float32(0)).tolist() == pytest.approx([-1.2, 0.0])

"""Brax 0.14.2: its SAC trainer, and its own environments stepped raw.

The trainer needs two shims on today's JAX, and gets one favour:
1. `jax.device_put_replicated` is gone: on one device it is a leading axis of 1.
2. The trainer runs to its end in one call: it runs in a thread of its own, which its progress callback stops after
   each epoch until the next window is due.
The favour is that its evaluations are left out.
"""

import queue
import threading

import jax
import jax.numpy as jnp
import mujoco  # noqa: F401  (before brax, whose greeting about optional back ends it settles)
from brax import envs
from brax.training import acting
from brax.training.agents.sac import networks as sac_networks
from brax.training.agents.sac import train as sac_train

from experiments.bench.worker import Side

WINDOWS = 1000  # epochs the trainer is told to run; it is never let to reach the end


class Pendulum(envs.Env):
    """Gymnasium's Pendulum-v1 as a brax environment, so that every trainer sees observations [3] and actions [1]."""

    def reset(self, rng):
        x = jax.random.uniform(rng, (2,), minval=-1.0, maxval=1.0) * jnp.array([jnp.pi, 1.0])
        zero = jnp.zeros(())
        return envs.State(x, self.see(x), zero, zero, {}, {})

    def step(self, state, action):
        angle, velocity = state.pipeline_state
        torque = 2 * jnp.clip(action[0], -1, 1)
        cost = angle**2 + 0.1 * velocity**2 + 0.001 * torque**2
        velocity = jnp.clip(velocity + (15 * jnp.sin(angle) + 3 * torque) * 0.05, -8, 8)
        angle = (angle + velocity * 0.05 + jnp.pi) % (2 * jnp.pi) - jnp.pi
        x = jnp.stack([angle, velocity])
        return state.replace(pipeline_state=x, obs=self.see(x), reward=-cost)

    def see(self, x):
        return jnp.stack([jnp.cos(x[0]), jnp.sin(x[0]), x[1]])

    observation_size, action_size, backend = 3, 1, "none"


def sac(settings: dict) -> Side:
    jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jnp.asarray(x)[None], tree)
    turns, done, seen = queue.Queue(), queue.Queue(), {}

    class NoEvaluation:
        def __init__(self, *_, **__): ...

        def run_evaluation(self, parameters, training_metrics, **_):
            seen["parameters"] = parameters
            return training_metrics

    acting.Evaluator = NoEvaluation

    def progress(step, metrics):
        done.put(step)
        turns.get()

    def network(*sizes, **options):
        made = sac_networks.make_sac_networks(*sizes, hidden_layer_sizes=tuple(settings["widths"]), **options)
        both = jax.eval_shape(lambda key: (made.policy_network.init(key), made.q_network.init(key)), jax.random.key(0))
        seen["count"] = sum(x.size for x in jax.tree.leaves(both))
        return made

    def train():
        try:
            turns.get()
            sac_train.train(
                Pendulum(),
                num_timesteps=settings["warmup"] + settings["units"] * WINDOWS,
                num_evals=WINDOWS + 1,
                episode_length=200,
                num_envs=1,
                batch_size=settings["batch"],
                learning_rate=settings["lr"],
                tau=settings["tau"],
                discounting=0.99,
                min_replay_size=settings["warmup"],
                max_replay_size=settings["capacity"],
                grad_updates_per_step=1,
                network_factory=network,
                progress_fn=progress,
            )
        except BaseException as error:  # told to the window that waits for it
            done.put(error)

    threading.Thread(target=train, daemon=True).start()

    def window():
        turns.put(None)
        answer = done.get()
        if isinstance(answer, BaseException):
            raise answer

    # The first stop is before any training, once networks, environment and replay are made.
    window()
    return Side(settings["units"], lambda: None, window, lambda: finite(seen["parameters"]), seen["count"], 1.0)


def stepping(settings: dict) -> Side:
    """Physics steps of brax's nearest environment on its MJX pipeline, random actions, no reset."""
    env = envs.get_environment(settings["brax"], backend="mjx")
    count, width = settings["units"], settings["num_envs"]
    substeps = env._n_frames
    actions = jax.random.uniform(jax.random.key(1), (count, width, env.action_size), minval=-1.0, maxval=1.0)
    state = {"env": jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), width))}

    def chunk(inner, actions):
        return jax.lax.scan(lambda s, a: (jax.vmap(env.step)(s, a), None), inner, actions)[0]

    def compile():
        state["chunk"] = jax.jit(chunk, donate_argnums=0).lower(state["env"], actions).compile()

    def window():
        # Each window starts where the first did: without resets a body left to random actions may fall off its track.
        state["end"] = jax.block_until_ready(state["chunk"](jax.tree.map(jnp.copy, state["env"]), actions))

    return Side(count * width * substeps, compile, window, lambda: finite(state["end"].pipeline_state.q))


def finite(tree) -> bool:
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))

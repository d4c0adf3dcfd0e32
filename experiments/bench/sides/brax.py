"""Brax 0.14.2: its SAC and PPO trainers, and its own environments stepped raw.

The trainers need two shims on today's JAX, and get one favour:
1. `jax.device_put_replicated` is gone: on one device it is a leading axis of 1.
2. A trainer runs to its end in one call: it runs in a thread of its own, which its progress callback stops after
   each epoch until the next window is due.
The favour is that their evaluations are left out.
"""

import queue
import threading
from functools import partial

import jax
import jax.numpy as jnp
import mujoco  # noqa: F401  (before brax, whose greeting about optional back ends it settles)
from brax import envs
from brax.training import acting
from brax.training.agents.ppo import networks as ppo_networks
from brax.training.agents.ppo import train as ppo_train
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


def trainer(settings: dict, train, networks, updates: float, **how) -> Side:
    """`train` under the shims, an epoch of `settings['units']` steps a window.

    Args:
        networks: makes the trainer's networks from sizes; those of its fields that end in `_network` learn.
        updates: calls of the learner for each step.
    """
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
        made = networks(*sizes, **options)
        learn = [part for name, part in vars(made).items() if name.endswith("_network")]
        shapes = jax.eval_shape(lambda key: [part.init(key) for part in learn], jax.random.key(0))
        seen["count"] = sum(x.size for x in jax.tree.leaves(shapes))
        return made

    def to_its_end():
        try:
            turns.get()
            train(
                Pendulum(),
                num_evals=WINDOWS + 1,
                episode_length=200,
                learning_rate=settings["lr"],
                discounting=0.99,
                network_factory=network,
                progress_fn=progress,
                **how,
            )
        except BaseException as error:  # told to the window that waits for it
            done.put(error)

    threading.Thread(target=to_its_end, daemon=True).start()

    def window():
        turns.put(None)
        answer = done.get()
        if isinstance(answer, BaseException):
            raise answer

    # The first stop is before any training, once networks, environment and replay are made.
    window()
    # It compiles in the first epoch, and again in the second, whose arguments come from `pmap`: one is run here, and
    # the other is the window that is not timed.
    return Side(settings["units"], window, window, lambda: finite(seen["parameters"]), seen["count"], updates)


def sac(settings: dict) -> Side:
    return trainer(
        settings,
        sac_train.train,
        partial(sac_networks.make_sac_networks, hidden_layer_sizes=tuple(settings["widths"])),
        updates=1.0,
        num_timesteps=settings["warmup"] + settings["units"] * WINDOWS,
        num_envs=1,
        batch_size=settings["batch"],
        tau=settings["tau"],
        min_replay_size=settings["warmup"],
        max_replay_size=settings["capacity"],
        grad_updates_per_step=1,
    )


def ppo(settings: dict) -> Side:
    """Its minibatches are of whole pieces of `piece` steps, within which alone it accumulates advantages.

    It makes values and advantages anew in every minibatch, over which a scan runs: short pieces are a favour.
    """
    frames, piece = settings["num_envs"] * settings["unroll"], settings["piece"]
    widths = tuple(settings["widths"])
    networks = partial(
        ppo_networks.make_ppo_networks,
        policy_hidden_layer_sizes=widths,
        value_hidden_layer_sizes=widths,
        activation=jnp.tanh,
        distribution_type="normal",
        noise_std_type="log",
    )
    return trainer(
        settings,
        ppo_train.train,
        networks,
        updates=1 / frames,
        num_timesteps=settings["units"] * WINDOWS,
        num_envs=settings["num_envs"],
        unroll_length=piece,
        batch_size=frames // settings["minibatches"] // piece,
        num_minibatches=settings["minibatches"],
        num_updates_per_batch=settings["epochs"],
        entropy_cost=0.01,
        clipping_epsilon=0.2,
        clipping_epsilon_value=0.2,
        gae_lambda=0.95,
        max_grad_norm=0.5,
        normalize_observations=False,
    )


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

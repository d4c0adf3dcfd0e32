"""Rejax 0.1.3 on gymnax 0.0.9: its `train_iteration` scanned as its own `train` does, without the evaluations.

Leaving these out, and donating the state, are favours to it. Its replay draws without replacement from the whole
capacity, so its cost grows with the capacity; the cases keep that small.
"""

import gymnax
import jax
import jax.numpy as jnp
from rejax import get_algo

from experiments.bench.worker import Side


def trainer(name: str, settings: dict, config: dict, networks) -> Side:
    """`settings['units']` environment steps a window; `networks(state)` are the parameters that learn."""
    env, params = gymnax.make(settings["env"])
    algorithm = get_algo(name).create(env=env, env_params=params, total_timesteps=10**9, **config)
    frames = config["num_envs"] * config.get("num_steps", 1)
    ticks = settings["units"] // frames
    state = {"train": jax.jit(algorithm.init_state)(jax.random.PRNGKey(0))}

    def chunk(train):
        return jax.lax.scan(lambda train, _: (algorithm.train_iteration(train), None), train, None, length=ticks)[0]

    def compile():
        state["chunk"] = jax.jit(chunk, donate_argnums=0).lower(state["train"]).compile()

    def window():
        state["train"] = jax.block_until_ready(state["chunk"](state["train"]))

    def finite():
        return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(networks(state["train"])))

    count = sum(x.size for x in jax.tree.leaves(networks(state["train"])))
    return Side(ticks * frames, compile, window, finite, count, 1 / frames)


def replay(settings: dict) -> dict:
    return {
        "num_envs": 1,
        "buffer_size": settings["capacity"],
        "fill_buffer": settings["warmup"],
        "batch_size": settings["batch"],
        "num_epochs": 1,
        "learning_rate": settings["lr"],
    }


def sac(settings: dict) -> Side:
    config = {**replay(settings), "hidden_layer_sizes": settings["widths"], "polyak": 1 - settings["tau"]}
    return trainer("sac", settings, config, lambda train: (train.actor_ts.params, train.critic_ts.params))


def dqn(settings: dict) -> Side:
    """Its widths are 64, 64 whatever it is told; the count of parameters shows whether that is what was wanted."""
    config = {
        **replay(settings),
        "agent_kwargs": {"activation": "relu"},
        "target_update_freq": settings["target_every"],
        "polyak": 0.0,
    }
    return trainer("dqn", settings, config, lambda train: train.q_ts.params)


def rollouts(settings: dict) -> dict:
    return {
        "num_envs": settings["num_envs"],
        "num_steps": settings["unroll"],
        "num_epochs": settings["epochs"],
        "num_minibatches": settings["minibatches"],
        "learning_rate": settings["lr"],
    }


def pqn(settings: dict) -> Side:
    """Its widths are 64, 64 whatever it is told, as DQN's; LayerNorm and ReLU."""
    return trainer("pqn", settings, rollouts(settings), lambda train: train.q_ts.params)


def ppo(settings: dict) -> Side:
    networks = {"activation": settings["activation"], "hidden_layer_sizes": settings["widths"]}
    config = {**rollouts(settings), "agent_kwargs": networks}
    return trainer("ppo", settings, config, lambda train: (train.actor_ts.params, train.critic_ts.params))

"""Sbx (Stable-Baselines3 in JAX): its `learn`, on Gymnasium's environments. It compiles in its first window."""

import warnings

import jax
import jax.numpy as jnp
import sbx
import torch
from stable_baselines3.common.env_util import make_vec_env

from experiments.bench.worker import Side

torch.set_num_threads(1)


def trainer(algorithm, settings: dict, config: dict, states) -> Side:
    """`settings['units']` environment steps a window; `states(model)` are the train states that learn."""
    env = make_vec_env(settings["env"], settings.get("num_envs", 1), seed=0)
    model = algorithm("MlpPolicy", env, learning_rate=settings["lr"], seed=0, verbose=0, **config)
    networks = lambda: [state.params for state in states(model)]

    def window():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.learn(settings["units"], reset_num_timesteps=False)
        jax.block_until_ready(networks())

    def finite():
        return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(networks()))

    count = sum(x.size for x in jax.tree.leaves(networks()))
    updates = 1 / (config.get("n_steps", 1) * env.num_envs)  # PPO's once a rollout, the others' each step
    return Side(settings["units"], lambda: None, window, finite, count, updates)


def replay(settings: dict) -> dict:
    return {
        "buffer_size": settings["capacity"],
        "learning_starts": settings["warmup"],
        "gradient_steps": 1,
        "batch_size": settings["batch"],
        "train_freq": 1,
    }


def sac(settings: dict) -> Side:
    config = {**replay(settings), "tau": settings["tau"], "policy_kwargs": {"net_arch": list(settings["widths"])}}
    return trainer(sbx.SAC, settings, config, lambda model: (model.policy.actor_state, model.policy.qf_state))


def dqn(settings: dict) -> Side:
    config = {
        **replay(settings),
        "policy_kwargs": {"net_arch": list(settings["widths"])},
        "target_update_interval": settings["target_every"],
    }
    return trainer(sbx.DQN, settings, config, lambda model: (model.policy.qf_state,))


def ppo(settings: dict) -> Side:
    batch = settings["unroll"] * settings["num_envs"] // settings["minibatches"]
    config = {
        "n_steps": settings["unroll"],
        "batch_size": batch,
        "n_epochs": settings["epochs"],
        "policy_kwargs": {"net_arch": list(settings["widths"])},
    }
    return trainer(sbx.PPO, settings, config, lambda model: (model.policy.actor_state, model.policy.vf_state))

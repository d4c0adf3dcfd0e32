"""Stable-Baselines3 in PyTorch: its `learn`, on Gymnasium's environments. The favour is that it logs nothing."""

import warnings

import torch
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.env_util import make_vec_env

from experiments.bench.worker import Side

torch.set_num_threads(1)


def trainer(algorithm, settings: dict, config: dict, networks) -> Side:
    """`settings['units']` environment steps a window, an update each; `networks(model)` are the modules that learn."""
    env = make_vec_env(settings["env"], 1, seed=0)
    model = algorithm(
        "MlpPolicy",
        env,
        seed=0,
        verbose=0,
        device="cpu",
        learning_rate=settings["lr"],
        buffer_size=settings["capacity"],
        learning_starts=settings["warmup"],
        batch_size=settings["batch"],
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": list(settings["widths"])},
        **config,
    )
    parameters = [x for module in networks(model) for x in module.parameters()]

    def window():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.learn(settings["units"], log_interval=None, reset_num_timesteps=False)

    def finite():
        return all(bool(torch.isfinite(x).all()) for x in parameters)

    return Side(settings["units"], lambda: None, window, finite, sum(x.numel() for x in parameters), 1.0)


def sac(settings: dict) -> Side:
    return trainer(SAC, settings, {"tau": settings["tau"]}, lambda model: (model.actor, model.critic))


def dqn(settings: dict) -> Side:
    config = {"target_update_interval": settings["target_every"]}
    return trainer(DQN, settings, config, lambda model: (model.q_net,))

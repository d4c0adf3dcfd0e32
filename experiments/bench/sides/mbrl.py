"""mbrl-lib: its ensemble of probabilistic dynamics, fitted by its trainer in PyTorch."""

import numpy as np
import torch
from mbrl.models import GaussianMLP, ModelTrainer, OneDTransitionRewardModel
from mbrl.types import TransitionBatch
from mbrl.util.replay_buffer import BootstrapIterator, TransitionIterator

from experiments.bench.sides.transitions import made
from experiments.bench.worker import Side

torch.set_num_threads(1)


def fit(settings: dict) -> Side:
    """`settings['passes']` over the data, by members each with a bootstrap, judged on a hold-out at each pass."""
    size, members, width = settings["size"], settings["members"], settings["widths"][0]
    data = made(size)
    inputs, outputs = data["obs"].shape[1] + data["action"].shape[1], data["obs"].shape[1] + 1
    networks = GaussianMLP(
        inputs,
        outputs,
        "cpu",
        num_layers=len(settings["widths"]),
        ensemble_size=members,
        hid_size=width,
        learn_logvar_bounds=True,
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    model = OneDTransitionRewardModel(networks, normalize=True)
    trainer = ModelTrainer(model, optim_lr=settings["lr"], weight_decay=5e-5)
    never = np.zeros(len(data["reward"]), bool)
    batch = TransitionBatch(data["obs"], data["action"], data["next_obs"], data["reward"], never, never)
    model.update_normalizer(batch)
    trained = size - round(0.2 * size)
    train = BootstrapIterator(
        batch[:trained], settings["batch"], members, shuffle_each_epoch=True, permute_indices=False
    )
    test = TransitionIterator(batch[trained:], settings["batch"])
    losses = []

    def window():
        losses.extend(trainer.train(train, test, num_epochs=settings["passes"], silent=True)[0])

    bounds = networks.min_logvar.numel() + networks.max_logvar.numel()
    each = (sum(x.numel() for x in networks.parameters()) - bounds) // members
    return Side(settings["passes"] * trained, lambda: None, window, lambda: bool(np.isfinite(losses).all()), each)

"""Transitions of a pendulum-like world, for models to be fitted to: the same on every side. Needs numpy alone."""

import numpy as np


def made(size: int) -> dict[str, np.ndarray]:
    """`size` of them: obs, next_obs float32 [S, 3], action [S, 1], reward [S]."""
    draw = np.random.default_rng(0)
    angle, speed = draw.uniform(-np.pi, np.pi, size), draw.uniform(-8, 8, size)
    force = draw.uniform(-1, 1, size)
    later = np.clip(speed + 0.05 * (15 * np.sin(angle) + 6 * force), -8, 8)
    seen = lambda angle, speed: np.stack([np.cos(angle), np.sin(angle), speed], axis=1).astype(np.float32)
    reward = -(angle**2 + 0.1 * speed**2 + 0.004 * force**2)
    after = seen(angle + 0.05 * later, later)
    return {
        "obs": seen(angle, speed),
        "action": force[:, None].astype(np.float32),
        "reward": reward.astype(np.float32),
        "next_obs": after,
    }

"""The tables of well-known small MDPs."""

import jax.numpy as jnp
import numpy as np

from envs.core import BadInput, Env
from envs.tabular.mdp import MDP, environment


def made(P: np.ndarray, r: np.ndarray, start: np.ndarray) -> MDP:
    return MDP(*(jnp.asarray(table, jnp.float32) for table in (P, r, start)))


def chain_tables(n: int = 6, slip: float = 0.0, small: float = 0.01) -> MDP:
    """A row of `n` states: 0 goes back to the first for `small`, 1 one on; at the far end 1 gives 1 and stays.

    With chance `slip` the other action happens (Dearden et al. 1998, whose chain has n = 5, slip 0.2, and rewards
    five times as far apart).
    """
    _least("chain", n, 2)
    P, r = np.zeros((n, 2, n)), np.zeros((n, 2))
    for s in range(n):
        for a, chance in ((0, 1 - slip), (1, slip)):  # the action that happens when 0 was meant; 1 is its mirror
            for meant, share in ((0, chance), (1, 1 - chance)):
                P[s, meant, 0 if a == 0 else min(s + 1, n - 1)] += share
                r[s, meant] += share * (small if a == 0 else float(s == n - 1))
    return made(P, r, np.eye(n)[0])


def deep_sea_tables(n: int = 10) -> MDP:
    """A boat on an `n` x `n` sea sinks one row a step and drifts left (0) or right (1) (Osband et al. 2019).

    Right costs 0.01 / n, but the rightmost cell of the last row gives 1; only n times right leads there. State y n + x.
    """
    _least("deep_sea", n, 2)
    P, r = np.zeros((n * n, 2, n * n)), np.zeros((n * n, 2))
    for y in range(n):
        for x in range(n):
            r[y * n + x, 1] = -0.01 / n + float(x == y == n - 1)
            if y < n - 1:  # the last row's moves end the episode
                P[y * n + x, 0, (y + 1) * n + max(x - 1, 0)] = 1
                P[y * n + x, 1, (y + 1) * n + min(x + 1, n - 1)] = 1
    return made(P, r, np.eye(n * n)[0])


def river_swim_tables(n: int = 6) -> MDP:
    """Swim up a river (Strehl & Littman 2008): 0 drifts down one state for sure, 1 swims up against the current.

    Up succeeds with 0.35, holds with 0.6 and fails with 0.05 (0.6 up and 0.4 hold in the first state, 0.6 hold and 0.4
    down in the last). Drifting in the first state gives 0.005, swimming in the last 1.
    """
    _least("river_swim", n, 3)
    P, r = np.zeros((n, 2, n)), np.zeros((n, 2))
    for s in range(n):
        P[s, 0, max(s - 1, 0)] = 1
        down, stay, up = (0.0, 0.4, 0.6) if s == 0 else (0.4, 0.6, 0.0) if s == n - 1 else (0.05, 0.6, 0.35)
        for to, chance in ((s - 1, down), (s, stay), (s + 1, up)):
            if chance:
                P[s, 1, to] += chance
    r[0, 0], r[n - 1, 1] = 0.005, 1.0
    return made(P, r, np.eye(n)[0])


def low_rank_tables(states: int = 50, actions: int = 4, rank: int = 5, seed: int = 0) -> MDP:
    """P[s, a] = sum_k phi[s, a, k] mu[k], r = phi . theta: a low-rank (linear) MDP of Jin et al. (2020), drawn by seed.

    phi are chances over `rank` latent states, mu chances of the next state (both Dirichlet), theta uniform in [0, 1].
    """
    if rank < 1 or states < 2 or actions < 1 or rank > states:
        raise BadInput(f"low_rank has {states} states, {actions} actions, rank {rank}; rank lies in 1 .. states.")
    draw = np.random.default_rng(seed)
    phi = draw.dirichlet(np.full(rank, 0.3), (states, actions))
    mu, theta = draw.dirichlet(np.full(states, 0.1), rank), draw.uniform(size=rank)
    return made(phi @ mu, phi @ theta, np.full(states, 1 / states))


def chain(n: int = 6, slip: float = 0.0, small: float = 0.01, limit: int = 100) -> Env:
    return environment(chain_tables(n, slip, small), limit, "tabular-chain")


def deep_sea(n: int = 10) -> Env:
    return environment(deep_sea_tables(n), n, "tabular-deep-sea")


def river_swim(n: int = 6, limit: int = 20) -> Env:
    return environment(river_swim_tables(n), limit, "tabular-river-swim")


def low_rank(states: int = 50, actions: int = 4, rank: int = 5, seed: int = 0, limit: int = 50) -> Env:
    return environment(low_rank_tables(states, actions, rank, seed), limit, "tabular-low-rank")


def _least(name: str, n: int, low: int) -> None:
    if n < low:
        raise BadInput(f"n of {name} is {n}; the smallest is {low}.")

"""Run by test_loop.py in a process of its own with four virtual devices: one JSON object of what it found."""

import json

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.core import scale_action
from jaxrl.agents import fast_td3, pqn
from jaxrl.loop import loop, over_devices

KEY, TICKS = jax.random.key(4), 3


def after(one, ticks=TICKS):
    """The run after some ticks, awaited one by one: on few cores devices that run ahead wait for ever."""
    run = jax.block_until_ready(jax.jit(one.init)(KEY))
    chunk = jax.jit(lambda run: one.chunk(run, 1))
    for _ in range(ticks):
        run, metrics = jax.block_until_ready(chunk(run))
    return run, metrics


def apart(a, b) -> float:
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def copies(part) -> bool:
    """Whether all devices hold the same of it."""
    shards = [[np.asarray(s.data) for s in leaf.addressable_shards] for leaf in jax.tree.leaves(part)]
    return all((held == shard[0]).all() for shard in shards for held in shard)


def on_policy() -> dict:
    """PQN, a rollout in one batch: what is learned is the same on one device and on four."""
    env = envs.make("cartpole")
    config = pqn.Config(widths=(16,), num_envs=8, unroll=4, epochs=1, minibatches=1)
    recipe = pqn.recipe(env.specs, config)
    single, metrics = after(loop(env, recipe))
    many, shared = after(over_devices(env, recipe))
    moved = apart(single.parts, jax.jit(loop(env, recipe).init)(KEY).parts)
    return {
        "parts_apart": apart(single.parts, many.parts),
        "moved": moved,
        "observations_apart": apart(single.last, many.last.reshape(single.last.shape)),
        "metrics_apart": max(
            float(abs(metrics[name] - shared[name])) for name in metrics if not jnp.isnan(metrics[name])
        ),
        "steps": [int(single.step), int(many.step)],
    }


def off_policy() -> dict:
    """FastTD3: every device has its own replay of its own environments, and all have the same parts."""
    env = scale_action(envs.make("pendulum"))
    sizes = {"widths": (16,), "critic_widths": (16,), "atoms": 11}
    config = fast_td3.Config(num_envs=8, batch=16, capacity=40, warmup=8, **sizes)
    run, metrics = after(over_devices(env, fast_td3.recipe(env.specs, config)), ticks=5)
    nodes = run.source.nodes["obs"]
    return {
        "same_parts": copies(run.parts),
        "replay": list(nodes.shape),
        "replays_differ": len({np.asarray(s.data).tobytes() for s in nodes.addressable_shards}),
        "seen": float(run.parts["norm"].count),
        "loss": float(metrics["critic/loss"]),
    }


if __name__ == "__main__":
    print(json.dumps({"devices": jax.device_count(), "on_policy": on_policy(), "off_policy": off_policy()}))

"""Run by test_loop.py and test_moe.py in processes of their own with several virtual devices: one JSON object of what
each of the functions named found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import envs
from envs.core import scale_action
from jaxrl.agents import fast_td3, pqn
from jaxrl.loop import loop, over_devices
from jaxrl.nets import MoE, net
from jaxrl.nets.moe import expert_parallel

KEY, TICKS = jax.random.key(4), 3


def found_on(devices: int, *names: str) -> dict:
    """What these functions found on so many virtual devices."""
    root = Path(__file__).parents[1]
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHONPATH": str(root)}
    script = [sys.executable, __file__, *names]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600, env={**os.environ, **flags})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["devices"] == devices
    return found


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


def experts() -> dict:
    """Eight experts on as many devices, with too few slots: outputs and gradients are those of one device."""
    mesh = Mesh(np.array(jax.devices()), ("expert",))
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(16, 12, 6)).astype(np.float32)
    module = MoE(8, 8, 5, k=2, capacity=0.7, least=1, residual=True)
    layer = net(module, x[0])
    shapes = jax.eval_shape(layer.init, KEY)
    parameters = jax.tree.map(lambda s: numbers.normal(size=s.shape).astype(np.float32), shapes)
    spread = expert_parallel(module, mesh)

    def one(parameters):
        y, gates = layer.apply(parameters, x), layer.within(parameters, x)["gates"][0]
        return (y**2).mean(), (y, gates)

    def many(parameters):
        y, gates = spread(parameters, x)
        return (y**2).mean(), (y, gates)

    found = [jax.jit(jax.value_and_grad(f, has_aux=True))(parameters) for f in (one, many)]
    (((_, (y, gates)), slopes), ((_, (y_many, gates_many)), slopes_many)) = jax.device_get(found)
    return {
        "outputs_apart": apart(y, y_many),
        "size": float(np.abs(y).max()),
        "gradients_apart": apart(slopes, slopes_many),
        "dropped": [float(g.dropped.mean()) for g in (gates, gates_many)],
        "chosen": sorted({int(n) for n in gates_many.mask.sum(axis=-1).ravel()}),
    }


if __name__ == "__main__":
    found = {name: globals()[name]() for name in sys.argv[1:]}
    print(json.dumps({"devices": jax.device_count(), **found}))

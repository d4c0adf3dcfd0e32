"""Run by test_loop.py and test_moe.py in processes of their own with several virtual devices: one JSON object of what
each of the functions named found."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import envs
from envs.core import scale_action, time_limit
from jaxrl.agents import fast_td3, pqn
from jaxrl.core import Env, Specs, TimeStep, first
from jaxrl.loop import loop, over_devices
from jaxrl.nets import MoE, net
from jaxrl.nets.moe import expert_parallel
from tests.small import small, specs

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


def noisy(given: Specs) -> Env:
    """Random observations and rewards, episodes of at most four steps, of which some end the task."""
    shape, dtype = given.observation.shape, given.observation.dtype

    def obs(key):
        bytes_ = lambda: jax.random.randint(key, shape, 0, 255).astype(dtype)
        return bytes_() if dtype == jnp.uint8 else jax.random.normal(key, shape)

    def step(key, action):
        key = jax.random.fold_in(key, 1)
        over = jax.random.uniform(key) < 0.1
        return key, TimeStep(obs(key), jax.random.normal(key), over, jnp.bool_(False))

    return time_limit(Env(lambda key: (key, first(obs(key))), step, replace(given, limit=None), "noisy"), 4)


def replicated(name: str) -> dict:
    """Leaves of what each device should hold alike that are apart after six ticks of an agent."""
    run, _ = after(over_devices(noisy(specs(name)), small(name, num_envs=4)), 6)
    alike = {"parts": run.parts, "rules": run.rules, "observe": run.observe, "step": run.step}
    leaves = jax.tree_util.tree_leaves_with_path(alike)
    finite = all(bool(jnp.isfinite(x).all()) for _, x in leaves if jnp.issubdtype(x.dtype, jnp.inexact))
    return {"apart": [jax.tree_util.keystr(path) for path, leaf in leaves if not copies(leaf)], "finite": finite}


def counted() -> dict:
    """PPO's and REPPO's running statistics over two devices and on one, after ticks in which nothing is learned."""
    gaps = []
    for name, more in (("ppo", {"normalise": True}), ("reppo", {})):
        made, env = small(name, num_envs=4, lr=0.0, **more), noisy(specs(name))
        one, both = after(loop(env, made), 6)[0], after(over_devices(env, made), 6)[0]
        parts = ("norm", "reward_norm") if name == "ppo" else ("norm",)
        gaps += [apart(one.parts[part], both.parts[part]) for part in parts]
    return {"apart": max(gaps), "count": float(both.parts["norm"].count)}


if __name__ == "__main__":
    asked = [word.partition(":") for word in sys.argv[1:]]
    found = {name + colon + of: globals()[name](*[of] * bool(colon)) for name, colon, of in asked}
    print(json.dumps({"devices": jax.device_count(), **found}))

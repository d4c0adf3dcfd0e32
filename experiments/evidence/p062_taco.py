"""Paper 062, TACO: codes learned by what actions lead to keep what can be controlled, and what actions do.

A linear system of four states is moved by two mixtures of eight actions, and seen through a fixed random layer,
together with sixteen other signals that go their own way. The codes learn from windows of it; nothing is controlled.
"""

from experiments.evidence import AtLeast, Better, Claim, Outcome, Scale

STATES, ACTIONS, RANK, DISTRACTIONS, SEEN, STEPS, BATCH = 4, 8, 2, 16, 64, 3, 256
SIZE, FEATURES, HIDDEN = 64, 50, 128  # of the encoder, of its code (the authors'), of the heads


def coded(score: str, **weights: float):
    """An arm: how well a linear probe finds the state in the code, or how far apart the codes of like actions are."""

    def arm(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax
        import jax.numpy as jnp

        from experiments.evidence.fitting import fitted
        from jaxrl.agents import taco
        from jaxrl.nets import MLP, net

        floats = lambda n: jax.ShapeDtypeStruct((n,), jnp.float32)
        encoder = net(MLP((128,), SIZE), floats(SEEN))
        encode = lambda parts, obs: encoder.apply(parts["encoder"], obs)
        own = {"temporal": 0.0, "curl": 0.0, "reward": 0.0, **weights}
        made = taco.heads(taco.Config(steps=STEPS, hidden=HIDDEN, **own), FEATURES, ACTIONS, encode, floats(SIZE))
        code = taco.action_code(ACTIONS)

        def task(key):
            keys = jax.random.split(key, 5)
            turned = lambda key, n: 0.9 * jnp.linalg.qr(jax.random.normal(key, (n, n)))[0]
            return {
                "moves": turned(keys[0], STATES),
                "drifts": turned(keys[1], DISTRACTIONS),
                "pushes": jax.random.normal(keys[2], (RANK, STATES)),
                "mixes": jnp.linalg.qr(jax.random.normal(keys[3], (ACTIONS, RANK)))[0],
                "view": jax.random.normal(keys[4], (STATES + DISTRACTIONS, SEEN)) / (STATES + DISTRACTIONS) ** 0.5,
            }

        def seen(task, state, other):
            return jax.nn.relu(jnp.concatenate([state, other], axis=1) @ task["view"])

        def window(task, key):
            """(a batch of TACO's, the states that it begins with)."""
            key_state, key_other, key_action, key_again, *noise = jax.random.split(key, 4 + STEPS)
            state = start = jax.random.normal(key_state, (BATCH, STATES))
            other = jax.random.normal(key_other, (BATCH, DISTRACTIONS))
            actions = jax.random.uniform(key_action, (BATCH, STEPS, ACTIONS), minval=-1)
            obs = again = seen(task, state, other)
            for t in range(STEPS):
                state = state @ task["moves"] + actions[:, t] @ task["mixes"] @ task["pushes"]
                other = other @ task["drifts"] + 0.4 * jax.random.normal(noise[t], other.shape)
            jitter = 0.1 * jax.random.normal(key_again, again.shape)
            ahead = {"action": actions, "obs": seen(task, state, other), "again": again + jitter}
            return {"obs": obs, "ahead": {**ahead, "weight": jnp.ones(BATCH)}, "reward": start[:, 0]}, start

        def init(key):
            keys = jax.random.split(key, 3)
            return {"encoder": encoder.init(keys[0]), "code": code.init(keys[1]), "taco": made.init(keys[2])}

        def loss(parameters, task, key):
            return made.objective(parameters, {}, window(task, key)[0], key)[0]

        def found(parameters, task, key):
            """The share of the states' variance that a linear map of the codes explains, on fresh windows."""
            batch = lambda key: window(task, key)
            lots, states = jax.lax.map(batch, jax.random.split(key, 8))
            z = jax.vmap(lambda obs: made.code(parameters, obs))(lots["obs"])
            z = jnp.concatenate([z, jnp.ones((*z.shape[:-1], 1))], axis=-1)
            flat = lambda x: x.reshape(-1, x.shape[-1])
            fit = jnp.linalg.lstsq(flat(z[:4]), flat(states[:4]))[0]
            left = ((flat(z[4:]) @ fit - flat(states[4:])) ** 2).mean(axis=0)
            return 1 - (left / flat(states[4:]).var(axis=0)).mean()

        def alike(parameters, task, key):
            """How far codes of actions of one effect are apart, over how far those of two effects are."""
            key_a, key_b, key_c = jax.random.split(key, 3)
            mixes = task["mixes"]
            draw = lambda key: 0.5 * jax.random.normal(key, (1_000, ACTIONS))
            a, other = draw(key_a), draw(key_b)
            idle = draw(key_c) - draw(key_c) @ mixes @ mixes.T  # of no effect
            idle *= jnp.linalg.norm(other - a, axis=1, keepdims=True) / jnp.linalg.norm(idle, axis=1, keepdims=True)
            apart = lambda x, y: jnp.linalg.norm(
                code.apply(parameters["code"], x) - code.apply(parameters["code"], y), axis=1
            )
            return apart(a, a + idle).mean() / apart(a, other).mean()

        judged = found if score == "state" else lambda *seen: -alike(*seen)
        return fitted(scale, seeds, task, init, loss, judged)

    return arm


WHERE = "a linear system of 4 states, 8 actions of rank 2, 16 distractions, seen through a fixed layer of 64 ReLUs"
SCALES = {"smoke": Scale(20, 1, 2), "cpu": Scale(10_000, 8, 10), "gpu": Scale(20_000, 10)}

CLAIMS = (
    Claim(
        id="p062",
        paper=62,
        claim="From TACO's temporal loss alone a code arises in which the controlled states are linear.",
        environment=WHERE,
        metric="share of the states' variance that a linear probe explains",
        arms={"temporal": coded("state", temporal=1.0), "curl": coded("state", curl=1.0)},
        checks=(AtLeast("temporal", 0.9),),
        expected="above 0.9",
        scales=SCALES,
    ),
    Claim(
        id="p062-actions",
        paper=62,
        claim="The temporal loss brings together the codes of actions of the same effect, which two views of a picture "
        "cannot.",
        environment=WHERE,
        metric="minus the distance of codes of like actions, over that of unlike ones as far apart",
        arms={"temporal": coded("actions", temporal=1.0), "curl": coded("actions", curl=1.0)},
        checks=(AtLeast("temporal", -0.2), Better("temporal", "curl", by=0.5)),
        expected="below 0.2 against about 1",
        scales=SCALES,
    ),
)

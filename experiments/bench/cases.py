"""What is measured: for each case its sides, with equal settings, and the records made of them. Imports nothing heavy.

`units` is the work of one window, chosen so that a window takes about a second or two on one core; a slower peer
does less, because rates are compared.
"""

from dataclasses import dataclass, replace

SIDES = "experiments.bench.sides"


@dataclass(frozen=True)
class Pair:
    """One record: our side against a peer's.

    Attributes:
        goal: what `goal_of` should reach: the median ratio at least ('ratio'), our figure at most ('ours') or at least
            ('rate').
        figure: which figure of a compile case: 'cold' or 'warm'.
    """

    name: str
    peer: str
    goal: float | None = None
    goal_of: str = "ratio"
    figure: str = "each"
    ours: str = "ours"


@dataclass(frozen=True)
class Case:
    """Sides (name -> target and settings) that take turns, and the pairs that are reported.

    Attributes:
        kind: 'rate' (units a CPU second), 'compile' (CPU seconds in new processes), or 'figures' (counted, not timed).
    """

    unit: str
    note: str
    sides: dict[str, tuple[str, dict]]
    pairs: tuple[Pair, ...]
    kind: str = "rate"
    repeats: int = 9


def side(file: str, function: str, **settings) -> tuple[str, dict]:
    return f"{SIDES}.{file}:{function}", settings


def quick(case: Case) -> Case:
    """The same case at a glance: windows a tenth as long, two turns. Its figures prove nothing."""

    def shorter(settings):
        units = settings.get("units")
        return settings if units is None else {**settings, "units": max(units // 10, settings.get("least", 1))}

    return replace(case, repeats=min(case.repeats, 2), sides={n: (t, shorter(s)) for n, (t, s) in case.sides.items()})


# An agent's settings are written out here even where they are its defaults, which may change: equal work is the point.

# ------------------------------------------------------------------------------------------------------------ SAC

SAC = {"widths": [256, 256], "batch": 256, "lr": 3e-4, "tau": 0.005, "capacity": 10_000, "warmup": 256}
# Windows of at least the batch, so that the untimed first one fills it and passes the warm-up.
SAC_SIZE = {"units": 600, "least": 300}
SAC_OURS = {"agent": "sac", "env": "pendulum", "config": SAC | {"num_envs": 1, "ratio": 1}, **SAC_SIZE}

sac = Case(
    "environment steps, an update each, a core-second",
    "SAC on Pendulum, 2x256, batch 256, one update a step, capacity 10 000; `bare` repeats our update on one batch",
    {
        "ours": side("ours", "whole", **SAC_OURS),
        "bare": side("ours", "bare", **SAC_OURS),
        "brax": side("brax", "sac", **SAC, **SAC_SIZE),
        "rejax": side("rejax", "sac", env="Pendulum-v1", **SAC, **SAC_SIZE),
        "sbx": side("sbx", "sac", env="Pendulum-v1", **SAC, **SAC_SIZE),
        "sb3": side("sb3", "sac", env="Pendulum-v1", **SAC, units=300, least=300),
    },
    (
        Pair("sac-bare", "bare", 0.95),
        Pair("sac-brax", "brax", 1.05),
        Pair("sac-rejax", "rejax", 1.2),
        Pair("sac-sbx", "sbx", 1.6),
        Pair("sac-sb3", "sb3", 2.2),
    ),
)


def updates_a_step(ratio: int, units: int) -> tuple[str, dict]:
    """Our SAC with `ratio` updates a step; the warm-up is short, so that the first window passes it."""
    config = SAC | {"warmup": 16, "num_envs": 1, "ratio": ratio}
    return side("ours", "updating", agent="sac", env="pendulum", config=config, units=units, least=20)


utd = Case(
    "updates a core-second",
    "SAC on Pendulum as above with 8 and 20 updates a step, beside itself with one: what is above 1 is the share of "
    "environment, acting and replay's writing in a step with one update",
    {"one": updates_a_step(1, 600), "eight": updates_a_step(8, 75), "twenty": updates_a_step(20, 30)},
    (Pair("utd-8", "one", 0.95, ours="eight"), Pair("utd-20", "one", 0.95, ours="twenty")),
)

# ------------------------------------------------------------------------------------------------------------ PPO

PPO = {"widths": [64, 64], "lr": 2.5e-4, "epochs": 4, "minibatches": 4, "num_envs": 4, "unroll": 128}
PPO_TICK = PPO["num_envs"] * PPO["unroll"]
PPO_OURS = {
    "agent": "ppo",
    "env": "cartpole",
    "config": PPO | {"gru": 0, "normalise": False},
    "units": 400 * PPO_TICK,
    "least": 40 * PPO_TICK,
}
PPO_REJAX = {"env": "CartPole-v1", "activation": "tanh", **PPO, "units": 400 * PPO_TICK, "least": 40 * PPO_TICK}

ppo = Case(
    "environment steps a core-second",
    "PPO on CartPole, 4 environments of 128 steps, 4 epochs of 4 minibatches, 2x64 tanh",
    {
        "ours": side("ours", "whole", **PPO_OURS),
        "rejax": side("rejax", "ppo", **PPO_REJAX),
        "purejaxrl": side("purejaxrl", "ppo", **PPO_REJAX),
        "sbx": side("sbx", "ppo", env="CartPole-v1", **PPO, units=20 * PPO_TICK, least=2 * PPO_TICK),
    },
    (Pair("ppo-rejax", "rejax", 1.3), Pair("ppo-purejaxrl", "purejaxrl", 1.3), Pair("ppo-sbx", "sbx")),
)

PPO_SIZE = {"units": 200 * PPO_TICK, "least": 40 * PPO_TICK}

ppo_brax = Case(
    "environment steps a core-second",
    "PPO on Pendulum, a normal policy, otherwise as on CartPole; brax's minibatches are 8 pieces of 16 steps, over "
    "which it accumulates advantages, where ours are 128 single steps",
    {
        "ours": side("ours", "whole", **PPO_OURS | {"env": "pendulum"} | PPO_SIZE),
        "brax": side("brax", "ppo", **PPO, piece=16, **PPO_SIZE),
    },
    (Pair("ppo-brax", "brax", 1.3),),
)


def of_seeds(how: str | None) -> tuple[str, dict]:
    size = {"units": 16 * 60 * PPO_TICK, "least": 16 * 6 * PPO_TICK}
    return side("ours", "whole", **PPO_OURS | {"seeds": 16, "how": how} | size)


seeds = Case(
    "environment steps of all seeds a core-second",
    "PPO on CartPole as above, 16 seeds in one program, laid out as a run would choose, by `vmap` and by `lax.map`, "
    "beside one seed: 16 seeds at most 8 times the cost of one is a ratio of at least 2",
    {"chosen": of_seeds(None), "vmap": of_seeds("vmap"), "map": of_seeds("map"), "one": ppo.sides["ours"]},
    (
        Pair("seeds-16", "one", 2.0, ours="chosen"),
        Pair("seeds-16-vmap", "vmap", ours="chosen"),
        Pair("seeds-16-map", "map", ours="chosen"),
    ),
)

ppo_compile = Case(
    "core-seconds",
    "trace and compilation of PPO's chunk on CartPole, imports and initialisation apart, with an empty cache (cold) "
    "and a filled one (warm)",
    {"ours": ppo.sides["ours"], "rejax": ppo.sides["rejax"]},
    (
        Pair("ppo-compile-cold", "rejax", 5.0, "ours", "cold"),
        Pair("ppo-compile-warm", "rejax", 1.5, "ours", "warm"),
    ),
    kind="compile",
    repeats=3,
)

# ------------------------------------------------------------------------------------------------------------ DQN

DQN = {"widths": [64, 64], "lr": 1e-3, "batch": 128, "capacity": 10_000, "warmup": 256}
DQN_PERIOD = 200  # updates between copies to the target
DQN_SIZE = {"units": 5000, "least": 500}
DQN_LOOP = {"num_envs": 1, "unroll": 1, "ratio": 1, "n": 1, "double": True, "target_period": DQN_PERIOD}
DQN_OURS = {"agent": "dqn", "env": "cartpole", "config": DQN | DQN_LOOP, **DQN_SIZE}
DQN_PEER = {"env": "CartPole-v1", "target_every": DQN_PERIOD, **DQN}

dqn = Case(
    "environment steps, an update each, a core-second",
    "DQN on CartPole, 2x64 ReLU, batch 128, one update a step, double targets (sbx, SB3: single), capacity 10 000",
    {
        "ours": side("ours", "whole", **DQN_OURS),
        "rejax": side("rejax", "dqn", **DQN_PEER, **DQN_SIZE),
        "sbx": side("sbx", "dqn", **DQN_PEER, units=1000, least=300),
        "sb3": side("sb3", "dqn", **DQN_PEER, units=1000, least=300),
    },
    (Pair("dqn-rejax", "rejax", 1.3), Pair("dqn-sbx", "sbx"), Pair("dqn-sb3", "sb3", 9.0)),
)

# ------------------------------------------------------------------------------------------------------------ PQN

PQN = {"widths": [64, 64], "lr": 1e-4, "epochs": 4, "minibatches": 16, "num_envs": 32, "unroll": 64}
PQN_TICK = PQN["num_envs"] * PQN["unroll"]
PQN_SIZE = {"units": 150 * PQN_TICK, "least": 15 * PQN_TICK}

pqn = Case(
    "environment steps a core-second",
    "PQN on CartPole, 32 environments of 64 steps, 4 epochs of 16 minibatches, 2x64 LayerNorm and ReLU (ours: "
    "rectified Adam and the gradient's global norm clipped; rejax: Adam, each entry clipped)",
    {
        "ours": side("ours", "whole", agent="pqn", env="cartpole", config=PQN, **PQN_SIZE),
        "rejax": side("rejax", "pqn", env="CartPole-v1", **PQN, **PQN_SIZE),
    },
    (Pair("pqn-rejax", "rejax", 1.2),),
)

# ------------------------------------------------------------------------------------------------------- stepping


def stepping(env: str, model: str, brax: str, units: int, brax_units: int) -> Case:
    """Random controls in 16 environments; the goal is to pay at most 15 % for rewards, observations and resets."""
    ours = {"env": env, "model": model, "num_envs": 16, "starts": 16, "substeps": 1, "units": units, "least": 1000}
    return Case(
        "physics steps a core-second",
        f"raw stepping of {env} in 16 environments: ours with observation, reward and automatic reset; `mjx.step` and "
        f"C MuJoCo (its `rollout`, one thread) with the same model; brax's {brax} on its MJX pipeline",
        {
            "ours": side("stepping", "ours", **ours),
            "bare": side("stepping", "bare", **ours),
            "mujoco": side("stepping", "mujoco_c", **ours),
            "brax": side("brax", "stepping", brax=brax, num_envs=16, units=brax_units, least=100),
        },
        (
            Pair(f"step-{env}-bare", "bare", round(1 / 1.15, 3)),
            Pair(f"step-{env}-mujoco", "mujoco"),
            Pair(f"step-{env}-brax", "brax"),
        ),
    )


def models(env: str, model: str, substeps: int, units: int, raw: int, num_envs: int = 16) -> Case:
    """Our model with its task against bare `mjx.step` of the models that others have of it, at our time step."""
    ours = {"env": env, "model": model, "num_envs": num_envs, "starts": num_envs, "substeps": substeps}
    theirs = {"env": env, "model": model, "num_envs": num_envs, "substeps": substeps, "least": 4}
    return Case(
        "physics steps a core-second",
        f"random controls in {num_envs} environments of {env}: ours with observation, reward and automatic reset; "
        "`mjx.step` alone with the models of Playground 0.2.0 and of dm_control 1.0.50, at our time step",
        {
            "ours": side("stepping", "ours", **ours, units=units, least=4),
            "playground": side("stepping", "bare", package="mujoco_playground", units=units, **theirs),
            "dm_control": side("stepping", "bare", package="dm_control", units=raw, **theirs),
        },
        (Pair(f"model-{model}-playground", "playground", 1.0), Pair(f"model-{model}-dm-control", "dm_control", 3.0)),
        repeats=5,
    )


# ---------------------------------------------------------------------------------------------------------- grids

GRID = {"env": "grid-doorkey-8x8", "num_envs": 1024, "units": 400}

grid = Case(
    "environment steps a core-second",
    "DoorKey-8x8 in 1024 environments under uniform actions, minigrid's observation, episodes begun again from a bank "
    "of 1024 starts (`inline`: each start drawn as it is needed); minigrid: one environment of the Python package",
    {
        "ours": side("grid", "ours", starts=1024, **GRID),
        "inline": side("grid", "ours", starts=None, **GRID),
        "minigrid": side("grid", "minigrid", env="MiniGrid-DoorKey-8x8-v0", units=10_000, least=1000),
    },
    (Pair("grid-step", "minigrid", 1e6, "rate"), Pair("grid-step-inline", "inline", 0.9)),
)

# --------------------------------------------------------------------------------------------------------- memory

REPLAY = {"agent": "sac", "env": "cartpole-swingup", "config": {"capacity": 100_000}}

replay = Case(
    "bytes",
    "replay of 100 000 transitions of cartpole-swingup beside obs, action, reward, discount and end stored once",
    {"ours": side("ours", "replay", **REPLAY)},
    (Pair("replay-memory", "stored once", round(1 / 1.05, 3)),),
    kind="figures",
)

SEEN = {"agent": "drqv2", "env": "cartpole-swingup", "pixels": 84, "config": {"capacity": 100_000}}

replay_pixels = Case(
    "bytes",
    "replay of 100 000 transitions of stacks of three pictures, 84 x 84 x 3 bytes each, beside the stacks stored whole",
    {"ours": side("ours", "replay", **SEEN)},
    (Pair("replay-pixels", "stacks stored whole", 2.2e9, "ours"),),
    kind="figures",
)

# --------------------------------------------------------------------------------------------------------- pictures


def rendering(model: str, size: int, units: int, gl_units: int) -> tuple[Case, Case]:
    """(frames a second, seconds of compilation) of pictures of a model without shadows."""
    ours = {"model": model, "size": size, "shadow": False, "abreast": 64, "units": units, "least": 64}
    gl = {"model": model, "size": size, "shadow": False, "units": gl_units, "least": 4}
    what = f"{size} x {size} pictures of {model} without shadows, postures placed beforehand"
    sides = {"ours": side("render", "ours", **ours), "mujoco-gl": side("render", "mujoco_gl", **gl)}
    rate = Case(
        "frames a core-second",
        f"{what}; MuJoCo's renderer in software (OSMesa, one thread)",
        sides,
        (Pair(f"render-{model}", "mujoco-gl", 100.0),),
    )
    compiling = Case(
        "core-seconds",
        f"trace and compilation of {what}, with an empty cache; MuJoCo's renderer compiles nothing",
        {"ours": sides["ours"]},
        (Pair(f"render-{model}-compile", "mujoco-gl", 3.0, "ours", "cold"),),
        kind="compile",
        repeats=3,
    )
    return rate, compiling


render_cheetah, render_cheetah_compile = rendering("cheetah", 84, 64 * 96, 32)
render_cartpole, render_cartpole_compile = rendering("cartpole", 48, 64 * 256, 64)

DRQV2 = {
    "agent": "drqv2",
    "env": "cartpole-swingup",
    "repeat": 8,
    "pixels": 48,
    "config": {
        "channels": [32, 64],
        "strides": [4, 2],
        "sizes": [4, 2],
        "widths": [256, 256],
        "batch": 128,
        "capacity": 10_000,
        "warmup": 1_024,
        "num_envs": 1,
        "unroll": 1,
        "ratio": 1,
        "pad": 2,
    },
    "units": 1_600,
    "least": 1_200,
}

drqv2 = Case(
    "updates a core-second",
    "DrQ-v2 on cartpole-swingup, 48 x 48 pixels, an action repeat of 8, an update a step, batch 128, two convolutions; "
    "the whole loop renders, shifts and replays too; `losses` are the two gradient steps alone, on one batch",
    {
        "loop": side("ours", "updating", **DRQV2),
        "rules": side("ours", "bare", **DRQV2 | {"units": 200}),
        "losses": side("ours", "losses", **DRQV2 | {"units": 200}),
    },
    (
        Pair("drqv2-update", "losses", round(1 / 1.10, 3), ours="rules"),
        Pair("drqv2-loop", "rules", 0.9, ours="loop"),
    ),
)

VISUAL_SEEDS = {**DRQV2, "seeds": 4, "units": 4 * 1_600, "least": 4 * 1_200}

drqv2_seeds = Case(
    "environment steps of all seeds a core-second",
    "DrQ-v2 as above, 4 seeds in one program, laid out as a run would choose, by `vmap` and by `lax.map`",
    {
        "chosen": side("ours", "whole", **VISUAL_SEEDS),
        "vmap": side("ours", "whole", **VISUAL_SEEDS, how="vmap"),
        "map": side("ours", "whole", **VISUAL_SEEDS, how="map"),
    },
    (Pair("drqv2-seeds-vmap", "vmap", ours="chosen"), Pair("drqv2-seeds-map", "map", ours="chosen")),
    repeats=3,
)

# ------------------------------------------------------------------------------------------------- mixtures of experts


def experts(count: int) -> Case:
    """All experts at every token, beside tokens that travel to slots with a quarter to spare."""
    settings = {"tokens": 256, "width": 256, "units": 256 * 60}
    layer = {"experts": count, "hidden": 64, "k": 2, "router": "top"}
    return Case(
        "tokens a core-second",
        f"256 tokens of 256 features through {count} experts of 64 hidden units, two a token, and the gradient; "
        "`slots` drops what finds none",
        {
            "dense": side("moe", "layer", moe=layer, **settings),
            "slots": side("moe", "layer", moe=layer | {"capacity": 1.25}, **settings),
        },
        (Pair(f"moe-{count}", "slots", ours="dense"),),
    )


# ----------------------------------------------------------------------------------------------------- learned models


def ensembles(widths: list[int], batch: int, passes: int) -> Case:
    """Five members of an ensemble beside one, and beside mbrl-lib's five."""
    settings = {"widths": widths, "batch": batch, "size": 2_500, "passes": passes, "lr": 1e-3}
    name = f"ensemble-{widths[0]}"
    return Case(
        "transitions that all members saw a core-second",
        f"fits of {len(widths)} x {widths[0]}, batches of {batch}, {passes} passes over 2,000 transitions and a "
        "hold-out of 500, none stopped early; five members at most three times the cost of one is a ratio of 0.333",
        {
            "five": side("models", "fit", members=5, **settings),
            "one": side("models", "fit", members=1, **settings),
            "mbrl": side("mbrl", "fit", members=5, **settings),
        },
        (Pair(f"{name}-members", "one", 0.333, ours="five"), Pair(f"{name}-mbrl", "mbrl", 1.0, ours="five")),
        repeats=5,
    )


MBPO = {
    "agent": "sac+mbpo",
    "env": "pendulum",
    "config": {
        "widths": [64, 64],
        "batch": 64,
        "capacity": 1_000,
        "warmup": 250,
        "ratio": 10,
        "num_envs": 1,
        "mbpo": {
            "period": 250,
            "starts": 2_000,
            "horizon": [1, 1],
            "model": {"members": 5, "elites": 5, "widths": [64, 64], "batch": 32, "patience": 10, "passes": 10},
        },
    },
    "units": 1_000,
    "least": 1_000,
}

mbpo = Case(
    "environment steps a core-second",
    "MBPO on Pendulum, 10 updates of SAC a step, five members of 2 x 64 fitted each 250 steps by 10 passes over 1,000 "
    "transitions, then 2,000 rollouts; `parts` are these updates on one batch, fits and rollouts, and nothing else",
    {"ours": side("ours", "whole", **MBPO), "parts": side("models", "parts", **MBPO)},
    (Pair("mbpo-tick", "parts", round(1 / 1.10, 3)),),
    repeats=5,
)

SEARCH = {"members": 5, "widths": [200, 200, 200], "batch": 32, "abreast": 1, "horizon": 15, "population": 100}
SEARCH |= {"turns": 5, "particles": 5, "plans": 10}

planning = Case(
    "steps of the model a core-second",
    "CEM in an ensemble of 3 x 200, 100 sequences of 15 actions, 5 turns, 5 particles, from one observation and from "
    "16 at once, beside as many steps of the model in as many rows",
    {
        "one": side("models", "search", **SEARCH),
        "steps": side("models", "steps", **SEARCH),
        "many": side("models", "search", **SEARCH | {"abreast": 16, "plans": 1}),
        "many steps": side("models", "steps", **SEARCH | {"abreast": 16, "plans": 1}),
    },
    (Pair("planner", "steps", 0.9, ours="one"), Pair("planner-16", "many steps", 0.9, ours="many")),
    repeats=5,
)

DREAMS = {"width": 128, "blocks": 3, "updates": 3_000, "lr": 1e-3, "levels": 24}

dreams = Case(
    "transitions a core-second",
    "SynthER's refit of 3,000 updates to 5,000 transitions of Pendulum and 200,000 that it draws, a denoiser of "
    "3 x 128 and 24 levels; beside as many gradients and evaluations of its network",
    {
        "ours": side("models", "dreams", model=DREAMS, size=5_000, samples=200_000),
        "networks": side("models", "networks", model=DREAMS, size=5_000, samples=200_000),
    },
    (Pair("synther", "networks", 0.9),),
    repeats=2,
)

DREAMT = {
    "agent": "sac+synther",
    "env": "cheetah-run",
    "config": {"capacity": 100_000, "synther": {"samples": 200_000}},
}

dreamt = Case(
    "bytes",
    "replay of 100 000 transitions of cheetah-run with a pile of 200 000 that SynthER draws, beside the 100 000 alone",
    {"ours": side("ours", "replay", **DREAMT)},
    (Pair("synther-memory", "the experienced alone"),),
    kind="figures",
)

CASES = {
    "sac": sac,
    "ppo": ppo,
    "ppo-compile": ppo_compile,
    "ppo-brax": ppo_brax,
    "seeds": seeds,
    "dqn": dqn,
    "pqn": pqn,
    "utd": utd,
    "drqv2": drqv2,
    "drqv2-seeds": drqv2_seeds,
    **{f"moe-{count}": experts(count) for count in (4, 8, 16, 64)},
    "step-cartpole": stepping("cartpole-swingup", "cartpole", "inverted_pendulum", 30_000, 2000),
    "step-cheetah": stepping("cheetah-run", "cheetah", "halfcheetah", 4000, 500),
    "model-cheetah": models("cheetah-run", "cheetah", 1, 1000, 100),
    "model-walker": models("walker-walk", "walker", 10, 60, 10),
    "model-hopper": models("hopper-stand", "hopper", 4, 200, 20),
    "model-humanoid": models("humanoid-walk", "humanoid", 5, 40, 10, num_envs=8),
    "grid-step": grid,
    "replay": replay,
    "replay-pixels": replay_pixels,
    "ensemble-64": ensembles([64, 64], 32, 20),
    "ensemble-200": ensembles([200] * 4, 256, 10),
    "mbpo-tick": mbpo,
    "planner": planning,
    "synther": dreams,
    "synther-memory": dreamt,
    "render-cheetah": render_cheetah,
    "render-cheetah-compile": render_cheetah_compile,
    "render-cartpole": render_cartpole,
    "render-cartpole-compile": render_cartpole_compile,
}

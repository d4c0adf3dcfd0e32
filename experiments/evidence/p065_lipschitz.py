"""Paper 065: one model and a value that changes little where states do, in place of an ensemble of models."""

from experiments.evidence import Better, Claim, Scale, TrainingReturn
from experiments.evidence.modelled import MODEL, Left, model_based

LATE = TrainingReturn(after=0.5)
ONE = {"model": {**MODEL, "members": 1, "elites": 1}}


def single(**smooth):
    agent = "sac+mbpo+lipschitz" if smooth else "sac+mbpo"
    return model_based(agent, "pendulum", LATE, mbpo=ONE, **({"lipschitz": smooth} if smooth else {}))


ARMS = {
    "ensemble": model_based("sac+mbpo", "pendulum", LATE),
    "one model": single(),
    "one, noise": single(noise=0.05, weight=1.0),
    "one, spectra": single(noise=0.0, cap=10.0),
}


def steep(members: int):
    """Minus how far values differ between two draws of the same next state, against the values' spread."""

    def tell(run, recipe, env, key):
        import jax
        import jax.numpy as jnp

        from jaxrl.models import ensemble

        model = ensemble.dynamics(env.specs, ensemble.Config(**{**MODEL, "members": members, "elites": members}))
        look, data = recipe.agent.views, recipe.source.everything(run.source)
        rows = jax.random.choice(key, len(data["weight"]), (512,), p=data["weight"] / data["weight"].sum())
        after = lambda key: model.step(run.parts["model"], data["obs"][rows], data["action"][rows], key).next_obs
        value = lambda obs: look["q"](run.parts, obs, look["policy"](run.parts, obs, key)).min(axis=0)
        one, other = (value(after(key)) for key in jax.random.split(key))
        return -jnp.percentile(jnp.abs(one - other), 95) / one.std()

    return tell


WHERE = "pendulum, 200 steps an episode; SAC with 10 updates a step of a model's rollouts, members of 2 x 64"

CLAIMS = (
    Claim(
        id="p065",
        paper=65,
        claim="With one model and values kept smooth against noise MBPO earns at most 20 less than with an ensemble.",
        environment=WHERE,
        metric=str(LATE),
        arms=ARMS,
        checks=(Better("one, noise", "ensemble", by=-20), Better("one, spectra", "ensemble", by=-20)),
        expected="as much as an ensemble, and more than one model alone",
        scales={"smoke": Scale(1_000, 1, 2), "cpu": Scale(4_000, 8, 20), "gpu": Scale(5_000, 10)},
    ),
    Claim(
        id="p065-smooth",
        paper=65,
        claim="Kept smooth against noise, values differ less between draws of a model's next state.",
        environment=WHERE,
        metric="minus the 95th percentile of the difference of values between two draws, in their standard deviations",
        arms={
            "ensemble": Left(ARMS["ensemble"], steep(5)),
            "one model": Left(ARMS["one model"], steep(1)),
            "one, noise": Left(ARMS["one, noise"], steep(1)),
        },
        checks=(Better("one, noise", "one model"),),
        expected="one model steepest, an ensemble less, the smooth values least",
        scales={"smoke": Scale(1_000, 1), "cpu": Scale(2_000, 8), "gpu": Scale(5_000, 10)},
    ),
)

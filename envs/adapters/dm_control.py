"""DM Control's own tasks on C MuJoCo: 'dm_control:cartpole-swingup', tested with dm_control 1.0.50. On the host.

What curves are compared on that were published with dm_control. Names are DOMAIN-TASK, with our hyphens
('ball-in-cup-catch') or their underscores ('ball_in_cup-catch').
"""

import math
import warnings
from typing import Any

import numpy as np

from envs.adapters import built, needed
from envs.adapters.simulators import repeated, scaled, spec
from jaxrl.core import Specs, unknown
from jaxrl.host import Host
from jaxrl.simulators import Step, number


class Task:
    """One dm_control environment; observations are one float32 vector, in dm_control's order."""

    def __init__(self, suite: Any, domain: str, task: str, id: str, **settings: Any):
        self.random = np.random.RandomState(0)  # all of a task's randomness, seeded anew at each reset
        settings = {"random": self.random, **settings}
        how = {"flat_observation": True}
        self.env = built(id, suite.load, domain, task, task_kwargs=settings, environment_kwargs=how)
        bounds = self.env.action_spec()
        self.box, self.scale = scaled(id, bounds.minimum, bounds.maximum)

    def reset(self, seed: int) -> np.ndarray:
        self.random.seed(seed)
        return self.show(self.env.reset())

    def step(self, action: np.ndarray) -> Step:
        out = self.env.step(self.scale(action))
        over = out.last()
        return Step(self.show(out), number(out.reward), over and out.discount == 0, over and out.discount != 0)

    def close(self) -> None:
        self.env.close()

    def show(self, out: Any) -> np.ndarray:
        return np.asarray(out.observation["observations"], np.float32)


def simulated(name: str, repeat: int = 1, **settings: Any) -> Host:
    """The host environment of a task.

    Args:
        **settings: of the task's constructor.
    """
    id = f"dm_control:{name}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of machines without a display, which nothing here needs
        suite = needed("dm_control.suite", id, "dm_control")
    known = {f"{domain}-{task}".replace("_", "-"): (domain, task) for domain, task in suite.ALL_TASKS}
    wanted = name.replace("_", "-")
    if wanted not in known:
        raise unknown("dm_control task", name, known)

    def simulator() -> Task:
        return Task(suite, *known[wanted], id, **settings)

    make, one = repeated(simulator, repeat), simulator()
    steps = one.env._step_limit  # of 1000 but for lqr, which never ends
    limit = None if math.isinf(steps) else math.ceil(round(steps, 6) / repeat)
    specs = Specs(spec(one.reset(0).shape), one.box, repeat, limit)
    one.close()
    return Host(make, specs, id)

"""The host's side of a run: directory, checkpoints, logs, progress, plots.

`execute(env, recipe, path, settings)` trains or continues. Library code of jaxrl opens files here and nowhere else.
`load(path, build)` gives the policy of a run that was saved.
"""

from jaxrl.run.driver import Settings, execute
from jaxrl.run.evaluation import Policy, load
from jaxrl.run.health import Diverged

__all__ = ["Diverged", "Policy", "Settings", "execute", "load"]

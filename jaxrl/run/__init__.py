"""The host's side of a run: directory, checkpoints, logs, progress, plots.

`execute(env, recipe, path, settings)` trains or continues. Library code of jaxrl opens files here and nowhere else.
"""

from jaxrl.run.driver import Diverged, Settings, execute

__all__ = ["Diverged", "Settings", "execute"]

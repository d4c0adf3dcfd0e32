"""An environment's line in the registry. Imports nothing heavy, so that families can list theirs for a command line."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """Where an environment is made.

    Attributes:
        target: 'module:factory'.
        repeat: action repeat that the literature runs this task with (PlaNet's, for DM Control).
        settings: arguments of the factory that the name stands for.
    """

    target: str
    repeat: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

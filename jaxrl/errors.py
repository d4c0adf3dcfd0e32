"""What is said when the input is at fault. Imports nothing heavy, so that a command line can answer at once."""

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """One sentence that names the field at fault and the remedy; the command line prints it and exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """The sentence for a name that does not exist: what it is, what there is, and the nearest valid name."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return BadInput(f"unknown {kind} '{name}': there are {', '.join(known) or 'none'}.{hint}")

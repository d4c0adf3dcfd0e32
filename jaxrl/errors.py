"""What is said when the input is at fault. Imports nothing heavy, so that a command line can answer at once."""

import difflib
from collections.abc import Iterable

MANY = 32  # names that a sentence can list


class BadInput(ValueError):
    """One sentence that names the field at fault and the remedy; the command line prints it and exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """The sentence for a name that does not exist: what it is, what there is, and the nearest valid name."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    if len(known) <= MANY:
        listed = ", ".join(known) or "none"
    else:  # a list that nobody would read: the nearest of it, or its beginning
        listed = f"{len(known)}, {'the nearest' if near else 'such as'} {', '.join(near or known[:3])}"
    return BadInput(f"unknown {kind} '{name}': there are {listed}.{hint}")

"""The commands: training, evaluating, and what measures and shows the rest."""

import sys

from jaxrl.interrupts import end_at_once

# `python -m experiments.NAME` imports for a second or two before `cli.answer` is called.
if sys.argv[:1] == ["-m"]:
    end_at_once()

"""Recipes, one file an algorithm: each module exports `Config` and `recipe(specs, config)`, or is an addition to one.

The tables hold names only, so that a command line can list and suggest agents without importing one. An agent may be a
sum of a recipe and additions (`jaxrl.agents.combined`).
"""

import re

from jaxrl.errors import BadInput, unknown

AGENTS = {
    "sac": "jaxrl.agents.sac",
    "td3": "jaxrl.agents.td3",
    "fast_td3": "jaxrl.agents.fast_td3",
    "redq": "jaxrl.agents.redq",
    "droq": "jaxrl.agents.droq",
    "crossq": "jaxrl.agents.crossq",
    "simba_v2": "jaxrl.agents.simba_v2",
    "bro": "jaxrl.agents.bro",
    "xqc": "jaxrl.agents.xqc",
    "mrq": "jaxrl.agents.mrq",
    "dr_q": "jaxrl.agents.dr_q",
    "flash_sac": "jaxrl.agents.flash_sac",
    "ppo": "jaxrl.agents.ppo",
    "reppo": "jaxrl.agents.reppo",
    "drq": "jaxrl.agents.drq",
    "drqv2": "jaxrl.agents.drqv2",
    "dqn": "jaxrl.agents.dqn",
    "pqn": "jaxrl.agents.pqn",
    "stream_q": "jaxrl.agents.stream_q",
    "stream_sarsa": "jaxrl.agents.stream_sarsa",
    "stream_ac": "jaxrl.agents.stream_ac",
    "stream_td": "jaxrl.agents.stream_td",
    "pets": "jaxrl.agents.pets",
    "ucbvi": "jaxrl.agents.ucbvi",
    "mex_tabular": "jaxrl.agents.mex_tabular",
    "drm": "drqv2+drm",
    "coplanner": "sac+coplanner",
    "mbpo": "sac+mbpo",
    "mentor": "drqv2+mentor",
    "synther": "sac+synther",
    "taco": "drqv2+taco",
}

ADDITIONS = {
    "adaptive_rr": "jaxrl.agents.adaptive_rr",
    "cip": "jaxrl.agents.cip",
    "coplanner": "jaxrl.agents.coplanner",
    "drm": "jaxrl.agents.drm",
    "dyna": "jaxrl.agents.dyna",
    "lipschitz": "jaxrl.agents.lipschitz",
    "mbpo": "jaxrl.agents.mbpo",
    "mentor": "jaxrl.agents.mentor",
    "mex": "jaxrl.agents.mex",
    "mex_mb": "jaxrl.agents.mex_mb",
    "moe": "jaxrl.agents.moe",
    "synther": "jaxrl.agents.synther",
    "taco": "jaxrl.agents.taco",
}


def addends(name: str) -> tuple[str, dict[str, str]]:
    """The module of a recipe, and of each addition by its last name: of 'drm+taco' those of drqv2, and of drm and taco.

    An agent is one of `AGENTS` or any 'package.module', followed by additions, of `ADDITIONS` or modules likewise.

    Raises:
        BadInput: a name that is in no table, or an addition that is there twice.
    """
    first, *rest = name.split("+")
    base, *own = AGENTS.get(first, first).split("+")
    if first in ADDITIONS and first not in AGENTS:
        raise BadInput(
            f"'{first}' is an addition to an agent, and none is named: try {'+'.join(('drqv2', first, *rest))}."
        )
    for kind, word, table in (("agent", base, AGENTS), *(("addition", word, ADDITIONS) for word in rest)):
        if word not in table and not re.fullmatch(r"\w+(\.\w+)+", word):
            raise unknown(kind, word, table)
    added: dict[str, str] = {}
    for word in own + rest:
        short = word.rpartition(".")[2]  # a field of the sum's configuration
        if short in added:
            raise BadInput(f"agent '{name}' has '{short}' twice: once is all it can have.")
        added[short] = ADDITIONS.get(word, word)
    return AGENTS.get(base, base), added


def foreign(name: str) -> tuple[str, ...]:
    """The words of an agent's name that are in no table: modules of others, which are imported where it is built."""
    return tuple(word for word in name.split("+") if "." in word and word not in AGENTS and word not in ADDITIONS)

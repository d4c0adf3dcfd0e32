"""Recipes, one file an algorithm: each module exports `Config` and `recipe(specs, config)`.

The table holds names only, so that a command line can list and suggest agents without importing one.
"""

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
}

"""Tabular MDPs: small worlds with known transition tables, and exact solvers to hold a learner against."""

from envs.entry import Entry

TABLE = {
    name: Entry(f"envs.tabular.worlds:{factory}")
    for name, factory in {
        "tabular-chain": "chain",
        "tabular-deep-sea": "deep_sea",
        "tabular-river-swim": "river_swim",
        "tabular-low-rank": "low_rank",
    }.items()
}

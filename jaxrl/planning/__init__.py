"""Model-predictive control: sequences of actions that a score likes best, of which the first is done."""

from jaxrl.planning.guided import guided, looked_ahead
from jaxrl.planning.search import Plan, Search, cem, icem, mppi, random_shooting, td_mppi

__all__ = ["Plan", "Search", "cem", "guided", "icem", "looked_ahead", "mppi", "random_shooting", "td_mppi"]

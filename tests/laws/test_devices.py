"""Every agent and addition over two virtual devices: what is replicated is equal, or the combination is refused."""

import jax
import pytest

from jaxrl.core import BadInput
from jaxrl.loop import over_devices
from tests.devices import found_on, noisy
from tests.small import EVERYONE, small, specs

ALONE = ("stream_q", "stream_sarsa", "stream_ac", "stream_td", "ucbvi", "mex_tabular")  # of one environment
EVENTFUL = (
    "pets",
    "sac+cip",
    "sac+coplanner",
    "sac+mbpo",
    "sac+mex_mb",
    "sac+synther",
)  # learn from one device's source
SPREAD = [name for name in EVERYONE if name not in (*ALONE, *EVENTFUL)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SPREAD)
def test_what_is_replicated_is_equal_after_six_ticks(name):
    assert found_on(2, f"replicated:{name}")[f"replicated:{name}"] == {"apart": [], "finite": True}


@pytest.mark.parametrize("name", [*ALONE, *EVENTFUL])
def test_what_cannot_be_spread_is_refused(name):
    sentence = (
        "2 devices do not divide: choose a multiple" if name in ALONE else "so that devices would differ: spread seeds"
    )
    with pytest.raises(BadInput, match=sentence):
        over_devices(noisy(specs(name)), small(name), jax.devices()[:1] * 2)


@pytest.mark.slow
def test_running_statistics_count_all_environments():
    """PPO's and REPPO's of observations and returns, as on one device; PPO's advantages over both."""
    found = found_on(2, "counted")["counted"]
    assert found["apart"] < 1e-4 and found["count"] > 6 * 4 * 4

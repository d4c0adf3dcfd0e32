"""Names of environments and what they mean."""

import pytest

from envs import adapters
from envs.registry import TABLE, default_repeat
from jaxrl.core import BadInput

SPELLED = [
    "ball_in_cup-catch",
    "point_mass-easy",
    "cartpole-balance_sparse",
    "finger-turn_easy",
    "manipulator-bring_ball",
]
SPELLED += ["acrobot-swingup_sparse", "cartpole-swingup_sparse", "finger-turn_hard", "ball-in_cup-catch"]


@pytest.mark.parametrize("name", SPELLED)
def test_dm_controls_names_have_one_repeat_in_every_spelling(name):
    ours = name.replace("_", "-")
    assert default_repeat(f"dm_control:{name}") == default_repeat(f"dm_control:{ours}") == TABLE[ours].repeat > 1


def test_dm_controls_names_are_taken_in_every_spelling():
    pytest.importorskip("dm_control")
    for name in ("point_mass-easy", "point-mass-easy"):
        assert adapters.host(f"dm_control:{name}", 4).specs.action.shape == (2,)
    with pytest.raises(BadInput, match="Did you mean 'ball-in-cup-catch'"):
        adapters.host("dm_control:ball_in_cap-catch")

"""Every control task by its id: specs, clocks and shapes. The physics, which is slow to trace, stands still here;
`tests/test_control.py` and `tests/reference` step it."""

import pytest

from envs import control
from envs.control import physics
from envs.core import action_repeat
from envs.registry import check_env, default_repeat, make
from jaxrl.core import Box
from tests import dm_control_reference as dm


@pytest.mark.parametrize("id", control.TABLE)
def test_each_task_keeps_its_shapes_and_its_clock(id, monkeypatch):
    dm.stand_still(monkeypatch, sensors=lambda state: getattr(state.task, "touch", state.task))
    monkeypatch.setattr(physics, "first_free", lambda model, candidates: candidates[0])
    env = make(id)
    assert check_env(env, 0) == []
    assert env.name == id and env.specs.limit == 1000 and env.specs.frames == 1
    assert isinstance(env.specs.action, Box) and len(env.specs.observation.shape) == 1
    repeat = default_repeat(id)
    assert repeat in (2, 4, 8)
    assert action_repeat(env, repeat).specs.limit == 1000 / repeat

"""Agents as sums: whose numbers and seams arrive where, in which order additions are put on, and what is refused."""

from dataclasses import dataclass, fields
from types import ModuleType

import pytest

from jaxrl.agents import combined
from jaxrl.core import BadInput


@dataclass(frozen=True)
class Config:
    batch: int = 8
    lr: float = 0.5


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Own:
    size: int = 3
    inner: Inner = Inner()


def module(name, **exports) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(exports)
    return made


BASE = module(
    "base", Config=Config, recipe=lambda specs, config, code=None, policy=None: [(code, policy, config.batch)]
)


def addition(name, **exports):
    add = lambda recipe, specs, config, base: [*recipe, (name, specs, config, base.batch)]
    return module(name, Config=Own, add=add, **exports)


def test_the_base_alone_is_the_base():
    assert combined.summed(BASE, {}) is BASE


def test_additions_are_put_on_in_their_order_with_their_own_numbers():
    whole = combined.summed(BASE, {"first": addition("one"), "second": addition("two")})
    config = combined.configured(whole.Config, {"batch": 2, "second": {"size": 9}})
    assert issubclass(whole.Config, Config) and [field.name for field in fields(whole.Config)][2:] == [
        "first",
        "second",
    ]
    made = whole.recipe("specs", config)
    assert made == [(None, None, 2), ("one", "specs", Own(), 2), ("two", "specs", Own(size=9), 2)]


def test_an_additions_numbers_are_the_bases_where_it_has_such():
    one, two = addition("one", NUMBERS={"batch": 64, "none": 1}), addition("two", NUMBERS={"batch": 32, "lr": 0.1})
    whole = combined.summed(BASE, {"one": one, "two": two})
    assert (whole.Config().batch, whole.Config().lr) == (32, 0.1)  # the last has its way
    assert not hasattr(whole.Config(), "none")
    assert (Config().batch, Config().lr) == (8, 0.5)
    assert whole.Config(batch=5).batch == 5
    with pytest.raises(AttributeError):
        whole.Config().batch = 3  # frozen


def test_seams_go_in_from_below_once_each():
    asked = []

    def seam(name):
        return lambda specs, config, base: asked.append((specs, config.size, base.batch)) or {name: f"a {name}"}

    whole = combined.summed(
        BASE, {"one": addition("one", seams=seam("code")), "two": addition("two", seams=seam("policy"))}
    )
    config = combined.configured(whole.Config, {"one": {"size": 4}})
    assert whole.recipe("specs", config)[0] == ("a code", "a policy", 8)
    assert asked == [("specs", 4, 8), ("specs", 3, 8)]
    twice = combined.summed(
        BASE, {"one": addition("one", seams=seam("code")), "two": addition("two", seams=seam("code"))}
    )
    with pytest.raises(BadInput, match="'two' and an addition before it both change the agent's code"):
        twice.recipe("specs", twice.Config())
    fixed = combined.summed(BASE, {"one": addition("one", seams=seam("eye"))})
    with pytest.raises(BadInput, match="'one' changes an agent's eye, which this one fixes"):
        fixed.recipe("specs", fixed.Config())


def test_settings_reach_as_deep_as_they_are_nested():
    made = combined.configured(Own, {"size": 2, "inner": {"depth": 7}})
    assert made == Own(2, Inner(7))
    assert combined.configured(Own, {}) == Own()


def test_takes():
    assert combined.takes(lambda specs, code: None, "code") and not combined.takes(lambda specs: None, "code")


def test_names_find_modules():
    assert combined.find("sac").__name__ == "jaxrl.agents.sac"
    whole = combined.find("drm+taco")
    assert [field.name for field in fields(whole.Config)][-2:] == ["drm", "taco"]
    assert whole.Config().batch == 1024  # TACO's number


def test_modules_that_lack_what_they_must_export_are_refused():
    with pytest.raises(BadInput, match="common has no 'Config'; an agent exports Config and recipe"):
        combined.loaded("jaxrl.agents.common", "agent", ("Config", "recipe"))
    with pytest.raises(BadInput, match="has no 'add'; an addition exports Config and add"):
        combined.loaded("jaxrl.agents.sac", "addition", ("Config", "add"))
    with pytest.raises(BadInput, match=r"there is no module 'jaxrl\.agents\.nothing' here to import"):
        combined.loaded("jaxrl.agents.nothing", "agent", ("Config",))
    with pytest.raises(BadInput, match="there is no module 'nowhere' here to import"):
        combined.loaded("nowhere.at.all", "agent", ("Config",))

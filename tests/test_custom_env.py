"""The environment of docs/custom-env.md: its physics, its check, trained by id, and found by a package's name."""

import json
import re
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

import envs
from docs.examples import custom_env
from docs.examples.custom_env import Orbit, drift, rendezvous
from experiments import train

ID = "docs.examples.custom_env:rendezvous"
DOCS = Path(custom_env.__file__).parents[1]


def test_the_page_shows_the_code_that_is_tested():
    page = (DOCS / "custom-env.md").read_text()
    for language, path in (("python", "custom_env.py"), ("toml", "orbit_envs/pyproject.toml")):
        blocks = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        code = (DOCS / "examples" / path).read_text()
        assert blocks and all(block.strip() in code for block in blocks)


def test_free_flight_obeys_the_laws_of_orbits():
    still = Orbit(jnp.array([0.0, 80.0]), jnp.zeros(2))
    assert_allclose(drift(still, 1000.0).place, [0, 80], atol=1e-3)  # ahead on the same orbit one stays ahead
    ellipse = Orbit(jnp.array([30.0, 0.0]), jnp.array([0.0, -2 * custom_env.RATE * 30]))
    once_round = 2 * np.pi / custom_env.RATE
    assert_allclose(drift(ellipse, once_round).place, [30, 0], atol=0.05)
    assert_allclose(drift(ellipse, once_round / 4).place, [0, -60], atol=0.05)  # twice as long as it is high
    forwards = Orbit(jnp.zeros(2), jnp.array([0.0, 0.1]))
    assert drift(forwards, 600.0).place[0] > 10 and drift(forwards, once_round).place[1] < -100
    halves = drift(drift(ellipse, 70.0), 130.0)
    assert_allclose(halves.place, drift(ellipse, 200.0).place, rtol=1e-4, atol=1e-3)


def test_it_is_sound_and_docks_where_it_should():
    env = envs.make(ID)
    assert envs.check_env(env, 80) == []
    step = jax.jit(env.step)
    at = lambda place, velocity: {"inner": Orbit(jnp.array(place), jnp.array(velocity)), "t": jnp.int32(0)}
    _, out = step(at([0.0, 1.0], [0.0, 0.1]), jnp.array([0.0, -0.5]))
    assert out.terminated and not out.truncated
    assert_allclose(out.reward, -1 / 51 - 0.05 * 0.5, rtol=1e-3)
    assert not step(at([0.0, 1.0], [0.0, 0.4]), jnp.zeros(2))[1].terminated
    _, out = step({**at([0.0, 90.0], [0.0, 0.0]), "t": jnp.int32(59)}, jnp.zeros(2))
    assert out.truncated and not out.terminated
    assert_allclose(out.reward, -90 / 140, rtol=1e-3)


def test_its_picture_shows_station_and_spacecraft():
    env = rendezvous()
    picture = np.asarray(jax.jit(lambda s: env.draw(s, (50, 50), None))(Orbit(jnp.array([100.0, 0.0]), jnp.zeros(2))))
    assert picture.shape == (50, 50, 3) and picture.dtype == np.uint8
    ink = np.abs(picture.astype(int) - picture[0, 0]).sum(axis=-1) > 150
    assert ink[12, 24:26].all() and ink[25, 23:27].all()  # above, and in the middle
    assert not ink[18].any() and not ink[40].any()


def test_it_is_trained_by_id(tmp_path, capfd):
    args = ["--agent", "ppo", "--env", ID, "--steps", "128", "--chunk", "128", "--evaluate-episodes", "1"]
    args += [
        "--agent.widths",
        "8",
        "--agent.epochs",
        "1",
        "--agent.num-envs",
        "4",
        "--agent.unroll",
        "32",
        "--agent.minibatches",
        "1",
    ]
    assert train.main([*args, "--run", str(tmp_path / "run")]) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert line["steps"] == 128 and -70 < line["return_iqm"] < 0


def test_a_package_of_its_own_is_found_by_name(tmp_path, monkeypatch):
    """What installing the package leaves: its module, and the entry points of its pyproject.toml."""
    points = tomllib.loads((DOCS / "examples" / "orbit_envs" / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in names.items()) for group, names in points.items()]
    info = tmp_path / "orbit_envs-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: orbit-envs\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "orbit_envs.py").write_text(Path(custom_env.__file__).read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "orbit-rendezvous" in envs.names()
    env = envs.make("orbit-rendezvous", limit=7)
    assert (env.name, env.specs.limit) == ("orbit-rendezvous", 7) and envs.check_env(env, 0) == []

"""Checkpoints: what is read back is what was written, or it is refused by name."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.core import BadInput, Wide
from jaxrl.loop import Run
from jaxrl.run import checkpoint
from jaxrl.run.directory import Damaged, Home, differences, locked, sealed, unsealed


def a_run(step=100, width=3, dtype=jnp.float32) -> Run:
    """A run with every kind of leaf: keys, 16-bit floats, booleans, scalars, arrays without elements."""
    key = jax.random.key(step)
    return Run(
        parts={"actor": {"w": jax.random.normal(key, (2, width), dtype), "half": jnp.ones(2, jnp.bfloat16)}},
        rules={"count": jnp.int32(step)},
        observe=(),
        source={"none": jnp.zeros((0, 3)), "full": jnp.arange(5) > 2},
        envs={"keys": jax.random.split(key, 3)},
        last=jnp.ones(3),
        memory=(),
        key=jax.random.key(0, impl="rbg"),
        step=Wide.of(step),
    )


def bits(run):
    return {
        name: np.asarray(jax.random.key_data(x) if checkpoint.is_key(x) else x).tobytes()
        for name, x in checkpoint.leaves(run).items()
    }


def shapes(run):
    return jax.eval_shape(lambda: run)


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, of steps 100, 200 and 300."""
    for step in (100, 200, 300):
        checkpoint.save(tmp_path / "c", a_run(step), {})
    return tmp_path / "c"


def flip(file, at, bit=0):
    data = bytearray(file.read_bytes())
    data[at % len(data)] ^= 1 << bit
    file.write_bytes(data)


def test_read_back_bit_for_bit(folder):
    path, content = checkpoint.newest(folder, print)
    run = checkpoint.load(path, content, shapes(a_run()))
    assert bits(run) == bits(a_run(300))
    assert jax.tree.structure(run) == jax.tree.structure(a_run())
    assert run.key.dtype == a_run().key.dtype


def test_a_relative_directory_will_do(tmp_path, monkeypatch):
    """As `make train` names it: Orbax itself takes absolute paths only."""
    monkeypatch.chdir(tmp_path)
    run = a_run()
    checkpoint.save(Path("runs/mine"), run, {})
    found = checkpoint.newest(Path("runs/mine"), print)
    assert bits(checkpoint.load(*found, shapes(run))) == bits(run)


def test_parts_alone(folder):
    path, content = checkpoint.newest(folder, print, rooms=("parts",))
    parts = checkpoint.load_parts(path, content, shapes(a_run().parts))
    assert checkpoint.fingerprint(parts) == checkpoint.fingerprint(a_run(300).parts)


def test_fingerprint_sees_bytes_names_and_types():
    zeros = jnp.zeros(4)
    several = ({"a": zeros}, {"b": zeros}, {"a": zeros.astype(jnp.int32)}, {"a": zeros.reshape(2, 2)})
    prints = {checkpoint.fingerprint(parts) for parts in several}
    assert len(prints) == 4


def test_size_counts_every_leaf():
    run = a_run()
    assert checkpoint.size(run) == checkpoint.size(shapes(run)) == sum(len(data) for data in bits(run).values())


def test_the_last_few_are_kept(folder, monkeypatch):
    checkpoint.save(folder, a_run(400), {})
    assert [path.name for path in checkpoint.published(folder)] == [f"{n:012d}" for n in (400, 300, 200)]
    monkeypatch.setattr(checkpoint, "LARGE", 1)
    checkpoint.save(folder, a_run(500), {})
    assert [path.name for path in checkpoint.published(folder)] == [f"{n:012d}" for n in (500, 400)]
    assert not list(folder.glob(".draft*"))


def test_any_flipped_byte_is_detected(folder):
    path = checkpoint.published(folder)[0]
    tried = 0
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size):
        intact = file.read_bytes()
        for at in {0, len(intact) // 3, len(intact) // 2, len(intact) - 1}:
            flip(file, at, bit=at % 8)
            with pytest.raises(Damaged):
                checkpoint.verify(path)
            file.write_bytes(intact)
            tried += 1
    assert tried > 40
    checkpoint.verify(path)


def test_a_manifest_with_a_byte_flipped_is_detected(folder):
    file = checkpoint.published(folder)[0] / "manifest.json"
    intact = file.read_bytes()
    for at in range(0, len(intact), 5):
        flip(file, at, bit=at % 8)
        with pytest.raises(Damaged):
            unsealed(file)
        file.write_bytes(intact)


def truncate(path):
    file = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])


def lose_a_file(path):
    next(p for p in (path / "rest").rglob("*") if p.is_file()).unlink()


def lose_the_manifest(path):
    (path / "manifest.json").unlink()


def be_of_another_step(path):
    (path / "manifest.json").write_bytes((path.parent / f"{200:012d}" / "manifest.json").read_bytes())


def be_empty(path):
    (path / "manifest.json").write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, lose_a_file, lose_the_manifest, be_of_another_step, be_empty])
def test_the_newest_intact_one_is_taken_and_nothing_is_removed(folder, damage):
    damage(checkpoint.published(folder)[0])
    before = sum(1 for p in folder.rglob("*") if p.is_file())
    said = []
    path, content = checkpoint.newest(folder, said.append, set_aside=True)
    assert bits(checkpoint.load(path, content, shapes(a_run()))) == bits(a_run(200))
    assert len(said) == 1 and "falling back to step 200" in said[0]
    assert (folder / f"{300:012d}.damaged").is_dir()
    assert sum(1 for p in folder.rglob("*") if p.is_file()) == before
    said.clear()
    assert checkpoint.newest(folder, said.append)[0] == path and not said


def test_a_damaged_one_set_aside_twice_keeps_both(folder):
    for _ in range(2):
        truncate(checkpoint.published(folder)[0])
        checkpoint.newest(folder, print, set_aside=True)
        checkpoint.save(folder, a_run(300), {})
    assert {p.name for p in folder.iterdir() if "damaged" in p.name} == {
        f"{300:012d}.damaged",
        f"{300:012d}.damaged-1",
    }


def test_none_intact_is_one_sentence_and_nothing_is_touched(folder):
    for path in checkpoint.published(folder):
        truncate(path)
    before = sorted(folder.rglob("*"))
    with pytest.raises(BadInput, match=r"no checkpoint in .* is intact: .*; nothing was removed"):
        checkpoint.newest(folder, print, set_aside=True)
    assert sorted(folder.rglob("*")) == before


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "nowhere", print) is None


@pytest.mark.parametrize(
    ("like", "sentence"),
    [
        (a_run(width=4), r"leaf 'parts/actor/w' is float32\[2, 4\] in this run but float32\[2, 3\] in its checkpoint"),
        (a_run(dtype=jnp.float16), r"leaf 'parts/actor/w' is float16\[2, 3\] in this run but float32"),
        (a_run()._replace(memory=jnp.ones(2)), r"leaf 'memory' is float32\[2\] in this run but absent in its"),
        (a_run()._replace(rules={}), r"leaf 'rules/count' is absent in this run but int32\[\]"),
        (a_run()._replace(key=jax.random.key(0)), r"leaf 'key' is key<fry>\[\] in this run but key<rbg>"),
    ],
)
def test_another_width_dtype_or_tree_is_refused_by_leaf(folder, like, sentence):
    found = checkpoint.newest(folder, print)
    with pytest.raises(BadInput, match=sentence):
        checkpoint.load(*found, shapes(like))


@pytest.mark.parametrize("stage", ["sealed", "sync"])
def test_a_kill_while_saving_leaves_the_former_ones(folder, monkeypatch, stage):
    def killed(*args):
        raise SystemExit

    monkeypatch.setattr(checkpoint, stage, killed)
    with pytest.raises(SystemExit):
        checkpoint.save(folder, a_run(400), {})
    monkeypatch.undo()
    assert checkpoint.newest(folder, print)[1]["step"] == 300 and list(folder.glob(".draft*"))
    checkpoint.save(folder, a_run(400), {})
    assert checkpoint.newest(folder, print)[1]["step"] == 400 and not list(folder.glob(".draft*"))


def test_a_second_writer_is_refused_by_process(tmp_path):
    home = Home(tmp_path)
    code = "import sys, pathlib, jaxrl.run.directory as d\nwith d.locked(d.Home(pathlib.Path(sys.argv[1]))): 1"
    with locked(home):
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert f"is being written by process {os.getpid()}" in other.stderr and other.returncode == 1
    with locked(home):  # the lock goes with its holder, not with the file
        pass


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(BadInput, match="which is a file"), locked(Home(tmp_path / "run")):
        pass


def test_a_seal_gives_back_its_content_and_refuses_nan(tmp_path):
    content = {"b": [1, None, 0.1], "a": "é"}
    (tmp_path / "file").write_bytes(sealed(content))
    assert unsealed(tmp_path / "file") == content
    with pytest.raises(ValueError, match="Out of range float"):
        sealed({"x": float("nan")})


def test_differences_have_dotted_names():
    asked, stored = {"a": 1, "c": {"x": 1, "y": 2}}, {"a": 1, "c": {"x": 3, "z": 4}}
    assert list(differences(asked, stored)) == [("c.x", 1, 3), ("c.y", 2, None), ("c.z", None, 4)]

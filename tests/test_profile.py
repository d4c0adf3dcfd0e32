"""The profile kit: counts against XLA's and against sums by hand, pieces that do not vanish, energy never invented."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.probes import probe
from experiments.profile import __main__ as command
from experiments.profile import measure
from jaxrl.agents import sac
from jaxrl.core import Agent, Ctx, Recipe, Rule, adam, every, mean, minimise, on, repeat, track
from jaxrl.errors import BadInput
from jaxrl.sources import rollout
from jaxrl.statistics.costs import Cost, cost

PRODUCT = 2 * 8 * 16 * 16  # operations of [8, 16] @ [16, 16]
X, W = jnp.ones((8, 16)), jnp.ones((16, 16))


def counted(fn, *args, donate=(), **how):
    return cost(jax.jit(fn, donate_argnums=donate).lower(*args).compile().as_text(), **how)


# ------------------------------------------------------------------------------------------------------- counting


def images(stride, padding, groups=1):
    labels = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
    return lambda x, k: jax.lax.conv_general_dilated(x, k, (stride, stride), padding, **labels)


LOOP_FREE = {
    "product": (lambda x, w: x @ w, X, W),
    "products side by side": (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), jnp.ones((3, 4, 5)), jnp.ones((3, 5, 6))),
    "gradient": (jax.grad(lambda w, x: (jnp.tanh(jax.nn.relu(x @ w) @ w) ** 2).mean()), W, X),
    "convolution": (images(2, "SAME"), jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 4))),
    "groups": (images(1, "SAME", 3), jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 2, 6))),
    "dilated": (
        jax.grad(lambda x, k: (images(2, "VALID")(x, k) ** 2).sum()),
        jnp.ones((2, 9, 9, 3)),
        jnp.ones((3, 3, 3, 4)),
    ),
    "softmax": (jax.nn.softmax, X),
    "argmax": (lambda x: x.argmax(axis=1), X),
    "cumulative": (lambda x: jnp.cumsum(x, axis=1), X),
}


@pytest.mark.parametrize("name", LOOP_FREE)
def test_without_loops_the_counts_are_those_of_xla(name):
    fn, *args = LOOP_FREE[name]
    program = jax.jit(fn).lower(*args).compile()
    theirs, ours = program.cost_analysis(), cost(program.as_text())
    assert ours.flops == theirs.get("flops", 0) and ours.flops > 0
    assert ours.transcendentals == theirs.get("transcendentals", 0)
    assert ours.bytes == theirs["bytes accessed"]
    assert not ours.uncounted and not ours.open_loops


def chain_of(n):
    return lambda x, w: jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=n)[0]


def test_a_scan_counts_each_of_its_steps():
    program = jax.jit(chain_of(7)).lower(X, W).compile()
    assert program.cost_analysis()["flops"] < 2 * PRODUCT  # the trap: once
    assert 7 * PRODUCT <= cost(program.as_text()).flops < 7.1 * PRODUCT
    nested = lambda x, w: jax.lax.scan(lambda x, _: (chain_of(5)(x, w), None), x, None, length=3)[0]
    assert 15 * PRODUCT <= counted(nested, X, W).flops < 15.5 * PRODUCT


def test_an_open_loop_is_counted_as_often_as_one_says_and_told():
    def halved(x, w):
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x @ w / 32, x)

    once, thrice = counted(halved, X, W), counted(halved, X, W, trips=3)
    assert once.open_loops == 1
    assert 2 * PRODUCT < (thrice - once).flops < 2.5 * PRODUCT


def test_of_a_conditional_one_branch_counts():
    def either(go, x, w):
        return jax.lax.cond(go, lambda: chain_of(4)(x, w), lambda: x @ w)

    dear, cheap = (counted(either, True, X, W, branch=branch).flops for branch in (max, min))
    assert 4 * PRODUCT <= dear < 4.1 * PRODUCT and PRODUCT <= cheap < 1.1 * PRODUCT


def test_of_a_ring_only_what_is_touched_is_moved():
    ring, row = jnp.zeros((100_000, 4)), jnp.ones((1, 4))
    at = jnp.int32(5)
    write = counted(lambda r, x, i: jax.lax.dynamic_update_slice(r, x, (i, 0)), ring, row, at, donate=0)
    read = counted(lambda r, i: r[i] * 2, ring, jnp.arange(7))
    assert 32 <= write.bytes <= 64  # a row read and written, and where
    assert 7 * 4 * 4 * 2 <= read.bytes <= 400
    whole = counted(lambda r: r * 2, ring)
    assert whole.bytes == 2 * ring.nbytes
    # Without a donation there has to be a copy, and that is moved in full.
    copied = counted(lambda r, x, i: jax.lax.dynamic_update_slice(r, x, (i, 0)), ring, row, at)
    assert copied.bytes > 2 * ring.nbytes


def test_what_has_no_formula_is_named():
    found = counted(jnp.linalg.cholesky, jnp.eye(3))
    assert len(found.uncounted) == 1 and "potrf" in next(iter(found.uncounted))


def test_products_of_a_gpu_library_are_products():
    text = """HloModule m

ENTRY %main (a: f32[8,16], b: f32[16,4]) -> f32[8,4] {
  %a = f32[8,16]{1,0} parameter(0)
  %b = f32[16,4]{1,0} parameter(1)
  %c = (f32[8,4]{1,0}, s8[64]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  ROOT %d = f32[8,4]{1,0} get-tuple-element(%c), index=0
}
"""  # noqa: E501
    assert cost(text).flops == 2 * 8 * 4 * 16


def test_costs_add_up():
    one = Cost(1, 2, 3, 4, 5, frozenset("a"))
    assert one + one * 2 - one == one * 2


# --------------------------------------------------------------------------------------------------------- pieces


def test_the_work_of_a_piece_stays_in_its_loop():
    meter = measure.Meter(lambda held, given, i: (held, given[0] @ given[1]), (), (X, W))
    assert PRODUCT <= meter.cost.flops < 1.1 * PRODUCT
    text = meter.program.as_text()
    assert cost(text, trips=9).flops >= 9 * PRODUCT > cost(text, trips=0).flops


def test_what_is_held_goes_on():
    meter = measure.Meter(lambda held, given, i: (held + given, ()), jnp.zeros(3), jnp.arange(3.0))
    meter.run(5)
    meter.run(2)
    np.testing.assert_allclose(meter.held, 7 * np.arange(3.0))


def test_it_is_seen_how_often_a_rule_acts():
    base = Rule(lambda parts: (), lambda parts, state, batch, ctx: (parts, state, {}))
    ctx = Ctx(jax.random.key(0), jnp.int32(0))
    acts = lambda rule: measure.when(rule, {}, {"x": X}, ctx)
    assert acts(base).mean() == acts(repeat(3, base)).mean() == 1
    found = acts(on(lambda parts, batch, ctx: batch, every(5, base)))
    assert found.mean() == 0.2 and found.argmax() == 4


def recipe_of(specs):
    """The least that learns: one layer, and a copy of it that follows at each fourth update."""
    start = jnp.ones((*specs.observation.shape, 64))

    def loss(live, frozen, batch, key):
        return mean((batch["obs"] @ live["w"]).sum(axis=-1) ** 2, batch), {}

    def act(parts, memory, obs, ctx, explore):
        return jnp.full(specs.action.shape, jnp.tanh((obs @ parts["w"]).sum())), memory, {}

    rules = {"learn": minimise(loss, adam(1e-3), "w"), "slow": every(4, track("w", "slow", 0.5))}
    agent = Agent(lambda key: {"w": start, "slow": start + 1}, act, rules)
    return Recipe(agent, rollout(), num_envs=2, unroll=3, ratio=2)


@pytest.fixture(scope="module")
def record():
    env = probe(5, continuous=True)
    return command.profile(env, recipe_of(env.specs), seconds=0.001, turns=2, small=True)


def test_a_rule_of_every_is_counted_where_it_acts(record):
    slow = next(row for row in record["pieces"] if row["name"] == "slow")
    assert slow["calls"] == 2 / 4
    assert slow["flops"] >= 2 * 64 and slow["open_loops"] == 0  # and not the branch that does nothing


def test_a_record_has_all_pieces_and_says_what_they_leave(record):
    names = [row["name"] for row in record["pieces"]]
    assert names == ["act", "environment", "add", "sample", "learn", "slow", "metrics"]
    assert [row["calls"] for row in record["pieces"]] == [3, 3, 1, 2, 2, 0.5, 2]
    assert all(row["seconds"]["median"] > 0 for row in record["pieces"])
    tick = record["tick"]
    assert sum(row["share"] for row in record["pieces"]) + tick["unexplained"] == pytest.approx(1)
    assert tick["waterline"] == pytest.approx(sum(row["calls"] * row["waterline"] for row in record["pieces"]))
    assert tick["gap"] == pytest.approx(tick["seconds"]["median"] / tick["waterline"])
    for row in record["pieces"]:
        moving = row["bytes"] / record["ceilings"]["peak_bytes"]
        assert row["waterline"] == max(row["arithmetic"], moving)
    json.dumps(record, allow_nan=False)


def test_the_table_and_the_picture(record, tmp_path):
    from experiments.profile.plot import figure

    whole = {**record, "agent": "sac", "env": "probe", "repeat": 1, "device": "cpu"}
    lines = command.table(whole).splitlines()
    assert lines[0].split() == ["piece", "calls", "ops", "FLOP", "bytes", "time", "share", "waterline", "gap"]
    assert lines[len(record["pieces"]) + 1].startswith("no piece's") and lines[-1].startswith("energy: ")
    figure(whole, tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "said"), [(1234.0, "1.23 kB"), (0.0, "0"), (2.5e-8, "25 nB"), (999.9, "1 kB"), (3e15, "3e+03 TB")]
)
def test_numbers_with_prefixes(value, said):
    assert command.scaled(value, "B") == said


# --------------------------------------------------------------------------------------------------------- energy


def zone(folder: Path, name: str, energy: int, most: int = 1_000_000):
    (folder / name).mkdir()
    (folder / name / "energy_uj").write_text(f"{energy}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{most - 1}\n")


def test_packages_are_counted_once_and_past_their_end(tmp_path):
    zone(tmp_path, "intel-rapl:0", 900_000)
    zone(tmp_path, "intel-rapl:0:0", 5)  # within the package
    counter = measure.energy_counter(tmp_path)
    before = counter.read()
    assert before == [900_000]
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000\n")
    assert counter.spent(before, counter.read()) == pytest.approx(0.2)  # joules: it began anew


def test_without_a_counter_no_energy_is_told(tmp_path, record):
    reason = measure.energy_counter(tmp_path)
    assert reason == f"no readable energy_uj in {tmp_path}"
    told = {**record, "energy": {"absent": reason}, "device": "cpu"}
    assert command.table(told).splitlines()[-1] == f"energy: absent, {reason}"


# ------------------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "0 names before the flags"),
        (["--repeat", "8", "sac", "pendulum"], "0 names before the flags: .* takes these two first"),
        (["sac"], "1 names before"),
        (["sacc", "pendulum"], "unknown agent 'sacc'"),
        (["sac", "pendulumm"], "unknown environment 'pendulumm'"),
        (["sac", "pendulum", "--repaet", "8"], r"Did you mean --repeat\?"),
        (["sac", "pendulum", "--agent.batch", "0"], "batch is 0"),
        (["sac", "pendulum", "--seconds", "0"], r"seconds is 0\.0; it must be above 0"),
        (["sac", "pendulum", "--turns", "-1"], "turns is -1"),
        (["sac", "gymnasium:Pendulum-v1"], "runs on the host"),
    ],
)
def test_bad_input_is_one_sentence(args, sentence, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "profile", None)
    with pytest.raises(BadInput, match=sentence) as error:
        command.main([*args, *(["--out", str(tmp_path)] if len(args) > 1 else [])])
    assert "\n" not in str(error.value)


def test_the_agents_own_flags_are_taken():
    options, module = command.parse(["sac", "pendulum", "--agent.batch", "32", "--repeat", "2"])
    assert dataclasses.asdict(options.agent)["batch"] == 32 and options.repeat == 2 and module is sac

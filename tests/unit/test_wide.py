"""Counts beyond 2^31: what Python's integers say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.core import BadInput, Wide, fold

# Around both words' edges, and where the clock of the longest run stands.
COUNTS = [0, 1, 2**24 + 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 3 * 10**9, 2**40, 2**40 + 12_345, 2**52 - 1]
SMALL = [1, 2, 3, 7, 251, 1_000, 46_341, 2**16, 10**6 + 3, 50_000_000, 2**30, 2**31 - 1]


def stack(counts) -> Wide:
    return jax.tree.map(lambda *x: jnp.stack(x), *[Wide.of(n) for n in counts])


def plain(wide: Wide) -> list[int]:
    return [int(h) << 31 | int(low) for h, low in zip(np.asarray(wide.high), np.asarray(wide.low))]


@pytest.mark.parametrize("n", SMALL)
def test_arithmetic_is_that_of_integers(n):
    x = stack(COUNTS)
    assert plain(x) == COUNTS
    for found, wanted in [(x + n, [c + n for c in COUNTS]), (x * n, [c * n % 2**63 for c in COUNTS])]:
        assert plain(found) == wanted
    assert plain((x + n) - n) == COUNTS and plain(x + n - x) == [n] * len(COUNTS)
    quotient, rest = divmod(x, n)
    assert plain(quotient) == [c // n for c in COUNTS]
    assert rest.dtype == jnp.int32 and rest.tolist() == [c % n for c in COUNTS] == (x % n).tolist()


def test_comparisons_are_those_of_integers():
    x = stack(COUNTS)
    for other in COUNTS:
        assert (x < other).tolist() == [c < other for c in COUNTS]
        assert (x <= other).tolist() == [c <= other for c in COUNTS]
        assert (x > Wide.of(other)).tolist() == [c > other for c in COUNTS]
        assert (x >= other).tolist() == [c >= other for c in COUNTS]
        assert (x == other).tolist() == [c == other for c in COUNTS]
    assert (Wide.of(6) == jnp.array([2, 6], jnp.int32)).tolist() == [False, True]
    assert int(Wide.of(2**40) + jnp.int32(5)) == 2**40 + 5


def test_functions_of_an_array_are_given_one():
    x = stack(COUNTS)
    assert x.saturated.dtype == jnp.int32 and x.saturated.tolist() == [min(c, 2**31 - 1) for c in COUNTS]
    near = np.array(COUNTS, np.float64)
    np.testing.assert_allclose(x.approximate, near, rtol=2**-23)
    small = jnp.arange(2**24 - 3, 2**31 - 1, 12_345_677, dtype=jnp.int32)
    assert (Wide(jnp.uint32(0), small.astype(jnp.uint32)).approximate == small.astype(jnp.float32)).all()


def test_what_is_out_of_reach_is_refused():
    with pytest.raises(BadInput, match="divided by 0"):
        Wide.of(5) % 0
    with pytest.raises(BadInput, match=r"3000000000; periods and the like are at most 2\^31 - 1"):
        Wide.of(5) % 3_000_000_000


def test_keys_go_on_past_the_low_word():
    """Below 2^31 a key is that of the int32 it always was; above, none comes again."""
    for impl in ("threefry2x32", "rbg"):
        key = jax.random.key(5, impl=impl)
        data = lambda n, key=key: jax.random.key_data(fold(key, n)).tolist()
        for n in (0, 7, 2**31 - 1):
            assert data(Wide.of(n)) == data(jnp.int32(n))
        assert len({str(data(Wide.of(c))) for n in (0, 7) for c in (n, 2**31 + n, 2**32 + n, 2**40 + n)}) == 8

"""Counts beyond 2^31 in a program whose integers have 32 bits: the clock in frames, the number of an update."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.errors import BadInput

BITS = 31  # of the low word, so that an int32 holds it
MASK = (1 << BITS) - 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Wide:
    """The integer high * 2^31 + low of at least 0, exact up to 2^63; both words are uint32 [], low is below 2^31.

    Python integers, int32 [] and other Wides may be added, subtracted (never below 0) and compared; it is multiplied
    and divided by Python integers below 2^31. `%` gives an int32 [], comparisons a bool [], and `int` works outside
    compiled programs. `saturated` and `approximate` are for functions of an array.
    """

    high: jax.Array
    low: jax.Array

    @classmethod
    def of(cls, n: Any) -> "Wide":
        """From a Python integer or an int32 of at least 0."""
        if isinstance(n, Wide):
            return n
        high, low = (n >> BITS, n & MASK) if isinstance(n, int) else (0, n)
        return cls(jnp.uint32(high), jnp.asarray(low).astype(jnp.uint32))

    @property
    def saturated(self) -> jax.Array:
        """int32 [], 2^31 - 1 at most."""
        return jnp.where(self.high > 0, jnp.uint32(MASK), self.low).astype(jnp.int32)

    @property
    def approximate(self) -> jax.Array:
        """float32 [], as near as that comes."""
        return self.high.astype(jnp.float32) * jnp.float32(2**BITS) + self.low.astype(jnp.int32).astype(jnp.float32)

    def __int__(self) -> int:
        return int(self.high) << BITS | int(self.low)

    def __add__(self, n: Any) -> "Wide":
        n = Wide.of(n)
        total = self.low + n.low
        return Wide(self.high + n.high + (total >> BITS), total & MASK)

    def __sub__(self, n: Any) -> "Wide":
        n = Wide.of(n)
        borrowed = (self.low < n.low).astype(jnp.uint32)
        return Wide(self.high - n.high - borrowed, (self.low - n.low) & MASK)

    def __mul__(self, n: int) -> "Wide":
        """Digit by digit from the lowest, each so short that its product with n fits into 32 bits."""
        carry, low, done = jnp.uint32(0), jnp.uint32(0), 0
        while done < BITS:
            digit = min(_room(n), BITS - done)
            total = (self.low >> done & (1 << digit) - 1) * jnp.uint32(n) + carry
            low, carry, done = low | (total & (1 << digit) - 1) << done, total >> digit, done + digit
        return Wide(self.high * jnp.uint32(n) + carry, low)

    def __divmod__(self, n: int) -> "tuple[Wide, jax.Array]":
        """Digit by digit from the highest, each so short that it and the rest before it fit into 32 bits."""
        if n < 1:
            raise BadInput(f"a count is divided by {n}; a period is at least 1.")
        by = jnp.uint32(n)
        low, rest, left = jnp.uint32(0), self.high % by, BITS
        while left:
            digit = min(_room(n), left)
            left -= digit
            rest = rest << digit | self.low >> left & (1 << digit) - 1
            low, rest = low << digit | rest // by, rest % by
        return Wide(self.high // by, low), rest.astype(jnp.int32)

    def __floordiv__(self, n: int) -> "Wide":
        return divmod(self, n)[0]

    def __mod__(self, n: int) -> jax.Array:
        return divmod(self, n)[1]

    def __lt__(self, n: Any) -> jax.Array:
        n = Wide.of(n)
        return (self.high < n.high) | ((self.high == n.high) & (self.low < n.low))

    def __gt__(self, n: Any) -> jax.Array:
        return Wide.of(n) < self

    def __le__(self, n: Any) -> jax.Array:
        return ~(self > n)

    def __ge__(self, n: Any) -> jax.Array:
        return ~(self < n)

    def __eq__(self, n: Any) -> jax.Array:
        n = Wide.of(n)
        return (self.high == n.high) & (self.low == n.low)

    __hash__ = None  # pyright: ignore[reportAssignmentType]  (as Python has it of what compares by value)


def _room(n: int) -> int:
    """Bits of 32 that a number below n leaves."""
    if n > MASK:
        raise BadInput(f"a count is multiplied or divided by {n}; periods and the like are at most 2^31 - 1.")
    return 32 - int(n).bit_length()


def saturated(n: Any) -> jax.Array:
    """A Wide or an array as int32 [], 2^31 - 1 at most."""
    return n.saturated if isinstance(n, Wide) else n


def approximate(n: Any) -> jax.Array:
    """A Wide or an array as float32 []."""
    return n.approximate if isinstance(n, Wide) else jnp.asarray(n, jnp.float32)

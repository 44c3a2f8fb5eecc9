# SPDX-License-Identifier: Apache-2.0
"""Where a line search tries next: minimizers of polynomials through two points, and which of them is taken."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.numerics._wolfe import Point, _between, _cubic, _parabola, _secant


def point(step: float, value: float, slope: float) -> Point:
    return Point(*map(jnp.float32, (step, value, slope)))


def test_minimizers():
    """Of x³ - 3x, of (x - 3)², and of the latter by its slopes."""
    assert _cubic(point(0, 0, -3), point(2, 2, 9)) == 1
    assert _parabola(point(1, 4, -4), point(2, 1, 0)) == 3
    assert _secant(point(1, 0, -4), point(2, 0, -2)) == 3
    assert np.isnan(_cubic(point(0, 0, 1), point(1, 1, 1))), "a line has none"


def cubic(value: float) -> float:
    """The minimizer of the cubic with value 1 and slope -1 at 0, and this value and slope 1 at 1."""
    roots = np.roots([3 * (2 - 2 * value), 2 * (3 * value - 2), -1])
    return next(x for x in roots if 0 < x < 1)


@pytest.mark.parametrize(
    ("value", "rising", "wanted"),
    [
        (0.8, False, 0.5),  # the secant's zero, as the cubic's minimizer is nearer to the last trial
        (1.2, False, cubic(1.2)),
        (1.2, True, cubic(1.2)),  # nearer to the low end than the parabola's
        (0.8, True, (cubic(0.8) + 1 / 1.6) / 2),
    ],
)
def test_the_next_trial_in_a_bracket(value: float, rising: bool, wanted: float):
    before, at = point(0, 1, -1), point(1, value, 1)
    found = _between(before, at, at, before, jnp.array(rising), jnp.array(False))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_bracket_that_shrinks_slowly_is_halved_and_one_with_an_unknown_end_is_cut_short():
    before, at = point(0, 1, -1), point(1, 1.2, 1)
    assert _between(before, at, at, before, jnp.array(False), jnp.array(True)) == 0.5
    at = point(1, np.inf, np.nan)
    np.testing.assert_allclose(_between(before, at, at, before, jnp.array(True), jnp.array(False)), 0.2)

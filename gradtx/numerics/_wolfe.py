# SPDX-License-Identifier: Apache-2.0
"""Line search for the strong Wolfe conditions, on a function of one variable."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.numerics._safe import safe_divide, safe_sqrt


class Point(NamedTuple):
    """A step on the line, the value and the slope there, and further results to keep, such as the gradient."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array
    held: Any = None


class Conditions(NamedTuple):
    """The tolerances of the conditions on a step; see `scale_by_zoom_linesearch`."""

    slope_rtol: Any
    curv_rtol: Any
    approx_dec_rtol: Any | None
    tol: Any


class Found(NamedTuple):
    """The point where a search ended, the number of evaluations, and by how much the point misses each condition."""

    point: Point
    steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array


class _Search(NamedTuple):
    low: Point  # the best step so far that decreases enough, 0 at first
    high: Point  # the other end of the bracket; without meaning before there is one
    bracketed: jax.Array
    width: jax.Array  # of the bracket, two evaluations ago and one ago
    last_width: jax.Array
    trial: jax.Array
    steps: jax.Array
    accepted: jax.Array
    over: jax.Array


def errors(start: Point, at: Point, conditions: Conditions) -> tuple[jax.Array, jax.Array]:
    """By how much a point misses sufficient decrease and the curvature condition; infinity if it is not finite.

    Where values are equal up to rounding, decrease is judged by slopes (Hager and Zhang's approximate condition).
    """
    slope_rtol, curv_rtol, approx_dec_rtol, _ = conditions
    decrease = at.value - (start.value + slope_rtol * at.step * start.slope)
    if approx_dec_rtol is not None:
        rise = at.value - (start.value + approx_dec_rtol * jnp.abs(start.value))
        turn = at.slope - (2 * slope_rtol - 1) * start.slope
        decrease = jnp.minimum(decrease, jnp.maximum(rise, turn))
    curvature = jnp.abs(at.slope) - curv_rtol * jnp.abs(start.slope)
    good = jnp.isfinite(at.value) & jnp.isfinite(at.slope)
    return tuple(jnp.where(good, jnp.maximum(x, 0), jnp.inf) for x in (decrease, curvature))  # type: ignore[return-value]  # two


def wolfe_search(
    evaluate: Callable[[jax.Array], Point],
    start: Point,
    first: jax.Array,
    conditions: Conditions,
    *,
    max_steps: int,
    longest: Any,
    shortest: jax.Array,
    increase_factor: Any,
    precision: Any,
) -> Found:
    """Brackets a step that satisfies the conditions, then narrows it (Nocedal and Wright, algorithms 3.5 and 3.6).

    The trials are those of Moré and Thuente: minimizers of cubics and parabolas through known points, kept away from
    the ends of the bracket. A point that is not finite becomes the high end. If no step satisfies the conditions, the
    result is the best point that decreases the value, or the start if there is none.

    Args:
      evaluate: returns the point at a step.
      start: the point at step 0. Unless it is finite and its slope negative, the search ends at once.
      first: the first trial step.
      longest, shortest: the longest trial step, and the length at which a trial is no longer evaluated.
      increase_factor: before there is a bracket, trials grow by at least this factor and at most its square.
      precision: the search ends when the bracket is narrower than this fraction of the step.
    """
    dtype = start.value.dtype
    # The largest difference of equal values by rounding.
    noise = 8 * jnp.finfo(dtype).eps * jnp.abs(start.value)
    endless = jnp.asarray(jnp.inf, dtype)

    def more(s: _Search) -> jax.Array:
        return ~s.over

    def step(s: _Search) -> _Search:
        at = evaluate(s.trial)
        accepted = jnp.maximum(*errors(start, at, conditions)) <= conditions.tol
        finite = jnp.isfinite(at.value) & jnp.isfinite(at.slope)
        enough = at.value <= start.value + conditions.slope_rtol * at.step * start.slope + noise
        rising = ~(finite & enough & (at.value <= s.low.value + noise))
        ahead = jnp.where(s.bracketed, jnp.sign(s.high.step - s.low.step), 1)
        passed = ~rising & (at.slope * ahead >= 0)
        bracketed = s.bracketed | rising | passed

        low = _where(rising & ~accepted, s.low, at)
        high = _where(rising, _bare(at), _where(passed, _bare(s.low), s.high))
        width = jnp.where(bracketed, jnp.abs(high.step - low.step), jnp.inf)
        wide = s.bracketed & (width > 0.66 * s.width)
        trial = jnp.where(
            bracketed,
            _between(s.low, at, high, low, rising, wide),
            _beyond(s.low, at, increase_factor, longest),
        )
        at_end = ~bracketed & (at.step >= longest)
        narrow = bracketed & (low.step > 0) & (width <= precision * jnp.maximum(low.step, high.step))
        steps = s.steps + 1
        over = accepted | at_end | narrow | (trial <= shortest) | (steps >= max_steps)
        return _Search(low, high, bracketed, s.last_width, width, trial, steps, accepted, over)

    impossible = ~(jnp.isfinite(start.value) & (start.slope < 0) & jnp.isfinite(start.slope))
    state = _Search(
        low=start,
        high=_bare(start),
        bracketed=jnp.zeros([], bool),
        width=endless,
        last_width=endless,
        trial=jnp.minimum(first, longest).astype(dtype),
        steps=jnp.zeros([], jnp.int32),
        accepted=jnp.zeros([], bool),
        over=impossible | (max_steps < 1),
    )
    end = jax.lax.while_loop(more, step, state)
    point = _where(end.accepted | (end.low.value < start.value), end.low, start)
    return Found(point, end.steps, *errors(start, point, conditions))


def _bare(point: Point) -> Point:
    return point._replace(held=None)


def _where(condition: jax.Array, a: Point, b: Point) -> Point:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _cubic(a: Point, b: Point) -> jax.Array:
    """The minimizer of the cubic with these two values and slopes; NaN where it has none."""
    apart = b.step - a.step
    mean = a.slope + b.slope - 3 * safe_divide(b.value - a.value, apart)
    square = mean * mean - a.slope * b.slope
    root = jnp.sign(apart) * safe_sqrt(jnp.maximum(square, 0))
    below = b.slope - a.slope + 2 * root
    return jnp.where((square >= 0) & (below != 0), b.step - apart * safe_divide(b.slope + root - mean, below), jnp.nan)


def _parabola(a: Point, b: Point) -> jax.Array:
    """The minimizer of the parabola with the value and slope of `a` and the value of `b`."""
    apart = b.step - a.step
    return a.step - safe_divide(a.slope * apart * apart, 2 * (b.value - a.value - a.slope * apart))


def _secant(a: Point, b: Point) -> jax.Array:
    """The zero of the slope if it is linear between the points."""
    return a.step - a.slope * safe_divide(b.step - a.step, b.slope - a.slope)


def _between(before: Point, at: Point, high: Point, low: Point, rising: jax.Array, wide: jax.Array) -> jax.Array:
    """The next trial inside a bracket.

    After a value that rises: the minimizer of the cubic, or the midpoint between it and that of the parabola if the
    latter is nearer to the low end. After a slope of the other sign: the minimizer of the cubic or the secant's zero,
    whichever is farther from the last trial.
    """
    cubic, parabola, secant = _cubic(before, at), _parabola(before, at), _secant(before, at)
    near = jnp.abs(cubic - before.step) < jnp.abs(parabola - before.step)
    risen = jnp.where(near, cubic, (cubic + parabola) / 2)
    turned = jnp.where(jnp.abs(cubic - at.step) >= jnp.abs(secant - at.step), cubic, secant)
    inside = _cubic(low, high)
    same_sign = before.slope * at.slope > 0
    guess = jnp.where(rising, risen, jnp.where(same_sign, inside, turned))
    apart = high.step - low.step
    known = jnp.isfinite(high.value) & jnp.isfinite(high.slope)
    part = safe_divide(guess - low.step, apart)
    part = jnp.where(jnp.isfinite(part), jnp.clip(part, 0.05, 0.9), 0.5)
    return low.step + apart * jnp.where(known, jnp.where(wide, 0.5, part), 0.2)


def _beyond(before: Point, at: Point, increase_factor: Any, longest: Any) -> jax.Array:
    """The next trial before there is a bracket: the nearer of the cubic's minimizer and the secant's zero, limited."""
    cubic = _cubic(before, at)
    cubic = jnp.where(cubic > at.step, cubic, jnp.inf)
    secant = jnp.where(jnp.abs(at.slope) < jnp.abs(before.slope), _secant(before, at), jnp.inf)
    guess = jnp.minimum(cubic, secant)
    guess = jnp.where(jnp.isnan(guess), jnp.inf, guess)
    return jnp.minimum(jnp.clip(guess, increase_factor * at.step, increase_factor**2 * at.step), longest)

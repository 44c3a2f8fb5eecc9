# SPDX-License-Identifier: Apache-2.0
"""Backtracking line search."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, Limit, NonNegative, NonNegativeInt, Positive, Range
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import Updates
from gradtx.numerics._wolfe import Point
from gradtx.transforms._lines import Line, Searched, line_search

Shrinking = Annotated[Any, Range(low=0.0, high=1.0, low_open=True, high_open=True, example=0.8)]


class BacktrackingLinesearchInfo(NamedTuple):
    """How often the last search evaluated the function, and by how much its step violates the condition."""

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The last trial step size, and the value and gradient at the parameters after the update."""

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates | None
    info: BacktrackingLinesearchInfo

    def metrics(self) -> dict[str, jax.Array]:
        return {"learning_rate": self.learning_rate, **self.info._asdict()}


class _Trial(NamedTuple):
    point: Point
    steps: jax.Array
    error: jax.Array


@transformation
def scale_by_backtracking_linesearch(
    max_backtracking_steps: NonNegativeInt,
    slope_rtol: Decay = 1e-4,
    decrease_factor: Shrinking = 0.8,
    increase_factor: Positive = 1.5,
    max_learning_rate: Limit = 1.0,
    atol: NonNegative = 0.0,
    rtol: NonNegative = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
    *,
    strict: bool = False,
) -> GradientTransformationExtraArgs:
    """Scales the update u by the first s of s0, decrease_factor s0, decrease_factor² s0, ... for which

    ```
    value_fn(p + s u) <= value + slope_rtol s <grad, u> + rtol |value| + atol
    ```

    where s0 = min(increase_factor * the last s, max_learning_rate). Non-finite values are rejected. If no trial is
    accepted, or u is not a descent direction, the update is 0 and the next search continues from the last trial.

    Put it last in a chain; for `value`, `grad`, `value_fn` and `bounds` see `scale_by_zoom_linesearch`.

    Args:
      max_backtracking_steps: how often s may be decreased in one search.
      slope_rtol: the fraction of the decrease predicted by the slope that is required (Armijo's constant), in [0, 1).
      decrease_factor: the factor of s from one trial to the next, in (0, 1).
      increase_factor: the factor from the last s to the first trial of the next search, positive.
      max_learning_rate: the largest s.
      atol, rtol: by how much the value may exceed the limit, absolutely and relative to |value|.
      store_grad: whether to evaluate the gradient with each value, so that `value_and_grad_from_state` can return it.
      verbose: whether to print the result of each search, also under `jit`.
      strict: whether an argument of `update` that `value_fn` does not take is an error.

    Reference: Nocedal and Wright 2006, Numerical Optimization, algorithm 3.1.
    """

    def search(line: Line, start: Point, last: jax.Array) -> Searched:
        zero, slope, shrink, grow, longest, relative, absolute = (
            jnp.asarray(x, line.dtype)
            for x in (0, slope_rtol, decrease_factor, increase_factor, max_learning_rate, rtol, atol)
        )
        most = line.value + relative * jnp.abs(line.value) + absolute
        shortest = line.shortest()
        untried = jnp.isfinite(line.value) & ~(line.slope < 0)
        descends = (line.slope < 0) & jnp.isfinite(line.slope) & jnp.isfinite(line.value)

        def tried(t: _Trial) -> _Trial:
            step = t.point.step * jnp.where(t.steps == 0, 1, shrink)
            at = line.point_at(step) if store_grad else Point(step, line.value_at(step), zero)
            error = at.value - (most + slope * step * line.slope)
            error = jnp.where(jnp.isfinite(at.value) & jnp.isfinite(at.slope), jnp.maximum(error, 0), jnp.inf)
            return _Trial(at, t.steps + 1, error)

        def more(t: _Trial) -> jax.Array:
            return descends & (t.error > 0) & (t.steps <= max_backtracking_steps) & (t.point.step > shortest)

        first = jnp.where(last > 0, jnp.minimum(last * grow, longest), longest)
        none = _Trial(start._replace(step=first), jnp.zeros([], jnp.int32), jnp.where(untried, zero, jnp.inf))
        end = jax.lax.while_loop(more, tried, none)
        accepted = (end.steps > 0) & (end.error == 0)
        taken = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), end.point, start)
        tried_last = jnp.where(end.steps > 0, end.point.step, last)
        return Searched(taken, tried_last, BacktrackingLinesearchInfo(end.steps, end.error))

    return line_search(
        "scale_by_backtracking_linesearch",
        ScaleByBacktrackingLinesearchState,
        BacktrackingLinesearchInfo,
        search,
        holds_gradient=store_grad,
        verbose=verbose,
        strict=strict,
    )

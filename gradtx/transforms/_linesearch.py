# SPDX-License-Identifier: Apache-2.0
"""Line search for the strong Wolfe conditions, and the reuse of the value and gradient that a search evaluated."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._branching import branch
from gradtx.core._checked import checked
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, Limit, NonNegative, Positive, PositiveInt, is_number
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._wolfe import Conditions, Point, wolfe_search
from gradtx.transforms._lines import Line, Searched, line_search, value_and_gradient


class ZoomLinesearchInfo(NamedTuple):
    """How often the last search evaluated the function, and by how much its step violates the two conditions."""

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array


class ScaleByZoomLinesearchState(NamedTuple):
    """The last step size (0 if none was found), and the value and gradient at the parameters after the update."""

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates
    info: ZoomLinesearchInfo

    def metrics(self) -> dict[str, jax.Array]:
        return {"learning_rate": self.learning_rate, **self.info._asdict()}


@transformation
def scale_by_zoom_linesearch(
    max_linesearch_steps: PositiveInt,
    max_learning_rate: Limit | None = None,
    tol: NonNegative = 0.0,
    increase_factor: Positive = 2.0,
    slope_rtol: Decay = 1e-4,
    curv_rtol: NonNegative = 0.9,
    approx_dec_rtol: NonNegative | None = 1e-6,
    stepsize_precision: NonNegative = 1e-5,
    initial_guess_strategy: Literal["keep", "one"] = "keep",
    verbose: bool = False,
    *,
    strict: bool = False,
) -> GradientTransformationExtraArgs:
    """Scales the update u by a step size s for which φ(s) = value_fn(p + s u) satisfies the strong Wolfe conditions:

    ```
    φ(s) <= φ(0) + slope_rtol s φ'(0)  and  |φ'(s)| <= curv_rtol |φ'(0)|
    ```

    Put it last in a chain, after a stage that makes u a descent direction. `update` needs `value`, `grad` (both at p)
    and `value_fn`, which is given those extra arguments of `update` that its signature takes. With
    `bounds=(lower, upper)`, each a tree like p or None, the projected line is searched. If no trial decreases the
    value, or u is not a descent direction, the update is 0.

    Args:
      max_linesearch_steps: the largest number of evaluations, each of the value and the gradient.
      max_learning_rate: the largest s; None for no bound.
      tol: by how much the conditions may be violated.
      increase_factor: until a bracket is found, each trial is larger by this factor at least, its square at most; for a
        factor of at most 1, no trial is larger than the first.
      slope_rtol, curv_rtol: the constants of the two conditions, c1 and c2 in the literature.
      approx_dec_rtol: a value up to φ(0) + approx_dec_rtol |φ(0)| is accepted too if slopes indicate a decrease; None
        to accept no such value.
      stepsize_precision: the search ends when the bracket is narrower than this fraction of the step size.
      initial_guess_strategy: "keep" to start from the last step size, "one" to start from 1.
      verbose: whether to print the result of each search, also under `jit`.
      strict: whether an argument of `update` that `value_fn` does not take is an error. If not, it is left to other
        stages of the chain.

    References: Nocedal and Wright 2006, Numerical Optimization, algorithms 3.5 and 3.6; Moré and Thuente 1994 (trials);
    Hager and Zhang 2005 (approximate decrease).
    """

    def search(line: Line, start: Point, last: jax.Array) -> Searched:
        number = functools.partial(jnp.asarray, dtype=line.dtype)
        one = number(1)
        first = one if initial_guess_strategy == "one" else jnp.where(last > 0, last, one)
        longest = number(jnp.inf if max_learning_rate is None else max_learning_rate)
        if not (is_number(increase_factor) and increase_factor > 1):
            longest = jnp.where(increase_factor > 1, longest, jnp.minimum(first, longest))
        found = wolfe_search(
            line.point_at,
            start,
            first,
            Conditions(*(None if x is None else number(x) for x in (slope_rtol, curv_rtol, approx_dec_rtol, tol))),
            max_steps=max_linesearch_steps,
            longest=longest,
            shortest=line.shortest(),
            increase_factor=number(increase_factor),
            precision=number(stepsize_precision),
        )
        info = ZoomLinesearchInfo(found.steps, found.decrease_error, found.curvature_error)
        return Searched(found.point, found.point.step, info)

    return line_search(
        "scale_by_zoom_linesearch",
        ScaleByZoomLinesearchState,
        ZoomLinesearchInfo,
        search,
        verbose=verbose,
        strict=strict,
    )


@checked
def value_and_grad_from_state(value_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Like `jax.value_and_grad(value_fn)`, but takes value and gradient from a line search's state if they are there.

    Call the function returned as `f(params, *args, state=state, **kwargs)`, where `state` is that of a transformation
    whose last stage is a line search; of several in a chain, the last counts. It runs `value_fn` only before the first
    update, when the state has no value. The stored value is that at the updated parameters: after any other change of
    the parameters, evaluate anew.

    Args:
      value_fn: the function `value_fn(params, *args, **kwargs) -> scalar` that the line search evaluates.

    Raises:
      ValueError: if no stage keeps value and gradient, or several that are not stages of one chain; backtracking needs
        `store_grad=True`.
    """

    def value_and_grad(params: Params, *args: Any, state: OptState, **kwargs: Any) -> tuple[jax.Array, Updates]:
        found = _kept(state)
        if len(found) != 1:
            raise ValueError(
                f"value_and_grad_from_state: the state must have one stage that keeps value and grad, it has "
                f"{len(found)}; such are scale_by_zoom_linesearch and scale_by_backtracking_linesearch(store_grad=True)"
            )
        (kept,) = found

        def fresh() -> tuple[jax.Array, Updates]:
            return value_and_gradient(lambda p: value_fn(p, *args, **kwargs), params)

        def known() -> tuple[jax.Array, Updates]:
            return jax.tree.map(lambda x, like: x.astype(like.dtype), (kept.value, kept.grad), jax.eval_shape(fresh))

        return branch(jnp.isfinite(kept.value), known, fresh)

    return value_and_grad


def _kept(state: Any) -> list:
    """The states inside a state that have a value and a gradient; of a chain's stages that have one, the last."""
    if getattr(state, "value", None) is not None and getattr(state, "grad", None) is not None:
        return [state]
    if not isinstance(state, tuple | list | dict):
        return []
    found = [_kept(child) for child in (state.values() if isinstance(state, dict) else state)]
    if type(state) is tuple:
        return next(filter(None, reversed(found)), [])
    return [x for some in found for x in some]

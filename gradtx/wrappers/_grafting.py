# SPDX-License-Identifier: Apache-2.0
"""Grafting: the direction of one optimizer with the step size of another."""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._safe import abs_sq, safe_divide, safe_sqrt


class GraftState(NamedTuple):
    """The states of the two transformations."""

    direction_state: OptState
    magnitude_state: OptState

    main_part = "magnitude_state"


class _Sized(NamedTuple):
    size: Updates


def _square(d: Any, m: Any, p: Any, t: Any) -> tuple:
    return jnp.sum(abs_sq(m)), jnp.sum(abs_sq(d))


def _ratio(of_m: Any, of_d: Any) -> Any:
    return safe_divide(safe_sqrt(of_m), safe_sqrt(of_d))


def _resized(d: Any, m: Any, p: Any, t: Any) -> tuple:
    return d * _ratio(*_square(d, m, p, t)), m


# Made once, so that they are compiled once. The updates of `magnitude` are passed as a slot.
_EACH = Inner(per_parameter(None, _resized, _Sized))
_WHOLE = Inner(
    per_parameter(
        None,
        lambda d, m, p, t, ratio: (d * ratio, m),
        _Sized,
        measure=_square,
        shared=lambda t, totals: _ratio(*totals),
    )
)


@transformation
def graft(
    direction: Any, magnitude: Any, scope: Literal["parameter", "tree"] = "parameter"
) -> GradientTransformationExtraArgs:
    """u = d ‖m‖ / ‖d‖, where d and m are the updates of `direction` and of `magnitude` for the same gradients.

    So a preconditioner takes steps of the size for which a simpler optimizer is tuned:
    `chain(graft(preconditioner, scale_by_adam()), scale_by_lr(1e-3))`. Where d is 0, so is u.

    Args:
      direction: the transformation that gives the direction d; the size of d has no effect.
      magnitude: the transformation that gives the norm. If both are recipes, its learning rate is the one in effect.
      scope: "parameter" for norms of each parameter separately, "tree" for norms of all together.

    References: Agarwal et al. 2020, arXiv:2002.11803; Anil et al. 2020, arXiv:2002.09018 (Shampoo).
    """
    first = as_inner("graft: direction", direction)
    second = as_inner("graft: magnitude", magnitude)
    sized = _EACH if scope == "parameter" else _WHOLE

    def init(params: Params) -> GraftState:
        return GraftState(first.init(params), second.init(params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("graft", state, GraftState)
        d, direction_state = first.update(updates, state.direction_state, params, **extra)
        m, magnitude_state = second.update(updates, state.magnitude_state, params, **extra)
        return sized.update(d, _Sized(m))[0], GraftState(direction_state, magnitude_state)

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        return {
            "direction_state": (direction, state.direction_state),
            "magnitude_state": (magnitude, state.magnitude_state),
        }

    return GradientTransformationExtraArgs(init, update, parts=parts)

# SPDX-License-Identifier: Apache-2.0
"""Grafting: the direction of one optimizer with the step size of another."""

from typing import Any, Literal, NamedTuple

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._ratios import l2_norms
from gradtx.numerics._safe import safe_divide
from gradtx.tree._reductions import global_norm


class GraftState(NamedTuple):
    """The states of the two transformations."""

    direction_state: OptState
    magnitude_state: OptState

    main_part = "magnitude_state"


class _Sized(NamedTuple):
    size: Updates


def _resized(d: Any, m: Any, p: Any, t: Any) -> tuple:
    of_m, of_d = l2_norms(m, d)
    return d * safe_divide(of_m, of_d), m


# Made once, so that they are compiled once. The updates of `magnitude` are passed as a slot, their ratio by keyword.
_EACH = Inner(per_parameter(None, _resized, _Sized))
_WHOLE = Inner(
    per_parameter(
        None, lambda d, slots, p, t, ratio: (d * ratio, slots), shared=lambda t, total, ratio: ratio, needs=("ratio",)
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

    def init(params: Params) -> GraftState:
        return GraftState(first.init(params), second.init(params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("graft", state, GraftState)
        check_said("graft", params)
        d, direction_state = first.update(updates, state.direction_state, params, **extra)
        m, magnitude_state = second.update(updates, state.magnitude_state, params, **extra)
        new = GraftState(direction_state, magnitude_state)
        if scope == "parameter":
            return _EACH.update(d, _Sized(m))[0], new
        return _WHOLE.update(d, (), ratio=safe_divide(global_norm(m), global_norm(d)))[0], new

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        return {
            "direction_state": (direction, state.direction_state),
            "magnitude_state": (magnitude, state.magnitude_state),
        }

    return GradientTransformationExtraArgs(init, update, parts=parts)

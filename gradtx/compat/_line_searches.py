# SPDX-License-Identifier: Apache-2.0
"""Line searches that, as in Optax, refuse an argument of `update` that the searched function does not take."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation
from gradtx.core._types import ScalarOrSchedule
from gradtx.optimizers import _lbfgs
from gradtx.transforms import _backtracking, _linesearch

P = ParamSpec("P")
T = TypeVar("T")


def _strict(native: Callable[P, T]) -> Callable[P, T]:
    # Without the attributes of the function, since the result is not a factory of gradtx.
    @functools.wraps(native, updated=())
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        return native(*args, **{"strict": True, **kwargs})

    return made


scale_by_zoom_linesearch = _strict(_linesearch.scale_by_zoom_linesearch)
scale_by_backtracking_linesearch = _strict(_backtracking.scale_by_backtracking_linesearch)


def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: Any = 10,
    scale_init_precond: bool = True,
    linesearch: Transformation | None = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one"),  # noqa: B008  # a value
) -> GradientTransformationExtraArgs:
    """`gradtx.lbfgs` with a line search that is `strict`."""
    return _lbfgs.lbfgs(learning_rate, memory_size, scale_init_precond, linesearch)

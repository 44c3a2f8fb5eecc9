# SPDX-License-Identifier: Apache-2.0
"""Optax's names for what gradtx names differently, and Optax's defaults where gradtx's differ on purpose."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Union

import jax
import jax.numpy as jnp

from gradtx.aggregating._aggregate import aggregate
from gradtx.core._counts import safe_increment
from gradtx.core._evaluation import eval_params
from gradtx.core._ranges import Real
from gradtx.core._transformation import GradientTransformation, GradientTransformationExtraArgs
from gradtx.core._types import EmptyState, Numeric, OptState, Params, ScalarOrSchedule, ScheduleFn, Updates
from gradtx.losses._divergence import generalized_kl_divergence
from gradtx.optimizers import _optimistic as optimistic
from gradtx.optimizers._schedule_free_plus import ScheduleFreePlusState
from gradtx.transforms._scaling import scale_by_lr
from gradtx.tree._params import map_params
from gradtx.wrappers import _multi_steps as accumulation
from gradtx.wrappers._hyperparameters import inject_hyperparams
from gradtx.wrappers._partition import PartitionState, partition
from gradtx.wrappers._schedule_free_averaging import ScheduleFreeAveragingState, ScheduleFreeState

AdaptiveGradClipState = AddDecayedWeightsState = ClipByGlobalNormState = ClipState = EmptyState
ScaleByTrustRatioState = ScaleState = EmptyState
MultiTransformState = PartitionState
Aggregator = GradientTransformation
AggregatedUpdates = PerElementUpdates = Updates

convex_kl_divergence = generalized_kl_divergence
inject_stateful_hyperparams = inject_hyperparams
multi_transform = partition
process = aggregate
scale_by_learning_rate = scale_by_lr
safe_int32_increment = safe_increment
tree_map_params = map_params
Schedule = ScheduleFn

# typing.Union and not `|`, as for ScalarOrSchedule.
MaskOrFn = Union[Any, Callable[[Params], Any], None]  # noqa: UP007  # see above
MaybeAxis = Union[int, Sequence[int], None]  # noqa: UP007  # see above


class TransformInitFn(Protocol):
    """The type of `init`."""

    def __call__(self, params: Params) -> OptState: ...


class TransformUpdateFn(Protocol):
    """The type of `update` without extra arguments."""

    def __call__(self, updates: Updates, state: OptState, params: Params = None) -> tuple[Updates, OptState]: ...


class TransformUpdateExtraArgsFn(Protocol):
    """The type of `update` with extra arguments."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params = None, **extra_args: Any
    ) -> tuple[Updates, OptState]: ...


class ShouldSkipUpdateFunction(Protocol):
    """The type of the function that tells `MultiSteps` which gradients to drop."""

    def __call__(self, updates: Updates, gradient_step: Numeric, params: Params) -> tuple[jax.Array, Any]: ...


class AggregatorUpdateFn(Protocol):
    """The type of the `update` of an aggregator."""

    def __call__(
        self, per_elt_updates: Updates, state: OptState, params: Params = None, **extra_args: Any
    ) -> tuple[Updates, OptState]: ...


class ConditionFn(Protocol):
    """The type of the function that tells `conditionally_transform` when to transform."""

    def __call__(self, step: jax.Array, **extra_args: Any) -> jax.Array: ...


def init_empty_state(params: Params) -> EmptyState:
    """The `init` of a transformation without state."""
    return EmptyState()


class _Accumulating(type):
    """Makes `isinstance(MultiSteps(...), MultiSteps)` true, though the call returns gradtx's own transformation."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, accumulation.AccumulatingTransformation)


class MultiSteps(accumulation.AccumulatingTransformation, metaclass=_Accumulating):
    """`gradtx.MultiSteps` that, by default, drops no gradient and accumulates in float32."""

    __slots__ = ()

    def __new__(
        cls,
        opt: Any,
        every_k_schedule: Any,
        use_grad_mean: bool = True,
        should_skip_update_fn: Callable | None = None,
        accumulator_dtype: Any = jnp.float32,
    ) -> Any:
        return accumulation.MultiSteps(opt, every_k_schedule, use_grad_mean, should_skip_update_fn, accumulator_dtype)


def schedule_free_eval_params(state: OptState, params: Params) -> Params:
    """`gradtx.eval_params` of a state with Schedule-Free's average in it.

    Raises:
      TypeError: for any other state.
    """

    def averages(x: Any) -> bool:
        return isinstance(x, ScheduleFreeState | ScheduleFreeAveragingState | ScheduleFreePlusState)

    if not any(map(averages, jax.tree.leaves(state, is_leaf=averages))):
        raise TypeError(
            f"schedule_free_eval_params: state must be one of schedule_free or have it inside, got "
            f"{type(state).__name__}; the order is schedule_free_eval_params(state, params)"
        )
    return eval_params(state, params)


def optimistic_adam(
    learning_rate: ScalarOrSchedule,
    optimism: Real | None = None,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
) -> GradientTransformationExtraArgs:
    """`gradtx.optimistic_adam` whose first step is half as long: `from_zero=False`."""
    return optimistic.optimistic_adam(
        learning_rate, optimism, b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, from_zero=False
    )


def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: Any = 1.0,
    beta: Any = 1.0,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    nesterov: bool = True,
) -> GradientTransformationExtraArgs:
    """`gradtx.optimistic_adam_v2` whose first step is half as long: `from_zero=False`."""
    rest = dict(alpha=alpha, beta=beta, b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype, nesterov=nesterov)
    return optimistic.optimistic_adam_v2(learning_rate, from_zero=False, **rest)

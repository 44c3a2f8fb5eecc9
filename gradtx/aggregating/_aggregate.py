# SPDX-License-Identifier: Apache-2.0
"""Per-element gradients: their mean over a batch and over micro-batches, with stages before and after it.

The gradients of n elements, such as the examples of a batch, are arrays with one or more axes in addition to those of
the parameters (`jax.vmap(jax.grad(loss), in_axes=(None, 0))`). An aggregator is a transformation that reduces them to
updates of the parameters' shapes. If that takes several calls, its state has a field `ready`.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._checked import checked
from gradtx.core._combine import chain, identity
from gradtx.core._dtypes import widen
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._kinds import Tree
from gradtx.core._needs import needs
from gradtx.core._ranges import PositiveInt
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import align, check_state, is_hole, is_none, paths
from gradtx.core._types import EmptyState, OptState, Params, Updates
from gradtx.numerics._averages import zeros_like
from gradtx.tree._search import NamedTupleKey, get_all_with_path
from gradtx.wrappers._skipping import run_if


@transformation
def aggregate(
    preprocessor: Any, aggregator: Any, postprocessor: Any, aggregator_has_aux: bool = False
) -> GradientTransformationExtraArgs:
    """Three transformations in sequence, the last of which runs only when the second is ready.

    While the field `ready` of the aggregator's state is False, updates are zeros and `postprocessor` does not run; an
    aggregator without this field is always ready. The state is the tuple of the three states. Extra arguments of
    `update` reach all three.

    Args:
      preprocessor: gets the per-element gradients. It gets the parameters only if gradients have their shapes, that is
        without an axis of elements.
      aggregator: makes one update from the per-element gradients, or others with an axis of elements.
      postprocessor: the optimizer, which gets that update, and the parameters on the same condition.
      aggregator_has_aux: whether the aggregator returns `((updates, aux), state)`, where `aux` is a dictionary of
        further extra arguments for `postprocessor`.
    """
    stages = {"preprocessor": preprocessor, "aggregator": aggregator, "postprocessor": postprocessor}
    pre, agg, post = (as_inner(f"aggregate: {n}", x) for n, x in stages.items())

    def init(params: Params) -> OptState:
        return pre.init(params), agg.init(params), post.init(params)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if not isinstance(state, tuple | list) or len(state) != 3:
            raise TypeError(
                f"aggregate: state must be the tuple of 3 states that init or the last update returned, "
                f"got {type(state).__name__}; the order is update(updates, state, params)"
            )
        updates, pre_state = pre.update(updates, state[0], params if _alike(updates, params) else None, **extra)
        found, agg_state = agg.update(updates, state[1], params, **extra)
        updates, aux = _with_aux(found) if aggregator_has_aux else (found, {})
        known = {**extra, **aux}
        like = params if _alike(updates, params) else None
        new, post_state = run_if(_ready(agg_state), "aggregate", post, updates, state[2], like, known)
        return new, (pre_state, agg_state, post_state)

    # Which arguments the aux provides is known only at run time; the postprocessor then reports what is missing.
    asking = [preprocessor, aggregator, *([] if aggregator_has_aux else [postprocessor])]
    return GradientTransformationExtraArgs(
        init,
        update,
        parts=lambda state: {str(i): pair for i, pair in enumerate(zip(stages.values(), state, strict=True))},
        needs=set().union(*map(needs, asking)),
    )


@transformation
def average_per_element_updates(per_elt_axis: int | Sequence[int] = 0) -> GradientTransformationExtraArgs:
    """u = the mean of the per-element gradients, in at least float32.

    Args:
      per_elt_axis: the axis of the elements, or several axes.

    Raises:
      ValueError: if a gradient has no such axis, or the numbers of elements differ.
    """
    where = "average_per_element_updates"
    axes = element_axes(where, per_elt_axis)

    def init(params: Params) -> EmptyState:
        return EmptyState()

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state(where, state, EmptyState, updates, params)
        leaves, treedef, live, _ = elements(where, updates, axes, params)
        for i in live:
            leaves[i] = _mean(leaves[i], axes)
        return treedef.unflatten(leaves), state

    return GradientTransformationExtraArgs(init, update)


class AccumulateAvgUpdatesState(NamedTuple):
    """The calls made in this round, whether the last call ended a round, and the mean of this round's gradients."""

    micro_step: jax.Array
    ready: jax.Array
    avg_grad: Updates


@transformation
def accumulate_avg_updates(accumulation_steps: PositiveInt) -> GradientTransformationExtraArgs:
    """u = the mean of the last k gradients at every k-th call, 0 at all others; the mean is kept in at least float32.

    An aggregator for `aggregate`, for gradients that are means over micro-batches. In a `chain`, the stages after it
    run at every call; `MultiSteps` runs an optimizer on the means only and can drop non-finite gradients.

    Args:
      accumulation_steps: k, the number of calls in a round.
    """
    if accumulation_steps == 1:
        return identity()

    def shared(t, total, memory):
        n = memory["micro_step"] + 1
        ready = n == accumulation_steps
        return (n, ready), {"micro_step": jnp.where(ready, 0, n), "ready": ready}

    def update(g, mean, p, t, common):
        n, ready = common
        mean = jnp.where(n == 1, g, mean + (g - mean) / n.astype(jnp.real(g).dtype))
        zero = jnp.zeros_like(mean)
        return jnp.where(ready, mean, zero), jnp.where(ready, zero, mean)

    return per_parameter(
        zeros_like,
        update,
        AccumulateAvgUpdatesState,
        shared=shared,
        memory=lambda: {"micro_step": jnp.zeros([], jnp.int32), "ready": jnp.zeros([], bool)},
    )


@transformation
def average_incrementally_updates(
    per_elt_axis: int | Sequence[int] | None, accumulation_steps: PositiveInt
) -> GradientTransformationExtraArgs:
    """`average_per_element_updates`, then `accumulate_avg_updates`: the mean over the elements of k micro-batches.

    All micro-batches have the same weight, so they should have the same size.

    Args:
      per_elt_axis: the axis of the elements, or several axes; None if gradients are already means over micro-batches.
      accumulation_steps: k, the number of calls in a round.
    """
    over_calls = accumulate_avg_updates(accumulation_steps)
    return over_calls if per_elt_axis is None else chain(average_per_element_updates(per_elt_axis), over_calls)


@checked
def get_batch_size_from_per_elt_updates(per_elt_updates: Tree, per_elt_axis: int | Sequence[int]) -> int:
    """The number of elements in a tree of per-element gradients.

    Args:
      per_elt_updates: the gradients.
      per_elt_axis: the axis of the elements, or several axes, whose sizes are multiplied.

    Raises:
      ValueError: if a gradient has no such axis, if the numbers of elements differ, or if there is no gradient.
    """
    where = "get_batch_size_from_per_elt_updates"
    return elements(where, per_elt_updates, element_axes(where, per_elt_axis))[3]


def element_axes(where: str, per_elt_axis: Any) -> tuple[int, ...]:
    """The axes as a tuple, or an error that says what they must be."""
    axes = tuple(per_elt_axis) if isinstance(per_elt_axis, tuple | list) else (per_elt_axis,)
    if not axes or any(isinstance(a, bool) or not isinstance(a, int | np.integer) for a in axes):
        raise TypeError(f"{where}: per_elt_axis must be a whole number or several, got {per_elt_axis!r}")
    return tuple(int(a) for a in axes)


def elements(where: str, updates: Updates, axes: tuple[int, ...], params: Params = None) -> tuple:
    """The leaves (None included), their structure, the indices of those that are gradients, and the number of elements.

    With `params`, each gradient must have its parameter's shape apart from the axes of the elements.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    live = [i for i, g in enumerate(leaves) if not is_hole(g)]
    ps = None if params is None else align(treedef, params, where, "the parameters", updates, "the gradients")
    numbers: dict[int, int] = {}  # of elements, by the index of the leaf
    for i in live:
        shape = jnp.shape(leaves[i])
        own = {a % len(shape) for a in axes if -len(shape) <= a < len(shape)}
        if len(own) < len(axes):
            raise ValueError(f"{where}: the gradient at {paths(updates)[i]} has shape {shape}, without axes {axes}")
        rest = tuple(n for a, n in enumerate(shape) if a not in own)
        if ps is not None and rest != jnp.shape(ps[i]):
            raise ValueError(
                f"{where}: the gradient at {paths(updates)[i]} has shape {shape}, its parameter has shape "
                f"{jnp.shape(ps[i])}; the axes of the elements, {axes}, must be all that it has besides"
            )
        numbers[i] = math.prod(shape[a] for a in own)
        first = live[0]
        if numbers[i] != numbers[first] or numbers[i] == 0:
            raise ValueError(
                f"{where}: the gradients must be of the same number of elements, at least 1: got {numbers[i]} at "
                f"{paths(updates)[i]}, {numbers[first]} at {paths(updates)[first]}"
            )
    if not live:
        raise ValueError(f"{where}: there is no gradient, so no number of elements")
    return leaves, treedef, live, numbers[live[0]]


@functools.partial(jax.jit, static_argnames="axes")
def _mean(g: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.mean(widen(g), axes)


def _alike(updates: Updates, params: Params) -> bool:
    """Whether gradients have the shapes of the parameters."""
    if params is None:
        return False
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    ps = align(treedef, params, "aggregate", "the parameters", updates, "the gradients")
    return all(is_hole(g) or jnp.shape(g) == jnp.shape(p) for g, p in zip(leaves, ps, strict=True))


def _with_aux(found: Any) -> tuple[Updates, dict[str, Any]]:
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict):
        return found
    raise TypeError(
        "aggregate: with aggregator_has_aux, the aggregator must return ((updates, aux), state), where aux is a "
        f"dictionary of extra arguments; got {type(found).__name__} for (updates, aux)"
    )


def _ready(state: OptState) -> Any:
    # Only fields of named tuples, since a parameter may have the name "ready" too.
    found = get_all_with_path(state, "ready", lambda path, x: isinstance(path[-1], NamedTupleKey))
    return functools.reduce(jnp.logical_and, (x for _, x in found), True)

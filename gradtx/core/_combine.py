# SPDX-License-Identifier: Apache-2.0
"""Transformations made of other transformations and of plain functions: chain, identity, stateless."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gradtx.core._chaining import update_of
from gradtx.core._factory import per_parameter, transformation
from gradtx.core._needs import all_requirements
from gradtx.core._nesting import chained, inside
from gradtx.core._transformation import GradientTransformation, GradientTransformationExtraArgs, Links, as_inner
from gradtx.core._trees import check_state
from gradtx.core._types import EmptyState, OptState, Params, TransformationLike, Updates


@transformation
def chain(*transformations: TransformationLike) -> GradientTransformationExtraArgs:
    """Applies transformations in sequence: the updates of each are the gradients of the next.

    The state is the tuple of their states. Extra arguments of `update` reach the stages that take them; if one that a
    stage needs is missing, an error is raised before the first stage runs.

    Args:
      *transformations: the stages, in order: any objects with `init` and `update`, Optax's too.

    Raises:
      ValueError: at `init`, for a stage of gradtx that changes updates after `params_ema` or `lawa`.
    """
    stages = [as_inner(f"chain: transformations[{i}]", tx) for i, tx in enumerate(transformations)]

    def init(params: Params) -> OptState:
        _check_averages("chain", transformations)
        return tuple(tx.init(params) for tx in stages)

    def opened(state: OptState) -> Sequence[OptState]:
        if not isinstance(state, tuple | list) or len(state) != len(stages):
            raise TypeError(
                f"chain: state must be the tuple of {len(stages)} states that init or the last update returned, "
                f"got {_describe(state)}; the order is update(updates, state, params)"
            )
        return state

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        return {str(i): pair for i, pair in enumerate(zip(transformations, state, strict=True))}

    links = Links(stages, opened, tuple)
    update = update_of(links, functools.cache(lambda: all_requirements(transformations)))
    return GradientTransformationExtraArgs(init, update, links=links, parts=parts)


@transformation
def named_chain(*transformations: tuple[str, TransformationLike]) -> GradientTransformationExtraArgs:
    """`chain` of `(name, transformation)` pairs; the state is an ordered dictionary by name.

    Args:
      *transformations: the pairs, in order.

    Raises:
      ValueError: if two stages have the same name, and as `chain`.
    """
    for i, pair in enumerate(transformations):
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(f"named_chain: transformations[{i}] must be a (name, transformation) pair, got {pair!r}")
    names = [name for name, _ in transformations]
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise ValueError(f"named_chain: the names of the stages must differ, got {repeated[0]!r} more than once")
    stages = [as_inner(f"named_chain: {name!r}", tx) for name, tx in transformations]

    def init(params: Params) -> OptState:
        _check_averages("named_chain", [tx for _, tx in transformations])
        return OrderedDict((name, tx.init(params)) for name, tx in zip(names, stages, strict=True))

    def opened(state: OptState) -> Sequence[OptState]:
        if not isinstance(state, dict) or set(state) != set(names):
            raise TypeError(
                f"named_chain: state must be the dictionary with keys {names} that init or the last update returned, "
                f"got {_describe(state)}; the order is update(updates, state, params)"
            )
        return [state[name] for name in names]

    def closed(states: Iterable[OptState]) -> OptState:
        return OrderedDict(zip(names, states, strict=True))

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        return {name: (tx, state[name]) for name, tx in transformations}

    links = Links(stages, opened, closed)
    update = update_of(links, functools.cache(lambda: all_requirements(tx for _, tx in transformations)))
    return GradientTransformationExtraArgs(init, update, links=links, parts=parts)


AVERAGES = frozenset(("params_ema", "lawa"))
"""The stages that take p + u for the parameters after the update."""

AFTER_AVERAGES = AVERAGES | {
    *("identity", "early_stopping", "snapshot", "measure_with_ema", "monitor"),  # u stays as it is
    *("round_stochastically", "compensate", "error_bits", "keep_master"),  # or is rounded
    *("stateless", "stateless_with_tree_map"),  # or nobody knows
}


def _check_averages(where: str, transformations: Any) -> None:
    """Raises an error if a stage that is known to change updates comes after an average of the parameters."""
    average = None
    for stage in (stage for tx in transformations for stage in _stages_of(tx)):
        name = stage.factory.name
        if average is not None and stage.factory.module.startswith("gradtx.") and name not in AFTER_AVERAGES:
            raise ValueError(
                f"{where}: {average} takes p + u for the parameters after the update, but {name} changes u after it: "
                f"put {average} last"
            )
        average = name if name in AVERAGES else average


def _stages_of(tx: Any) -> list[Any]:
    """The stages of a transformation, through chains and recipes, but not wrappers, which may change some only."""
    if not isinstance(tx, GradientTransformation):
        return []
    opened = tx.expanded
    stages = chained(opened)
    if stages is not None:
        return [stage for _, child in stages for stage in _stages_of(child)]
    return [] if opened.factory is None or any(True for _ in inside(opened.arguments)) else [opened]


def _describe(state: Any) -> str:
    kind = type(state).__name__
    if isinstance(state, dict):
        return f"a {kind} with keys {list(state)[:4]}"
    return f"a {kind} of {len(state)}" if isinstance(state, tuple | list) else kind


@transformation
def identity() -> GradientTransformationExtraArgs:
    """Returns the updates unchanged."""

    def init(params: Params) -> EmptyState:
        return EmptyState()

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("identity", state, EmptyState, updates, params)
        return updates, state

    return GradientTransformationExtraArgs(init, update)


@transformation
def stateless(f: Callable[[Updates, Params], Updates]) -> GradientTransformationExtraArgs:
    """A transformation without state from a function on whole trees.

    Args:
      f: `f(updates, params) -> updates`; `params` is None if `update` is called without parameters.
    """

    def init(params: Params) -> EmptyState:
        return EmptyState()

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("stateless", state, EmptyState, updates, params)
        return f(updates, params), state

    return GradientTransformationExtraArgs(init, update)


@transformation
def stateless_with_tree_map(f: Callable[..., Any]) -> GradientTransformationExtraArgs:
    """A transformation without state from a function on one array.

    Args:
      f: `f(g, p) -> u` for one gradient; `p` is None if `update` is called without parameters.
    """
    return per_parameter(None, lambda g, slots, p, t: (f(g, p), slots))

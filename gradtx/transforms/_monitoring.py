# SPDX-License-Identifier: Apache-2.0
"""Measuring updates inside a chain: stages that pass them unchanged, store measurements in the state and publish them.

The shapes of a measurement are fixed in `init`, by evaluating the measure abstractly on the parameters. So states keep
their types and can be carried through `scan`. Before the first update all measurements are 0.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen, widened_dtype
from gradtx.core._factory import transformation
from gradtx.core._ranges import Decay, DType
from gradtx.core._transformation import GradientTransformationExtraArgs, Inner, as_inner, is_transformation
from gradtx.core._trees import check_state, is_hole
from gradtx.core._types import EmptyState, OptState, Params, Updates
from gradtx.numerics import _averages as moments
from gradtx.transforms._ema import EmaState

Measure = Annotated[Callable[[Updates], Any], "of the updates"]


class SnapshotState(NamedTuple):
    """The last measurement, under its name."""

    measurement: dict[str, Any]

    def metrics(self) -> dict[str, jax.Array]:
        return _scalars(self.measurement)


class MonitorState(NamedTuple):
    """The last measurements by name, and the states of the measures."""

    measurements: dict[str, Any]
    measure_states: tuple

    def metrics(self) -> dict[str, jax.Array]:
        return _scalars(self.measurements)


@transformation
def snapshot(measure_name: str, measure: Measure) -> GradientTransformationExtraArgs:
    """Stores `measure(updates)` of the last updates in the state; `metrics(state)` returns its scalars.

    Args:
      measure_name: the name under which `metrics` publishes the measurement.
      measure: a function from the tree of updates to an array or a tree of arrays, such as `global_norm`; floats are
        stored in at least float32.

    Raises:
      ValueError: if the measurement of the updates has other shapes than that of the parameters.
    """
    if not isinstance(measure_name, str):
        raise TypeError(f"snapshot: measure_name must be a text, got {measure_name!r}")

    def init(params: Params) -> SnapshotState:
        return SnapshotState({measure_name: jax.tree.map(_zeros, jax.eval_shape(measure, params))})

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("snapshot", state, SnapshotState)
        old, found = state.measurement[measure_name], measure(_without_holes(updates))
        return updates, SnapshotState({measure_name: _stored(f"snapshot: {measure_name!r}", found, old)})

    return GradientTransformationExtraArgs(init, update)


@transformation
def monitor(measures: Mapping[str, Any]) -> GradientTransformationExtraArgs:
    """Stores several measurements of the last updates in the state; `metrics(state)` returns their scalars.

    Args:
      measures: a dictionary from names to measures. A measure is a function from the tree of updates to an array or a
        tree of arrays, as for `snapshot`, or a transformation that returns the measurement in place of updates, such as
        `measure_with_ema(...)`; transformations also get the parameters and the extra arguments.

    Raises:
      ValueError: if the measurement of the updates has other shapes than that of the parameters.
    """
    for name in measures:
        if not isinstance(name, str):
            raise TypeError(f"monitor: the names in measures must be texts, got {name!r}")
    txs = {name: _as_transformation(f"monitor: {name!r}", measure) for name, measure in measures.items()}

    def init(params: Params) -> MonitorState:
        blank = {name: _blank(tx, params) for name, tx in txs.items()}
        return MonitorState(blank, tuple(tx.init(params) for tx in txs.values()))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("monitor", state, MonitorState)
        seen = _without_holes(updates)
        measurements, states = {}, []
        for (name, tx), inner in zip(txs.items(), state.measure_states, strict=True):
            found, inner = tx.update(seen, inner, params, **extra)
            measurements[name] = _stored(f"monitor: {name!r}", found, state.measurements[name])
            states.append(inner)
        return updates, MonitorState(measurements, tuple(states))

    def parts(state: OptState) -> dict[str, tuple[Any, OptState]]:
        pairs = zip(measures.values(), state.measure_states, strict=True)
        return {f"measure_states.{i}": pair for i, pair in enumerate(pairs) if is_transformation(pair[0])}

    return GradientTransformationExtraArgs(init, update, parts=parts)


@transformation
def measure_with_ema(
    measure: Measure, decay: Decay, debias: bool = True, accumulator_dtype: DType = None
) -> GradientTransformationExtraArgs:
    """A measure for `monitor`: the moving average m = decay m + (1 - decay) measure(updates), or m / (1 - decay^n).

    Non-finite measurements are left out of the average; n is the number of measurements in it.

    Args:
      measure: a function from the tree of updates to an array or a tree of arrays, as for `snapshot`.
      debias: whether to divide by 1 - decay^n, the total weight of the average so far.
      accumulator_dtype: the dtype in which m is stored; None for at least float32.
    """

    def init(params: Params) -> tuple[EmptyState, EmaState]:
        shapes = jax.eval_shape(measure, params)
        zeros = jax.tree.map(lambda x: moments.zeros_like(_float_zeros(x), accumulator_dtype), shapes)
        return EmptyState(), EmaState(jnp.zeros([], jnp.int32), zeros)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Any, OptState]:
        empty, average = _average_in(state)
        found = _stored("measure_with_ema: measure", measure(_without_holes(updates)), average.ema, widened=True)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(found)] or [jnp.array(True)]))

        def averaged(m: jax.Array, x: jax.Array) -> jax.Array:
            old = m.astype(x.dtype)
            with promotion(x):
                return jnp.where(finite, moments.ema(old, x, decay), old).astype(m.dtype)

        def corrected(m: jax.Array) -> jax.Array:
            dtype = compute_dtype(m)
            with promotion(m):
                return widen(m, dtype) / moments.one_minus_power(decay, jnp.maximum(count, 1).astype(dtype))

        count = jnp.where(finite, safe_increment(average.count), average.count)
        m = jax.tree.map(averaged, average.ema, found)
        return jax.tree.map(corrected, m) if debias else m, (empty, EmaState(count, m))

    return GradientTransformationExtraArgs(init, update)


def _average_in(state: Any) -> tuple[Any, EmaState]:
    if not (isinstance(state, tuple) and len(state) == 2):
        raise TypeError(
            f"measure_with_ema: state must be what init or the last update returned, got {type(state).__name__}; "
            f"the order is update(updates, state, params)"
        )
    check_state("measure_with_ema", state[1], EmaState)
    return state


def _as_transformation(where: str, measure: Any) -> GradientTransformationExtraArgs | Inner:
    if is_transformation(measure):
        return as_inner(where, measure)
    if not callable(measure):
        raise TypeError(f"{where} must be a function of the updates or a transformation, got {measure!r}")

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Any, OptState]:
        return measure(updates), state

    return GradientTransformationExtraArgs(lambda params: EmptyState(), update)


def _without_holes(updates: Updates) -> Updates:
    """The updates with None for float0 gradients (those of integer parameters), which functions cannot compute with."""
    return jax.tree.map(lambda g: None if is_hole(g) else g, updates)


def _blank(tx: GradientTransformationExtraArgs | Inner, params: Params) -> Any:
    """Zeros in the shapes of the measurement that a transformation makes."""
    return jax.tree.map(_zeros, jax.eval_shape(lambda p: tx.update(p, tx.init(p), p)[0], params))


def _zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(x.shape, _dtype_of_average(x))


def _float_zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros for an average, which is a float for integers too."""
    return _zeros(x if jnp.issubdtype(x.dtype, jnp.inexact) else jax.ShapeDtypeStruct(x.shape, jnp.float32))


def _dtype_of_average(x: Any) -> Any:
    return widened_dtype(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x.dtype


def _stored(where: str, found: Any, old: Any, widened: bool = False) -> Any:
    """The measurement in the dtypes of the stored one, or an error if its shapes differ from the stored ones."""
    found = jax.tree.map(jnp.asarray, found)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (old, found)]
    if jax.tree.structure(found) != jax.tree.structure(old) or shapes[0] != shapes[1]:
        raise ValueError(
            f"{where} has shapes {shapes[1]} for the updates and had {shapes[0]} for the parameters at init; "
            f"they must be the same"
        )
    return jax.tree.map(lambda x, o: x.astype(_dtype_of_average(o) if widened else o.dtype), found, old)


def _scalars(measurements: dict[str, Any]) -> dict[str, jax.Array]:
    """The scalars of trees of measurements by their paths, such as "norms.w"."""
    leaves = jax.tree_util.tree_leaves_with_path(measurements)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves if jnp.ndim(x) == 0}

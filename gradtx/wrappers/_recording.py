# SPDX-License-Identifier: Apache-2.0
"""Recording norms of the gradients, updates and parameters of a transformation."""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._apply import apply_updates
from gradtx.core._counts import safe_increment
from gradtx.core._factory import transformation
from gradtx.core._over_devices import Names, sum_over
from gradtx.core._roles import names_of_leaves, unboxed
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import align, check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._safe import safe_divide
from gradtx.tree._reductions import global_norm, norm_known

MEASURES = ("grad_norm", "update_norm", "parameter_norm", "relative_update", "clip_fraction", "lost_updates")
GRAD_NORM_KEY = "gradient_norm"  # the key that checkpoints have for "grad_norm"
OF_GRADIENTS = {"grad_norm", "clip_fraction"}
OF_PARAMETERS = {"parameter_norm", "relative_update", "lost_updates"}


class RecordMetricsState(NamedTuple):
    """The number of updates made, the state of the inner transformation, and the numbers of the last update."""

    count: jax.Array
    inner_state: OptState
    recorded: dict[str, jax.Array]

    def metrics(self) -> dict[str, jax.Array]:
        return {"grad_norm" if key == GRAD_NORM_KEY else key: x for key, x in self.recorded.items()}


@transformation
def record_metrics(
    inner: Transformation, names: tuple[str, ...] = ("grad_norm", "update_norm")
) -> GradientTransformationExtraArgs:
    """Runs `inner` and stores numbers about its last update in the state, for `metrics(state)`:

    ```
    grad_norm         ‖g‖ over all gradients, the input of inner
    update_norm       ‖u‖ over all updates, its output
    parameter_norm    ‖p‖ before the update
    relative_update   ‖u‖ / ‖p‖
    clip_fraction     the fraction of updates so far with ‖u‖ < ‖g‖: for a clipping stage
    lost_updates      the fraction of elements with u ≠ 0 for which p + u, rounded to the dtype of p, equals p
    ```

    Args:
      names: which of these to compute. Before the first update all are 0.

    Raises:
      ValueError: for a name that is not one of these.
    """
    tx = as_inner("record_metrics: inner", inner)
    for name in names if isinstance(names, tuple | list) else [names]:
        if not isinstance(name, str) or name not in MEASURES:
            raise ValueError(f"record_metrics: names must be of {MEASURES}, in a tuple, got {name!r}")

    def init(params: Params) -> RecordMetricsState:
        zeros = {_key(name): jnp.zeros([], jnp.result_type(float)) for name in names}
        return RecordMetricsState(jnp.zeros([], jnp.int32), tx.init(params), zeros)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("record_metrics", state, RecordMetricsState)
        check_said("record_metrics", params)
        if params is None and OF_PARAMETERS & set(names):
            raise ValueError("record_metrics: update needs the parameters: call update(updates, state, params)")
        with norm_known(updates) if OF_GRADIENTS & set(names) else contextlib.nullcontext():
            return recorded(updates, state, params, extra)

    def recorded(updates: Updates, state: Any, params: Params, extra: dict) -> tuple[Updates, OptState]:
        new, inner_state = tx.update(updates, state.inner_state, params, **extra)
        count = safe_increment(state.count)

        def clipped() -> jax.Array:
            # Multiplying by a factor of one may round, so a difference in the last digits is not counted as clipping.
            now = (global_norm(new) < (1 - 1e-5) * global_norm(updates)).astype(jnp.result_type(float))
            before = state.recorded["clip_fraction"]
            return before + (now - before) / count.astype(now.dtype)

        measures = {
            "grad_norm": lambda: global_norm(updates),
            "update_norm": lambda: global_norm(new),
            "parameter_norm": lambda: global_norm(params),
            "relative_update": lambda: safe_divide(*_alike(global_norm(new), global_norm(params))),
            "clip_fraction": clipped,
            "lost_updates": lambda: _lost(params, new),
        }
        measured = {_key(name): measures[name]().astype(jnp.result_type(float)) for name in names}
        return new, RecordMetricsState(count, inner_state, measured)

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )


def _key(name: str) -> str:
    return GRAD_NORM_KEY if name == "grad_norm" else name


def _lost(params: Params, updates: Updates) -> jax.Array:
    """The fraction of nonzero updates that are too small to change their parameter."""
    leaves, treedef = jax.tree.flatten(unboxed(updates), is_leaf=is_none)
    ps = align(treedef, unboxed(params), "record_metrics", "the parameters", updates, "the updates")
    parts: dict[Names, list] = {}
    for p, u, names in zip(ps, leaves, names_of_leaves(updates), strict=True):
        if not is_hole(u):
            parts.setdefault(names, []).append(_lost_of(p, u))
    if not parts:
        return jnp.zeros([])
    sums = {n: tuple(jnp.sum(jnp.stack(column)) for column in zip(*rows, strict=True)) for n, rows in parts.items()}
    return safe_divide(*sum_over(sums))


@jax.jit
def _lost_of(p: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    moved, dtype = u != 0, jnp.result_type(float)
    lost = moved & (apply_updates(p, u) == p)
    return jnp.sum(lost, dtype=dtype), jnp.sum(moved, dtype=dtype)


def _alike(*norms: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(x.astype(jnp.result_type(float)) for x in norms)

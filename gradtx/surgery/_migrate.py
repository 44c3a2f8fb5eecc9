# SPDX-License-Identifier: Apache-2.0
"""Carrying a state over to another transformation, other parameters, or out of a checkpoint."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core._checked import checked
from gradtx.core._payloads import Payload, decoded, encoded_like, kept_alike
from gradtx.core._ranges import is_array, is_number
from gradtx.core._transformation import Transformation, check_transformation
from gradtx.core._trees import show_path
from gradtx.core._types import Numeric, OptState, Params
from gradtx.core._unwrapping import unwrapped
from gradtx.surgery._ages import rules_of
from gradtx.surgery._alignment import Outline
from gradtx.surgery._carrying import Carrying
from gradtx.surgery._fitting import Grow
from gradtx.surgery._report import MigrationReport
from gradtx.surgery._slots import holders_of, inner_states, is_named_tuple, named_states, names

Rename = Mapping[str, str | tuple[str, Callable]]


@checked
def migrate(
    old_state: OptState,
    new_tx: Any,
    params: Params,
    *,
    old_tx: Transformation | None = None,
    rename: Rename | None = None,
    moved: Mapping[str, str | None] | Callable[[str], str | None] | None = None,
    grow: Grow = None,
    step: Numeric | None = None,
    own_age: bool = True,
) -> tuple[OptState, MigrationReport]:
    """A state of `new_tx` that keeps all of the old state that fits by parameter path, slot and shape, and a report.

    Stages are matched by class and order, even if others come between. A stage of another rule takes over averages of
    the same quantity, if it needs nothing else (Lion and Muon from Adam). Counts go with the averages whose age they
    are; step counts of new stages are set to the old step. Slots of storage codecs are decoded, and encoded for the new
    state.

    Args:
      old_state: a state of gradtx or Optax, or one restored as dictionaries and lists.
      new_tx: the transformation that goes on.
      params: the parameters, as `new_tx` will see them.
      old_tx: the transformation of the old state. Adam, AdaMax, LaProp and others have states of one class, which only
        this tells apart; None if it is not known.
      rename: new names of old slots, `{"trace": "mu"}` or `{"trace": ("mu", lambda x: 0.1 * x)}`; see `find_slots`.
      moved: old paths by new paths, as a dict or a function; the old path is None for a new parameter.
      grow: what new entries of larger slots get: "init", "mean" of the old along the axis, a function `(old, new) ->
        array`, or "reset" for a new slot; or a dict of these by slot name. None raises.
      step: the number of updates made, for new stages; None for the count in the old state.
      own_age: whether averages that begin anew beside old ones have an age of their own: their count then has an entry
        for each parameter, and their first steps are as long as those of a new run. If False they share the old age,
        and with Adam their first steps are several times as long, for about 1 / (1 - b2) updates.

    Raises:
      ValueError: for slots that have grown, if `grow` is None, and names in `rename` that do not exist.
    """
    _check_step(step)
    if not (moved is None or isinstance(moved, Mapping) or callable(moved)):
        raise TypeError(f"migrate: moved must be a mapping from new paths to old ones, or a function, got {moved!r}")
    made = check_transformation("migrate: new_tx", new_tx).init(params)
    old_state, kept = unwrapped(old_state), unwrapped(made)
    _check_state(old_state)
    new_state = kept
    shapes = unwrapped(jax.eval_shape(lambda p: p, params))
    if not kept_alike(old_state, kept):
        old_state, new_state = _decoded(old_state, shapes), _decoded(kept, shapes)
    inside, before = named_states(new_tx, made), {}
    restored = not any(map(is_named_tuple, jax.tree.leaves(old_state, is_leaf=is_named_tuple)))
    if old_tx is not None:  # of dictionaries and lists it cannot tell the parts, of a state of its own it can
        before = named_states(old_tx, old_tx.init(params) if restored else old_state)
    # Without classes and without `old_tx`, what holds states is most likely where it is now.
    holders = holders_of(before or inside if restored else before)
    old = Outline(old_state, shapes, before, holders)
    new = Outline(new_state, shapes, inside, holders_of(inside))
    carrying = Carrying(old, new, shapes, moved, grow)
    carrying.slots(rename or {})
    carrying.averages()
    carrying.numbers(step)
    carrying.ages(rules_of(dict(inner_states(new_tx, made))) if own_age else {})
    leaves = jax.tree.leaves(new_state)
    for part, values in carrying.values():
        leaves[part.start : part.stop] = values
    state = encoded_like(kept, jax.tree.unflatten(jax.tree.structure(new_state), leaves))
    return jax.tree.unflatten(jax.tree.structure(made), jax.tree.leaves(state)), carrying.report()


def _check_state(state: Any) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        if not hasattr(x, "dtype") and not isinstance(x, bool | int | float | complex):
            raise TypeError(
                f"migrate: old_state must be a state, a tree of arrays, got {x!r} at {show_path(path)}; the order is "
                f"migrate(old_state, new_tx, params)"
            )


def _decoded(state: Any, shapes: Any) -> Any:
    """The state with arrays in place of payloads: in the shape of the parameter whose path ends that of the payload."""
    known = {names(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(shapes)}

    def shape_at(path: tuple, payload: Payload) -> tuple[int, ...]:
        ends = (names(path[start:]) for start in range(len(path) + 1))
        own = (known[end] for end in ends if end in known)
        return next((shape for shape in own if payload.fits(shape)), payload.shape)

    return decoded(state, shape_at)


def _check_step(step: Any) -> None:
    if step is None or isinstance(step, Tracer):
        return
    if not (is_number(step) or is_array(step)):
        raise TypeError(f"migrate: step must be a number of updates, at least 0, got {step!r}")
    if jnp.ndim(step) != 0 or not 0 <= step < math.inf or step != int(step):
        raise ValueError(f"migrate: step must be a number of updates, at least 0, got {step!r}")

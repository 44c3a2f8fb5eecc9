# SPDX-License-Identifier: Apache-2.0
"""Transformations that run on boxed parameters: `with_roles` puts parameters into boxes and takes results out."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._roles._rules import check_rules, roles
from gradtx.core._factory import transformation
from gradtx.core._prefixes import is_partial, of_whole
from gradtx.core._roles import Boxed, closed, is_absent, is_box, opened, unboxed
from gradtx.core._selectors import is_entry
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import align, is_none
from gradtx.core._types import OptState, Params, Updates

Box = Callable[[Any, bool], Any]


@transformation
def with_roles(rules: Any, inner: Any) -> GradientTransformationExtraArgs:
    """Runs `inner` with the role of each parameter known to all of its stages. Put it around the whole optimizer.

    Rules then run on each logical parameter of a stack by itself: norms, factors, trust ratios and blocks of a leaf of
    shape (L, m, n) with `Role(stack=0)` are those of L parameters of shape (m, n), and functions of the parameters
    (masks, labels) see the shape (m, n). Norms over the whole tree are unchanged. The state has the structure of that
    of `inner`; only slots with another shape than the parameter's have the stack's axes in front.

    Args:
      rules: as in `roles`: pairs (where, `Role`), a function such as `infer_roles`, or a tree of roles.
      inner: the transformation.

    Raises:
      ValueError: at `init`, for parameters without a rule, rules without a parameter, and roles that do not fit.
    """
    rules = check_rules("with_roles", rules)

    def box(tree: Any, partial: bool) -> Any:
        found = roles(tree, rules, partial=partial)
        leaves, treedef = jax.tree.flatten(tree, is_leaf=is_entry)
        pairs = zip(leaves, treedef.flatten_up_to(found), strict=True)
        return treedef.unflatten([_with_role(x, role) for x, role in pairs])

    return run_in_boxes("with_roles", inner, box)


def looks(tree: Any) -> tuple:
    """The structure, shapes and dtypes of a tree of arrays: a key for caches of what is made for such trees."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = [x if hasattr(x, "dtype") else np.asarray(x) for x in leaves]
    return treedef, tuple((x.shape, x.dtype) for x in arrays)


def _with_role(x: Any, role: Any) -> Any:
    if is_absent(x):
        return x
    return dataclasses.replace(x, role=role) if is_box(x) else Boxed(x, role)


def run_in_boxes(name: str, inner: Any, box: Box) -> GradientTransformationExtraArgs:
    """`inner` on boxed trees. `box(tree, partial)` boxes parameters; `partial` says that some may be missing.

    States are taken out of their boxes after each call and put back before the next, so that they have no boxes for
    callers.
    """
    tx = as_inner(f"{name}: inner", inner)
    structures: dict[Any, tuple] = {}  # of boxed states, cached as they take a trace

    def structure_of(boxed: Params, state: OptState | None = None) -> tuple:
        key = looks(boxed)
        if key not in structures:
            state = jax.eval_shape(tx.init, boxed) if state is None else state
            structures[key] = jax.tree.structure(state), jax.tree.structure(unboxed(state))
        return structures[key]

    def init(params: Params) -> OptState:
        boxed = box(params, is_partial(params))
        state = tx.init(boxed)
        structure_of(boxed, state)
        return unboxed(state)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if params is not None:
            leaves_of(name, updates, params)  # so that swapped arguments raise their own error, not one about rules
        known = box(updates if params is None else params, True)
        boxed_structure, structure = structure_of(known)
        if boxed_structure != structure:
            if jax.tree.structure(state) != structure:
                if params is None and any(map(is_none, jax.tree.leaves(updates, is_leaf=is_none))):
                    raise ValueError(
                        f"{name}: where gradients are None, the roles of their parameters are not known from them: "
                        f"call update(updates, state, params)"
                    )
                raise TypeError(
                    f"{name}: state must be what init or the last update returned for these parameters, got "
                    f"{type(state).__name__}; the order is update(updates, state, params)"
                )
            state = jax.tree.unflatten(boxed_structure, jax.tree.leaves(state))
        boxed = known if params is None else _boxed_like(name, known, updates)
        # `value` is never boxed: if the parameters are one array, a number has their structure.
        given = {n: x if n == "value" else _boxed_argument(name, known, params, x) for n, x in extra.items()}
        new, state = tx.update(boxed, state, None if params is None else known, **given)
        leaves, treedef = jax.tree.flatten(state)
        # Unflattening is faster than looking for boxes at each node.
        state = jax.tree.unflatten(structure, leaves) if treedef == boxed_structure else unboxed(state)
        return _unboxed_like(updates, new), state

    return GradientTransformationExtraArgs(init, update, parts=lambda state: {"": (inner, state)})


def _boxed_like(name: str, known: Params, tree: Any) -> Any:
    """The tree with its leaves in the boxes of their parameters; None stays."""
    leaves, boxes, treedef = leaves_of(name, tree, known)
    return treedef.unflatten([_in_box(x, b) for x, b in zip(leaves, boxes, strict=True)])


def leaves_of(name: str, tree: Any, params: Params) -> tuple[list, list, Any]:
    """The leaves of a tree, None included, the parameters at the same places, and the structure."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_entry)
    return leaves, align(treedef, params, name, "the parameters", tree, "the gradients"), treedef


def _in_box(x: Any, box: Any) -> Any:
    if x is None or is_box(box):
        return x if x is None or is_absent(box) else closed(box, opened(x))
    return x if jax.tree.leaves(box) else box  # what is hidden among the parameters is hidden here too


def _unboxed_like(updates: Updates, new: Updates) -> Updates:
    """The new updates without the boxes that were put on here, but with those that `updates` had; None where hidden."""

    def restored(g: Any, u: Any) -> Any:
        if is_absent(g):
            return g
        return closed(g, unboxed(u)) if jax.tree.leaves(u) else None

    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_entry)
    try:
        found = treedef.flatten_up_to(new)
    except (ValueError, TypeError):  # an aggregator's statistics are no updates
        return unboxed(new)
    return treedef.unflatten(map(restored, leaves, found))


def _boxed_argument(name: str, known: Params, params: Params, x: Any) -> Any:
    """An extra argument with trees like the parameters boxed; functions still see whole trees without boxes."""
    if callable(x):
        of_seen = of_whole(x, unboxed(params), lambda found: _boxed_argument(name, known, params, found))

        @functools.wraps(x)  # with its signature, which tells what further arguments it takes
        def of_boxed(*args: Any, **kwargs: Any) -> Any:
            return of_seen(*unboxed(args), **unboxed(kwargs))

        return of_boxed
    structures = {jax.tree.structure(unboxed(known)), jax.tree.structure(unboxed(params))}
    is_array = jax.tree.structure(0) in structures
    if jax.tree.structure(unboxed(x)) in structures and not (is_array and jnp.ndim(unboxed(x)) == 0):
        return _boxed_like(name, known, x)
    plain_tuple = isinstance(x, tuple) and not hasattr(x, "_fields")
    return tuple(_boxed_argument(name, known, params, part) for part in x) if plain_tuple else x

# SPDX-License-Identifier: Apache-2.0
"""Transformations that run on parameters in boxes: `with_roles` puts them in, and takes what comes out of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.factory import transformation
from gradtx.core.roles import Boxed, is_box, is_full_box, unboxed
from gradtx.core.transformation import (
    GradientTransformationExtraArgs,
    check_transformation,
    with_extra_args_support,
)
from gradtx.core.trees import align, is_none
from gradtx.core.types import OptState, Params, Updates
from gradtx.parameters.rules import check_rules, roles

Box = Callable[[Any, bool], Any]


@transformation
def with_roles(rules: Any, inner: Any) -> GradientTransformationExtraArgs:
    """Runs `inner` with the role of each parameter known to all of its stages. Put it around the whole optimizer.

    Rules then run on each logical parameter of a stack by itself: norms, factors, trust ratios and blocks of a leaf of
    shape (L, m, n) with `Role(stack=0)` are those of L parameters of shape (m, n), and functions of the parameters
    (masks, labels) are shown the shape of one. Norms of the whole tree stay what they are. The state is built as that
    of `inner`; only what a rule keeps in another shape than the parameter's has the stack's axes in front.

    Args:
      rules: what `roles` takes: pairs of a path pattern and a `Role`, a function such as `infer_roles`, or a tree.
      inner: the transformation.

    Raises:
      ValueError: at `init`, for parameters without a rule, rules without a parameter, and roles that do not fit.
    """
    rules = check_rules("with_roles", rules)

    def box(tree: Any, partial: bool) -> Any:
        found = roles(tree, rules, partial=partial)
        leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is None or is_box(x))
        pairs = zip(leaves, treedef.flatten_up_to(found), strict=True)
        return treedef.unflatten([_with_role(x, role) for x, role in pairs])

    return run_in_boxes("with_roles", inner, box)


def _with_role(x: Any, role: Any) -> Any:
    if x is None or is_box(x) and not is_full_box(x):
        return x
    return Boxed(x.value, role, x.group) if is_box(x) else Boxed(x, role)


def run_in_boxes(name: str, inner: Any, box: Box) -> GradientTransformationExtraArgs:
    """`inner` on boxed trees. `box(tree, partial)` boxes parameters; `partial` says that some may be missing.

    States are taken out of their boxes and put back, so that they look the same to everybody as those of `inner`.
    """
    tx = with_extra_args_support(check_transformation(f"{name}: inner", inner))
    structures: dict[Any, tuple] = {}  # of boxed states, which would else be traced again at each update

    def structure_of(boxed: Params, state: OptState | None = None) -> tuple:
        leaves, treedef = jax.tree.flatten(boxed)
        key = (treedef, tuple(map(jnp.shape, leaves)))
        if key not in structures:
            state = jax.eval_shape(tx.init, boxed) if state is None else state
            structures[key] = jax.tree.structure(state), jax.tree.structure(unboxed(state))
        return structures[key]

    def init(params: Params) -> OptState:
        boxed = box(params, not jax.tree.leaves(params))
        state = tx.init(boxed)
        structure_of(boxed, state)
        return unboxed(state)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        known = box(updates if params is None else params, True)
        boxed_structure, structure = structure_of(known)
        if boxed_structure != structure:
            if jax.tree.structure(state) != structure:
                raise TypeError(
                    f"{name}: state must be what init or the last update returned for these parameters, got "
                    f"{type(state).__name__}; the order is update(updates, state, params)"
                )
            state = jax.tree.unflatten(boxed_structure, jax.tree.leaves(state))
        boxed = _boxed_like(name, known, updates)
        given = {n: _boxed_argument(name, known, x) for n, x in extra.items()}
        new, state = tx.update(boxed, state, None if params is None else known, **given)
        return _unboxed_like(updates, new), unboxed(state)

    return GradientTransformationExtraArgs(init, update, parts=lambda state: {"": (inner, state)})


def _boxed_like(name: str, known: Params, tree: Any) -> Any:
    """The tree with its leaves in the boxes of their parameters; None stays."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: is_none(x) or is_box(x))
    boxes = align(treedef, known, name, "the parameters", tree, "the gradients")
    pairs = zip(leaves, boxes, strict=True)
    return treedef.unflatten([_in_box(x, b) for x, b in pairs])


def _in_box(x: Any, box: Any) -> Any:
    if x is None or is_box(box) and not is_full_box(box):
        return x
    if is_box(box):
        return box.holding(x.value if is_box(x) else x)
    return x if jax.tree.leaves(box) else box  # what is hidden among the parameters is hidden here too


def _unboxed_like(updates: Updates, new: Updates) -> Updates:
    """The updates out of the boxes that they were put in, in those that they came in; None for what was hidden."""

    def restored(g: Any, u: Any) -> Any:
        if g is None or not jax.tree.leaves(u):
            return None
        return g.holding(unboxed(u)) if is_box(g) else unboxed(u)

    return jax.tree.map(restored, updates, new, is_leaf=lambda x: x is None or is_box(x))


def _boxed_argument(name: str, known: Params, x: Any) -> Any:
    """Trees like the parameters in boxes; functions of parameters take and return what they did without."""
    if callable(x):
        return lambda *args, **kwargs: _boxed_argument(name, known, x(*unboxed(args), **unboxed(kwargs)))
    if jax.tree.structure(unboxed(x)) == jax.tree.structure(unboxed(known)):
        return _boxed_like(name, known, x)
    plain_tuple = isinstance(x, tuple) and not hasattr(x, "_fields")
    return tuple(_boxed_argument(name, known, part) for part in x) if plain_tuple else x

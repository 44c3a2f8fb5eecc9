# SPDX-License-Identifier: Apache-2.0
"""Applying a transformation to some of the parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gradtx.core.factory import transformation
from gradtx.core.transformation import (
    GradientTransformationExtraArgs,
    check_transformation,
    with_extra_args_support,
)
from gradtx.core.trees import align, show_path
from gradtx.core.types import OptState, Params, Updates


class MaskedNode(NamedTuple):
    """Stands where a masked tree has no value. It has no leaves, so transformations do not see it."""


class MaskedState(NamedTuple):
    """The state of the inner transformation, with `MaskedNode` in the place of what it does not see."""

    inner_state: OptState


@transformation
def masked(
    inner: Any, mask: Any | Callable[[Params], Any], *, mask_compatible_extra_args: bool = False
) -> GradientTransformationExtraArgs:
    """Applies `inner` where the mask is True; elsewhere updates pass unchanged and there is no state.

    Args:
      inner: the transformation.
      mask: a tree of booleans with the structure of the parameters or a prefix of it, or a function from the
        parameters (from the updates, where `update` is called without parameters) to such a tree.
      mask_compatible_extra_args: whether extra arguments with the structure of the updates are masked too.

    Raises:
      ValueError: if the mask does not fit the tree, with the path.
    """
    tx = with_extra_args_support(check_transformation("masked: inner", inner))

    def mask_for(tree: Any) -> Any:
        is_function = callable(mask) and jax.tree_util.all_leaves([mask])
        tree_of_flags = mask(tree) if is_function else mask
        for path, flag in jax.tree_util.tree_leaves_with_path(tree_of_flags):
            if not isinstance(flag, bool | np.bool_):
                raise TypeError(f"masked: mask must hold True or False at {show_path(path)}, got {flag!r}")
        return tree_of_flags

    def init(params: Params) -> MaskedState:
        return MaskedState(tx.init(_hide(mask_for(params), params, "the parameters")))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if getattr(state, "_fields", None) != MaskedState._fields:
            raise TypeError(
                f"masked: state must be the MaskedState that init or the last update returned, "
                f"got {type(state).__name__}; the order is update(updates, state, params)"
            )
        flags = mask_for(updates if params is None else params)
        structure = jax.tree.structure(updates)
        if mask_compatible_extra_args:
            fits = {n: jax.tree.structure(v) == structure for n, v in extra.items()}
            extra = {n: _hide(flags, v, n) if fits[n] else v for n, v in extra.items()}
        seen = _hide(flags, updates, "the gradients")
        seen_params = None if params is None else _hide(flags, params, "the parameters")
        new, inner_state = tx.update(seen, state.inner_state, seen_params, **extra)
        merged = jax.tree.map(lambda flag, u, old: u if flag else old, flags, new, updates)
        return merged, state._replace(inner_state=inner_state)

    return GradientTransformationExtraArgs(init, update)


def _hide(flags: Any, tree: Any, name: str) -> Any:
    leaves, treedef = jax.tree.flatten(flags)
    parts = align(treedef, tree, "masked", name, flags, "the mask's entries")
    return jax.tree.unflatten(treedef, [x if flag else MaskedNode() for flag, x in zip(leaves, parts, strict=True)])

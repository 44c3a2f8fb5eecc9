# SPDX-License-Identifier: Apache-2.0
"""Where slots lie, written where Flax's nnx reads it."""

from typing import Any

import jax

from gradtx.core._selectors import is_carrier
from gradtx.core._transformation import check_transformation
from gradtx.core._trees import show_path
from gradtx.core._types import Params
from gradtx.core._unwrapping import unwrapped
from gradtx.sharding._layout import AnyMesh, layout_of
from gradtx.sharding._state_shardings import state_types
from gradtx.surgery._slots import split


def set_optimizer_sharding(tx: Any, variables: Params, *, mesh: AnyMesh | None = None, specs: Any = None) -> None:
    """Writes on each variable of a model in Flax's nnx where the slots of `tx` for it lie.

    `nnx.Optimizer` puts its arrays where the metadata `optimizer_sharding` of the variables says, and without it where
    the parameters lie, also if `tx` has its state elsewhere, as `zero` has. So call this before:

        set_optimizer_sharding(tx, nnx.state(model, nnx.Param))
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    There is one such entry for all slots of a variable: that of the first slot in its shape. It changes the variables.

    Args:
      tx: the transformation.
      variables: the variables, as `nnx.state(model, nnx.Param)` has them.
      mesh, specs: as in `state_shardings`.

    Raises:
      TypeError: for arrays that are in no variable.
      ValueError: as `state_shardings`.
    """
    where = "set_optimizer_sharding"
    check_transformation(f"{where}: tx", tx)
    entries = jax.tree_util.tree_leaves_with_path(variables, is_leaf=is_carrier)
    for path, x in entries:
        if not hasattr(x, "set_metadata"):
            raise TypeError(
                f"{where}: variables must hold variables of nnx, got {type(x).__name__} at {show_path(path)}"
            )
    layout = layout_of(where, variables, mesh, specs)
    given = jax.tree_util.tree_leaves_with_path(unwrapped(layout.params))
    shapes = {path: x.shape for path, x in given}
    found: dict[Any, tuple] = {}
    for part in split(state_types(tx, layout), layout.params):
        if part.parameter is None:
            continue
        for x in jax.tree.leaves(part.value):
            if x.shape == shapes[part.parameter]:
                found.setdefault(part.parameter, tuple(x.sharding.spec))
    for (path, _), (_, variable) in zip(given, entries, strict=True):
        if path in found:
            variable.set_metadata(optimizer_sharding=found[path])

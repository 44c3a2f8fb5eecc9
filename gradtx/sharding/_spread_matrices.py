# SPDX-License-Identifier: Apache-2.0
"""Which devices work on which matrices, where one says so."""

from typing import Any

import jax

from gradtx.core._factory import transformation
from gradtx.core._over_devices import Names, is_bound
from gradtx.core._placement import explicit_sharding
from gradtx.core._spreading import OVER
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._types import OptState, Params, Updates
from gradtx.sharding._layout import ambient_mesh, check_axis


@transformation
def spread_matrices(inner: Any, over: Any) -> GradientTransformationExtraArgs:
    """Runs `inner` with matrices that are alike, in rules such as `muon`, spread over mesh axes: each device has some.

    ```
    parts of n matrices → n/k whole matrices on each of k devices → the rule → parts
    ```

    Without it, matrices are spread over the axes that split them where types tell these or `over_axes` does, and on
    automatic axes whole on every device, as are replicated ones. Only matrices that are alike are spread, and only if
    they are no fewer than the devices. Numbers, the state and where it lies do not depend on it.

    Args:
      over: the name of a mesh axis, or a tuple of names; () to gather matrices on every device, whatever types tell.
        Other axes that split a matrix are gathered. On automatic axes, `jax.set_mesh` must be around the call.

    Raises:
      ValueError: at `update`, for an axis that the mesh does not have, without a mesh, and inside a `shard_map` over
        some of the axes only.
    """
    tx = as_inner("spread_matrices: inner", inner)
    names = (over,) if isinstance(over, str) else over
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"spread_matrices: over must be the name of a mesh axis, or a tuple of names, got {over!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"spread_matrices: over must name each mesh axis once, got {over!r}")

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        _check(names, updates)
        token = OVER.set(names)
        try:
            return tx.update(updates, state, params, **extra)
        finally:
            OVER.reset(token)

    return GradientTransformationExtraArgs(tx.init, update, parts=lambda state: {"": (inner, state)})


def _check(names: Names, updates: Updates) -> None:
    """Raises an error for names that are not axes of one mesh here."""
    bound = [name for name in names if is_bound(name)]
    if len(bound) == len(names):
        return
    typed = [found.mesh for x in jax.tree.leaves(updates) if (found := explicit_sharding(x)) is not None]
    mesh = typed[0] if typed else ambient_mesh()
    missing = next(name for name in names if name not in bound)
    if mesh is None:
        raise ValueError(
            f"spread_matrices: over names {missing!r}, but there is no mesh: put jax.set_mesh(mesh) around the call"
        )
    for name in names:
        check_axis("spread_matrices: over:", name, mesh)
    if bound:
        raise ValueError(
            f"spread_matrices: over names {bound[0]!r}, an axis of the shard_map around the call, and {missing!r}, "
            f"which is none of it: give axes of one kind"
        )

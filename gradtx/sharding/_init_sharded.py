# SPDX-License-Identifier: Apache-2.0
"""States that are born sharded."""

from typing import Any

import jax

from gradtx.core._borders import of_shapes
from gradtx.core._checked import checked
from gradtx.core._transformation import check_transformation
from gradtx.core._types import OptState, Params
from gradtx.sharding._layout import AnyMesh, layout_of
from gradtx.sharding._state_shardings import state_types


@checked
def init_sharded(tx: Any, params: Params, *, mesh: AnyMesh | None = None, specs: Any = None) -> OptState:
    """`tx.init(params)` in the shardings of `state_shardings`: no slot is ever whole on one device.

    `tx.init` itself keeps shardings where slots are made like their parameters, outside of `jit`. Inside `jit`, on a
    mesh with automatic axes, zeros have no reason to be sharded, and the compiler puts them on every device whole.

    Args:
      tx, params, mesh, specs: see `state_shardings`. Parameters that lie elsewhere than the specs say are moved for the
        call. Of `jax.ShapeDtypeStruct`s a state is made if it does not depend on the parameters' values.

    Raises:
      ValueError: as `state_shardings`, and for structs where the state depends on values.
    """
    check_transformation("init_sharded: tx", tx)
    layout = layout_of("init_sharded", params, mesh, specs)
    if isinstance(layout.mesh, jax.sharding.AbstractMesh):
        raise ValueError("init_sharded: the mesh has no devices (an AbstractMesh), on which a state could be made")
    shardings = jax.tree.map(lambda x: x.sharding, state_types(tx, layout))
    abstract = layout.mesh.abstract_mesh

    def init(given: Params) -> OptState:
        with jax.sharding.use_abstract_mesh(abstract):  # for transformations that ask for the mesh, such as `zero`
            return of_shapes(tx.init)(given)

    if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params)):
        structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), layout.params)
        return jax.jit(lambda: init(structs), out_shardings=shardings)()
    placed = jax.tree.map(lambda x, struct: _at(x, struct.sharding), params, layout.params)
    return jax.jit(init, out_shardings=shardings)(placed)


def _at(x: Any, sharding: Any) -> jax.Array:
    there = isinstance(x, jax.Array) and x.sharding.is_equivalent_to(sharding, x.ndim)
    return x if there else jax.device_put(x, sharding)

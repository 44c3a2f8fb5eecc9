# SPDX-License-Identifier: Apache-2.0
"""The sharding of each array of a state, derived from the shardings of the parameters."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core._checked import checked
from gradtx.core._placement import canonical, is_replicated, result_shardings
from gradtx.core._transformation import check_transformation
from gradtx.core._trees import explaining_leaves
from gradtx.core._types import OptState, Params
from gradtx.core._unwrapping import unwrapped
from gradtx.sharding._layout import AnyMesh, MeshLayout, layout_of, names_in

LARGE = 64 * 1024
"""So many bytes of a slot may stay whole on each device."""


@checked
def state_shardings(tx: Any, params: Params, *, mesh: AnyMesh | None = None, specs: Any = None) -> OptState:
    """The `NamedSharding` of each array of `tx.init(params)`, in a tree like that state.

    Nothing is computed and no device is needed: `init` is traced on a mesh whose axes are explicit, where shardings are
    parts of types, and the types of its results are read. So slots like their parameters are sharded as they are;
    factors, blocks of a codec and their scales, and slots of a stack as what they are made of. Scalars are replicated
    over the whole mesh.

    Where types say nothing, or `init` cannot be typed, a slot with its parameter's place and shape, or a row of such,
    has the parameter's sharding. Another slot of 64 kB or more is spread over those axes of the mesh that some
    parameter uses, along its largest divisible dimensions. Under plain data parallelism no parameter uses the data
    axis, so the state is replicated as the parameters are; `zero` spreads it.

    Args:
      tx: any transformation, of gradtx, Optax or made by hand.
      params: the parameters: arrays, or `jax.ShapeDtypeStruct`s with shardings. What has no `NamedSharding` counts as
        replicated.
      mesh: the mesh; None for that of the parameters, or else that of `jax.set_mesh`. A `jax.sharding.AbstractMesh`
        will do.
      specs: the parameters' `PartitionSpec`s, in place of those of their shardings: a tree like the parameters or a
        prefix of it.

    Raises:
      ValueError: for no mesh or two, an axis that the mesh does not have, and a spec that does not fit the shape.
    """
    check_transformation("state_shardings: tx", tx)
    return jax.tree.map(lambda x: x.sharding, state_types(tx, layout_of("state_shardings", params, mesh, specs)))


def state_types(tx: Any, layout: MeshLayout) -> OptState:
    """The state as `jax.ShapeDtypeStruct`s with shardings."""
    init = explaining_leaves("state_shardings", tx.init)
    try:
        state = result_shardings(init, layout.mesh, layout.params)
    except Exception:  # noqa: BLE001  # of whatever kind: types that do not go together, or code that reads shardings
        shapes = jax.eval_shape(init, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), layout.params))
        whole = NamedSharding(layout.mesh, PartitionSpec())
        state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
    return _completed(state, layout)


def _completed(state: OptState, layout: MeshLayout) -> OptState:
    """The state with shardings by place and shape, or by size, where types said nothing."""
    by_names = {
        _names(path): (x.shape, x.sharding.spec)
        for path, x in jax.tree_util.tree_leaves_with_path(unwrapped(layout.params))
    }
    leaves, treedef = jax.tree_util.tree_flatten_with_path(unwrapped(state))

    def completed(path: Any, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if not is_replicated(x.sharding.spec) or not x.shape:
            return x
        spec = _of_parameter(_names(path), x.shape, by_names)
        if spec is None:
            large = nbytes(x) >= LARGE
            spec = spread_over(x.sharding.spec, x.shape, layout.mesh, layout.axes_used) if large else PartitionSpec()
        return with_spec(x, spec)

    found = [completed(path, x) for path, x in leaves]
    return jax.tree.unflatten(jax.tree.structure(state), found) if treedef.num_leaves else state


def _of_parameter(names: tuple, shape: tuple[int, ...], by_names: dict) -> PartitionSpec | None:
    """The spec of the parameter at this place of a state, if a slot of this shape can have it; None otherwise."""
    for start in range(len(names) + 1):
        # A codec's arrays are below the place of the parameter.
        for stop in range(len(names), start - 1, -1):
            if (known := by_names.get(names[start:stop])) is not None:
                if shape == known[0]:
                    return known[1]
                if shape[1:] == known[0]:
                    return PartitionSpec(None, *known[1])
    return None


def spread_over(spec: PartitionSpec, shape: tuple[int, ...], mesh: AnyMesh, axes: tuple[str, ...]) -> PartitionSpec:
    """The spec with each of these axes on the largest dimension that it divides and no other axis has.

    An axis that is in the spec already, or that no free dimension is divisible by, is left out.
    """
    entries = list(spec) + [None] * (len(shape) - len(spec))
    for name in axes:
        size = mesh.shape[name]
        free = [i for i, n in enumerate(shape) if entries[i] is None and n and n % size == 0]
        if free and size > 1 and name not in names_in(entries):
            entries[max(free, key=lambda i: shape[i])] = name
    return PartitionSpec(*entries)


def with_spec(x: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
    mesh = x.sharding.mesh
    sharding = NamedSharding(mesh, canonical(spec, len(x.shape), mesh), memory_kind=x.sharding.memory_kind)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def nbytes(x: Any, *, per_device: bool = False) -> int:
    """The bytes of an array in all, or of its part on one device."""
    shape = x.sharding.shard_shape(x.shape) if per_device else x.shape
    return int(np.prod(shape, dtype=object)) * x.dtype.itemsize


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)

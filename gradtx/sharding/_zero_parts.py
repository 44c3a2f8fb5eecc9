# SPDX-License-Identifier: Apache-2.0
"""ZeRO inside `shard_map`, where each device is told what to do with its part."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.core._over_devices import Split, gathered, own_part, varying
from gradtx.core._trees import is_hole, is_none, show_path
from gradtx.core._types import OptState, Params, Updates
from gradtx.sharding._layout import MeshLayout, check_names_and_rank, entry_names, spec_of, specs_of_leaves
from gradtx.sharding._over_axes import over_axes
from gradtx.sharding._state_shardings import state_types

Axes = tuple[str, ...]
Spread = Callable[[jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]


def is_inside(axes: Axes) -> bool:
    """Whether this is inside a `shard_map` over all of these axes."""
    mesh = jax.sharding.get_abstract_mesh()
    manual = {n for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Manual}
    return set(axes) <= manual


class Parts:
    """Which part of each parameter and of each array of a state this device has.

    Args:
      inner: the transformation that runs on the parts.
      axes: the axes over which parameters are the same and the state is spread.
      specs: the specs of the parameters, as `zero` got them.
      spread_out: gives a struct the sharding of what is spread.
      params: the parameters, as this device has them.
    """

    def __init__(self, inner: Any, axes: Axes, specs: Any, spread_out: Spread, params: Params):
        mesh = jax.sharding.get_abstract_mesh()
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        said = [PartitionSpec()] * len(leaves)
        if specs is not None:
            said = specs_of_leaves("zero", specs, params)
        whole = []
        for (path, x), entry in zip(leaves, said, strict=True):
            spec = spec_of("zero", show_path(path), entry)
            what, shape = f"zero: the spec at {show_path(path)}", list(jnp.shape(x))
            check_names_and_rank(what, spec, tuple(shape), mesh)
            for axis, names in enumerate(spec):
                shape[axis] *= math.prod(mesh.shape[n] for n in entry_names(names))
            whole.append(jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(x), sharding=NamedSharding(mesh, spec)))
        spread_params = list(map(spread_out, whole))
        self.axes, self.treedef = axes, treedef
        self.params = [_own(x, axes) for x in spread_params]
        self.inner = over_axes(inner, treedef.unflatten([x.sharding.spec for x in spread_params]))
        natural = state_types(inner, MeshLayout(mesh, treedef.unflatten(spread_params)))
        kept = state_types(inner, MeshLayout(mesh, treedef.unflatten(whole)))
        self.natural = [_own(x, axes) for x in jax.tree.leaves(natural)]
        self.kept = [_own(spread_out(x), axes) for x in jax.tree.leaves(kept)]

    def init(self, params: Params) -> OptState:
        return self._moved(self.inner.init(self._of(own_part, params)), self.natural, self.kept)

    def update(
        self, updates: Updates, state: OptState, params: Params, extra: dict[str, Any], scatter: bool
    ) -> tuple[Updates, OptState]:
        shards = self._of(self._reduced if scatter else own_part, updates)
        mine = None if params is None else self._of(own_part, params)
        new, state = self.inner.update(shards, self._moved(state, self.kept, self.natural), mine, **extra)
        return self._of(gathered, new), self._moved(state, self.natural, self.kept)

    def _of(self, f: Callable[[Any, Split], Any], tree: Any) -> Any:
        """`f` of each leaf and its split; what is None or masked stays."""
        leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
        splits = treedef.flatten_up_to(self.treedef.unflatten(self.params))
        return treedef.unflatten([x if is_hole(x) else f(x, split) for x, split in zip(leaves, splits, strict=True)])

    def _moved(self, state: OptState, before: list[Split], after: list[Split]) -> OptState:
        leaves, treedef = jax.tree.flatten(state)
        rows = zip(leaves, before, after, strict=True)
        return treedef.unflatten([x if a == b else own_part(gathered(x, a), b) for x, a, b in rows])

    def _reduced(self, g: jax.Array, split: Split) -> jax.Array:
        """This device's part of the mean of all devices' gradients; of one that is not split, the mean."""
        if varying(jax.lax.axis_index(self.axes[0])) and not set(self.axes) <= set(varying(g)):
            raise ValueError(
                "zero: scatter=True takes the gradient of each device's own batch, but by their types gradients are "
                f"the same along {', '.join(self.axes)}: take them with respect to jax.lax.pcast(params, axis, "
                "to='varying'), or leave scatter out"
            )
        if not split.names:
            return jax.lax.pmean(g, self.axes)
        for axis, names in enumerate(split.of_each(g.ndim)):
            if names:
                g = jax.lax.psum_scatter(g, names, scatter_dimension=axis, tiled=True)
        others = tuple(n for n in self.axes if n not in split.names)
        g = jax.lax.psum(g, others) if others else g
        return g / jax.lax.axis_size(self.axes)


def _own(x: jax.ShapeDtypeStruct, axes: Axes) -> Split:
    """The split over these axes alone."""
    spec = list(x.sharding.spec) + [None] * (len(x.shape) - len(x.sharding.spec))
    each = tuple(tuple(n for n in entry_names(entry) if n in axes) for entry in spec)
    return Split(tuple(n for names in each for n in names), each)

# SPDX-License-Identifier: Apache-2.0
"""ZeRO: states spread over the devices that hold the same parameters, and updates computed where they lie."""

from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import NamedSharding

from gradtx.core._factory import transformation
from gradtx.core._placement import explicit_sharding
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.sharding._layout import AnyMesh, MeshLayout, check_axis, layout_of
from gradtx.sharding._state_shardings import spread_over, state_types, with_spec
from gradtx.sharding._zero_parts import Parts, is_inside


@transformation
def zero(
    inner: Transformation, axis: Any = "data", *, mesh: AnyMesh | None = None, specs: Any = None, scatter: bool = False
) -> GradientTransformationExtraArgs:
    """ZeRO-1: `inner` with its state spread over a data axis of the mesh, instead of whole on each of its devices.

    Each array of the state, and each gradient, is also split along its largest dimension that no other axis of the mesh
    splits and that the axis divides. The update is computed on these parts, and gathered once. A moment then takes
    1/n of its bytes on each of n devices. Numbers are those of `inner`, whose state this is, spread otherwise.

        tx = zero(adamw(1e-3), "data")
        state = init_sharded(tx, params)
        with jax.set_mesh(mesh):
            updates, state = jax.jit(tx.update)(grads, state, params)

    Inside `jax.shard_map` over the axis, parameters are given as the device has them, the state and its specs are those
    of `state_shardings`, and numbers of whole parameters are those of `over_axes`. Gradients are means over the axis;
    with `scatter=True` each device gives its own, and what it needs of their mean is reduced and scattered (ZeRO-2).

    An array that is split over the axis already is left as it is, and so is one without a dimension that the axis
    divides; `bytes_per_device` shows what stays whole. `state_shardings` and `init_sharded` give the spread state.

    Args:
      inner: the transformation.
      axis: the name of the axis, or several, over which the parameters are replicated.
      mesh: the mesh; None for that of the parameters, or else that of `jax.set_mesh`.
      specs: the `PartitionSpec`s of the parameters, a tree like them or a prefix of it. In `jit` they are needed where
        parameters are sharded on a mesh with automatic axes, which traced arrays do not tell; None for what the
        parameters say, replicated where they say nothing. The same in `shard_map`, for its other axes.
      scatter: whether gradients are those of each device's own batch; only inside `shard_map`.

    Raises:
      ValueError: at `init` and `update`, for no mesh, two, or one without the axis, for specs that do not fit, and for
        `scatter` outside of `shard_map` or with gradients that are the same on all devices.

    Reference: Rajbhandari et al. 2020, arXiv:1910.02054, sections 5.1 and 5.2.
    """
    tx = as_inner("zero: inner", inner)
    axes = (axis,) if isinstance(axis, str) else axis
    if not isinstance(axes, tuple) or not axes or not all(isinstance(name, str) for name in axes):
        raise TypeError(f"zero: axis must be the name of an axis of the mesh, or a tuple of names, got {axis!r}")

    def layout(params: Params) -> MeshLayout:
        found = layout_of("zero", params, mesh, specs)
        for name in axes:
            check_axis("zero:", name, found.mesh)
        return found

    def spread(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return with_spec(x, spread_over(x.sharding.spec, x.shape, x.sharding.mesh, axes))

    def spread_state(on: MeshLayout) -> OptState:
        return jax.tree.map(spread, state_types(tx, on))

    def init(params: Params) -> OptState:
        if is_inside(axes):
            return Parts(inner, axes, specs, spread, params).init(params)
        wanted = spread_state(layout(params))
        traced = any(isinstance(x, Tracer) for x in jax.tree.leaves(params))
        if traced:
            return placed(tx.init(params), wanted)
        return jax.jit(tx.init, out_shardings=jax.tree.map(lambda x: x.sharding, wanted))(params)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        known = updates if params is None else params
        if is_inside(axes):
            return Parts(inner, axes, specs, spread, known).update(updates, state, params, extra, scatter)
        if scatter:
            raise ValueError(f"zero: scatter=True is for the inside of a jax.shard_map over {', '.join(axes)}")
        on = layout(known)
        parts = jax.tree.map(spread, on.params)
        # Factors are split as the parameters' parts need them; a state of other kinds is spread only between updates.
        state = placed(state, state_types(tx, MeshLayout(on.mesh, parts)))
        shards = placed(updates, parts)
        new, state = tx.update(shards, state, None if params is None else placed(params, parts), **extra)
        # The update is asked for in parts first, so that it is computed on them.
        return placed(placed(new, parts), on.params), placed(state, spread_state(on))

    return GradientTransformationExtraArgs(init, update, parts=lambda state: {"": (inner, state)})


def placed(tree: Any, like: Any) -> Any:
    """The arrays of a tree in the shardings of the structs of another; what is no array stays."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    structs = treedef.flatten_up_to(like)
    return treedef.unflatten(
        [x if is_hole(x) else _placed(x, s.sharding) for x, s in zip(leaves, structs, strict=True)]
    )


def _placed(x: Any, sharding: NamedSharding) -> Any:
    if (typed := explicit_sharding(x)) is not None:
        return jax.sharding.reshard(x, NamedSharding(typed.mesh, sharding.spec))
    return x if sharding.mesh.size == 1 else jax.lax.with_sharding_constraint(x, sharding)

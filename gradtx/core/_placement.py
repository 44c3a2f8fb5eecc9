# SPDX-License-Identifier: Apache-2.0
"""Where results will lie: the shardings of what a function makes of sharded arrays, read off its types.

On a mesh whose axes are explicit, a sharding is part of an array's type. So a trace of `init` on such a mesh, which
needs no devices, tells the sharding of each slot, whatever the rule is: factored, cut from a stack, or encoded.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec


def explicit(mesh: Mesh | AbstractMesh) -> AbstractMesh:
    """The same mesh without its devices, its axes explicit."""
    mesh = mesh.abstract_mesh if isinstance(mesh, Mesh) else mesh
    return mesh.update(axis_types=(AxisType.Explicit,) * len(mesh.axis_names))


def result_shardings(function: Callable[..., Any], mesh: Mesh | AbstractMesh, *arguments: Any) -> Any:
    """The results as `jax.ShapeDtypeStruct`s with `NamedSharding`s on the mesh; where types say nothing, replicated.

    Args:
      arguments: trees of arrays or structs with `NamedSharding`s, of which only the specs are read.

    Raises:
      Exception: whatever the function raises, also for types that do not go together on an explicit mesh.
    """
    on = explicit(mesh)

    def typed(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(on, x.sharding.spec))

    def found(aval: Any) -> jax.ShapeDtypeStruct:
        said = aval.sharding if isinstance(aval.sharding, NamedSharding) else None
        spec = canonical(PartitionSpec() if said is None else said.spec, aval.ndim, mesh)
        kind = "pinned_host" if aval.memory_space == jax.memory.Space.Host else None
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=NamedSharding(mesh, spec, memory_kind=kind))

    with jax.sharding.use_abstract_mesh(on):
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*jax.tree.map(typed, arguments))
    return jax.tree.unflatten(jax.tree.structure(shapes), map(found, traced.out_avals))


def in_place(function: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    """`function(x)`; of an array on several devices, with results that never were whole on one of them."""
    sharding = getattr(x, "sharding", None)
    if isinstance(x, Tracer) or not isinstance(sharding, NamedSharding) or sharding.mesh.size == 1:
        return function(x)
    try:
        types = result_shardings(function, sharding.mesh, x)
    except Exception:  # noqa: BLE001  # whatever a rule raises that cannot be typed: then they are where JAX puts them
        return function(x)
    return jax.jit(function, out_shardings=jax.tree.map(lambda t: t.sharding, types))(x)


def explicit_sharding(x: Any) -> NamedSharding | None:
    """The sharding of x where shardings are part of types and must be given; None elsewhere."""
    sharding = jax.typeof(x).sharding
    is_explicit = AxisType.Explicit in getattr(sharding.mesh, "axis_types", ())
    return sharding if is_explicit else None


def replicated(x: jax.Array) -> jax.Array:
    """x whole on each device, on a mesh whose axes are explicit; on others the compiler finds what fits."""
    return with_whole_axes(x, x.ndim)


def with_whole_axes(x: jax.Array, last: int) -> jax.Array:
    """x with so many of its last axes whole on each device, on a mesh whose axes are explicit."""
    sharding = explicit_sharding(x)
    if sharding is None or not x.ndim or not any(sharding.spec[-last:]):
        return x
    spec = PartitionSpec(*sharding.spec[: x.ndim - last], *[None] * last)
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, spec))


def whole_in_loop(x: jax.Array, last: int) -> jax.Array:
    """As `with_whole_axes`, for what a loop is given, what each of its steps hands on, and what comes out.

    On automatic axes compilers gather in each step otherwise; there it works under `jax.jit` and `jax.set_mesh`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not isinstance(x, Tracer) or AxisType.Auto not in mesh.axis_types:
        return with_whole_axes(x, last)
    spec = PartitionSpec(*[PartitionSpec.UNCONSTRAINED] * (x.ndim - last), *[None] * last)
    return jax.lax.with_sharding_constraint(x, spec)


def laid_like(x: jax.Array, like: Any) -> jax.Array:
    """x with the sharding of `like`, which has as many axes, where that is part of its type.

    An axis that the devices do not divide is whole on each.
    """
    sharding = explicit_sharding(like)
    if sharding is None:
        return x
    parts = [n // m if m else 1 for n, m in zip(like.shape, sharding.shard_shape(like.shape), strict=True)]
    fits = [entry if n % k == 0 else None for entry, n, k in zip(sharding.spec, x.shape, parts, strict=True)]
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec(*fits)))


def on_device(tree: Any) -> Any:
    """The tree with arrays that are in the host's memory fetched: arithmetic takes no arrays of two memories."""

    return jax.tree.map(lambda x: jax.device_put(x, jax.memory.Space.Device) if is_on_host(x) else x, tree)


def is_on_host(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.typeof(x).memory_space == jax.memory.Space.Host


def canonical(spec: PartitionSpec, ndim: int, mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The spec as compiled functions return it, so that a second call does not compile again.

    On explicit axes it has an entry for each axis of the array, on others no Nones at its end.
    """
    entries = list(spec)
    while entries and entries[-1] is None:
        entries.pop()
    if AxisType.Explicit in mesh.axis_types:
        entries += [None] * (ndim - len(entries))
    return PartitionSpec(*entries)


def names_by_axis(spec: PartitionSpec | None, ndim: int) -> tuple[tuple[str, ...], ...]:
    """The mesh axes of each axis of an array of this rank."""
    entries = () if spec is None else tuple(spec)
    each = [() if e is None else e if isinstance(e, tuple) else (e,) for e in entries]
    return (*each, *((),) * (ndim - len(each)))


def is_replicated(spec: PartitionSpec) -> bool:
    return not any(spec)

# SPDX-License-Identifier: Apache-2.0
"""The mesh and the specs of parameters, from whatever says them: the arrays, the caller, or `jax.set_mesh`."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from gradtx._roles._metadata import names_of_axes
from gradtx.core._placement import canonical, is_replicated
from gradtx.core._prefixes import spread
from gradtx.core._selectors import is_carrier
from gradtx.core._sentences import listed
from gradtx.core._trees import explaining_leaves, show_path
from gradtx.core._types import Params
from gradtx.core._unwrapping import unwrapped

AnyMesh = Mesh | AbstractMesh


class MeshLayout(NamedTuple):
    """A mesh, and a tree of `jax.ShapeDtypeStruct`s with `NamedSharding`s on it."""

    mesh: AnyMesh
    params: Params

    @property
    def axes_used(self) -> tuple[str, ...]:
        """The axes of the mesh over which some parameter is sharded, in the mesh's order."""
        used = {name for x in jax.tree.leaves(self.params) for name in names_in(x.sharding.spec)}
        return tuple(name for name in self.mesh.axis_names if name in used)


def layout_of(where: str, params: Params, mesh: AnyMesh | None = None, specs: Any = None) -> MeshLayout:
    """How parameters are or will be laid out.

    Args:
      params: a tree of arrays or `jax.ShapeDtypeStruct`s. Those without a `NamedSharding` are replicated.
      mesh: the mesh; None for that of the parameters, or else that of `jax.set_mesh`.
      specs: `PartitionSpec`s, a tree like the parameters or a prefix of it; None to take those of the parameters, or
        where they have none the names of mesh axes that Flax keeps with them.

    Raises:
      ValueError: for no mesh or two, and for a spec that does not fit, with the path.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    explaining_leaves(where, lambda tree: [_shape_of(x) for x in jax.tree.leaves(tree)])(params)
    on = _mesh(where, [(path, _named_sharding(x)) for path, x in leaves], mesh)
    if specs is None:
        pairs = zip(leaves, _said_by_flax(params, on), strict=True)
        said = [getattr(_named_sharding(x), "spec", written) for (_, x), written in pairs]
    else:
        said = specs_of_leaves(where, specs, params)
    structs = []
    for (path, x), entry in zip(leaves, said, strict=True):
        spec = spec_of(where, show_path(path), entry)
        shape, dtype = _shape_of(x)
        check_spec(f"{where}: the spec at {show_path(path)}", spec, shape, on)
        structs.append(jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(on, canonical(spec, len(shape), on))))
    return MeshLayout(on, treedef.unflatten(structs))


def _said_by_flax(params: Params, mesh: AnyMesh) -> list[PartitionSpec]:
    """The spec of each array by the metadata of its variable or box; names of other things are not looked at."""
    found = []
    for entry in jax.tree.leaves(params, is_leaf=is_carrier):
        each = names_of_axes(entry) or ()
        known = all(name in mesh.axis_names for names in each for name in names)
        spec = PartitionSpec(*(names or None for names in each)) if known else PartitionSpec()
        found += [spec] * len(jax.tree.leaves(entry))
    return found


def specs_of_leaves(where: str, specs: Any, params: Params) -> list[Any]:
    """The entry of a tree of specs, or of a prefix, for each parameter; both in the wrappers of Flax or without."""
    plain = unwrapped(params)
    return jax.tree.structure(plain).flatten_up_to(spread(where, "specs", unwrapped(specs), plain, is_spec))


def spec_of(where: str, path: str, x: Any) -> PartitionSpec:
    """A spec, that of a sharding, or the replicated one for None."""
    x = PartitionSpec() if x is None else getattr(x, "spec", x)
    if not isinstance(x, PartitionSpec):
        raise TypeError(f"{where}: specs must be PartitionSpecs, got {x!r} at {path}")
    return x


def names_in(spec: Iterable[Any]) -> list[str]:
    """The names of the mesh axes in a spec."""
    return [name for entry in spec for name in entry_names(entry)]


def entry_names(entry: Any) -> tuple[str, ...]:
    """The names in one entry of a spec."""
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def spec_text(sharding: NamedSharding) -> str:
    """The spec in short, `P('data', None)`, and the memory if it is not the device's."""
    spec = f"P({', '.join(map(repr, canonical(sharding.spec, 0, sharding.mesh)))})"
    return spec if sharding.memory_kind in (None, "device") else f"{spec} in {sharding.memory_kind}"


def check_spec(what: str, spec: PartitionSpec, shape: tuple[int, ...], mesh: AnyMesh) -> None:
    """Raises an error for a spec that an array of this shape cannot have on this mesh."""
    check_names_and_rank(what, spec, shape, mesh)
    for axis, entry in enumerate(spec):
        parts = math.prod(mesh.shape[name] for name in entry_names(entry))
        if parts > 1 and shape[axis] % parts:
            raise ValueError(
                f"{what} is {spec}, which splits axis {axis} into {parts}, but the shape is {shape}: "
                f"{shape[axis]} is not divisible by {parts}"
            )


def check_names_and_rank(what: str, spec: PartitionSpec, shape: tuple[int, ...], mesh: AnyMesh) -> None:
    """Raises an error for a spec with more entries than axes, or with a name that the mesh does not have."""
    if len(spec) > len(shape):
        raise ValueError(f"{what} is {spec}, which has {len(spec)} entries, but the shape is {shape}")
    for name in names_in(spec):
        check_axis(f"{what} is {spec}:", name, mesh)


def check_axis(where: str, name: Any, mesh: AnyMesh) -> None:
    """Raises an error for a name that is not one of the mesh's axes."""
    if name not in mesh.axis_names:
        raise ValueError(f"{where} the mesh has no axis {name!r}, it has {listed(map(repr, mesh.axis_names))}")


def is_spec(x: Any) -> bool:
    return isinstance(x, PartitionSpec | NamedSharding)


def _shape_of(x: Any) -> tuple[tuple[int, ...], Any]:
    return (x.shape, x.dtype) if hasattr(x, "dtype") else (jnp.shape(x), jnp.result_type(x))


def _named_sharding(x: Any) -> NamedSharding | None:
    """The sharding of an array or a struct, also of a traced array whose type has one."""
    if isinstance(x, Tracer):
        sharding = jax.typeof(x).sharding
        return None if sharding.mesh.empty or is_replicated(sharding.spec) else sharding
    sharding = getattr(x, "sharding", None)
    return sharding if isinstance(sharding, NamedSharding) else None


def _mesh(where: str, said: list[tuple[Any, NamedSharding | None]], given: AnyMesh | None) -> AnyMesh:
    found: dict[Any, tuple[str, AnyMesh]] = {} if given is None else {_identity(given): ("mesh=", given)}
    for path, sharding in said:
        if sharding is not None:
            found.setdefault(_identity(sharding.mesh), (show_path(path), sharding.mesh))
    if len(found) > 1 and not (given is not None and _only_devices_differ(found)):
        (one, first), (other, second) = list(found.values())[:2]
        raise ValueError(f"{where}: two meshes, {_shown(first)} at {one} and {_shown(second)} at {other}; give one")
    if found:
        return next(iter(found.values()))[1]
    current = ambient_mesh()
    if current is None:
        raise ValueError(
            f"{where}: there is no mesh: the parameters have no NamedSharding, mesh= is not given, and no "
            f"jax.set_mesh(mesh) is around the call"
        )
    return current


def ambient_mesh() -> AnyMesh | None:
    """The mesh of `jax.set_mesh`, without its devices inside a trace; None if there is none."""
    try:
        mesh: AnyMesh = jax.sharding.get_mesh()
    except ValueError:  # inside a trace
        mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else mesh


def _identity(mesh: AnyMesh) -> tuple:
    """What tells meshes apart: names, sizes and devices, but not whether axes are explicit."""
    devices = None if isinstance(mesh, AbstractMesh) else tuple(d.id for d in mesh.devices.flat)
    return mesh.axis_names, mesh.axis_sizes, devices


def _only_devices_differ(found: dict[Any, Any]) -> bool:
    """Whether these are one mesh, once with its devices and once without them, as in the types of traced arrays."""
    return len({key[:2] for key in found}) == 1 and any(key[2] is None for key in found)


def _shown(mesh: AnyMesh) -> str:
    sizes = ", ".join(f"{n}={size}" for n, size in zip(mesh.axis_names, mesh.axis_sizes, strict=True))
    first = "" if isinstance(mesh, AbstractMesh) else f" from device {mesh.devices.flat[0].id}"
    return f"({sizes}){first}"

# SPDX-License-Identifier: Apache-2.0
"""Numbers of whole parameters inside `shard_map` and `pmap`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gradtx._roles._boxing import run_in_boxes
from gradtx.core._factory import transformation
from gradtx.core._over_devices import Names, Split, is_bound, split_by, varying
from gradtx.core._prefixes import spread
from gradtx.core._roles import Boxed, is_absent, is_box, opened
from gradtx.core._selectors import is_entry
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import show_path
from gradtx.core._types import OptState, Params, Updates
from gradtx.sharding._layout import entry_names


@transformation
def over_axes(inner: Any, axes: Any = None) -> GradientTransformationExtraArgs:
    """Runs `inner` on the parts of parameters that each device has in `jax.shard_map` or `jax.pmap`, with the numbers
    of the whole parameters. Put it around the whole optimizer.

    ```
    device i has p_i, g_i, slots_i    Σ |g|² = Σ_i Σ |g_i|², summed over the mesh axes that split g
    ```

    So are norms, measures, trust ratios, means of factors, tests for non-finite numbers and products of line searches.
    A parameter that every device has whole counts once. Gradients must be those of the parts, not parts of gradients:
    average over the devices that share a part first. The state is split as the parameters are; what is made by reducing
    over some of their axes is split over the others.

    Args:
      axes: a tree of `PartitionSpec`s like the parameters, or a prefix of it; or the name of the mesh axis, or a tuple
        of names, over which every parameter is split. Names do not tell how the axes of an array are split, which rules
        that reduce over some of these axes must know. None reads the names off the types of the parameters, which
        `shard_map` gives unless `check_vma=False`.

    Raises:
      ValueError: for a mesh axis that is not there, a spec that is longer than the rank, axes where there is no mesh;
        where a rule needs specs and has names; and without `axes` where types do not tell, or without parameters.
    """
    if not (axes is None or is_names(axes)):
        for path, spec in jax.tree_util.tree_leaves_with_path(axes, is_leaf=_is_spec):
            if not _is_spec(spec):
                raise TypeError(
                    f"over_axes: axes must be a tree of PartitionSpecs or the names of mesh axes, got {spec!r} at "
                    f"{show_path(path)}"
                )

    def box(tree: Any, partial: bool) -> Any:
        leaves, treedef = jax.tree.flatten(tree, is_leaf=is_entry)
        specs = [axes] * len(leaves)
        if not (axes is None or is_names(axes)):
            specs = [opened(x) for x in treedef.flatten_up_to(spread("over_axes", "axes", axes, tree, _is_spec))]
        if axes is not None and not _is_inside(names_in(axes)):
            specs = [()] * len(leaves)  # `init` outside of a mesh is given whole parameters
        places = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_entry)[0]]
        rows = zip(leaves, specs, places, strict=True)
        return treedef.unflatten([_with_split(*row) for row in rows])

    made = run_in_boxes("over_axes", inner, box)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if axes is None and params is None:
            raise ValueError("over_axes: without axes, update needs the parameters: update(updates, state, params)")
        if axes is None:
            _check_types_tell()
        elif not _is_inside(names := names_in(axes)) and names:
            raise ValueError(
                f"over_axes: axes names {names[0]!r}, but there are no mesh axes outside of shard_map and pmap"
            )
        return made.update(updates, state, params, **extra)

    return GradientTransformationExtraArgs(made.init, update, parts=lambda state: {"": (inner, state)})


def is_names(axes: Any) -> bool:
    return isinstance(axes, str) or isinstance(axes, tuple | list) and all(isinstance(x, str) for x in axes)


def _is_spec(x: Any) -> bool:
    return isinstance(x, PartitionSpec)


def names_in(axes: Any) -> Names:
    """All mesh axes that are named in names, a spec, or a tree of specs; each once."""
    if isinstance(axes, str):
        return (axes,)
    if _is_spec(axes) or is_names(axes):
        return tuple(dict.fromkeys(n for entry in axes for n in entry_names(entry)))
    specs = jax.tree.leaves(axes, is_leaf=_is_spec)
    return tuple(dict.fromkeys(n for spec in specs for n in names_in(spec)))


def _with_split(x: Any, said: Any, path: tuple) -> Any:
    if is_absent(x):
        return x
    array = opened(x)
    ndim = jnp.ndim(array)
    if said is None:
        split = Split(varying(array), None)
    elif not _is_spec(said):
        split = Split(names_in(said), None)
    else:
        if len(said) > ndim:
            raise ValueError(
                f"over_axes: axes has {said} at {show_path(path)}, which is longer than the rank of the parameter, "
                f"of shape {jnp.shape(array)}"
            )
        each = tuple(map(entry_names, said)) + ((),) * (ndim - len(said))
        split = split_by(each)
    return dataclasses.replace(x, split=split) if is_box(x) else Boxed(x, split=split)


def _manual_axes() -> Names:
    return tuple(getattr(jax.sharding.get_abstract_mesh(), "manual_axes", ()))


def _check_types_tell() -> None:
    """Raises where arrays may be split, but their types do not say so: in `pmap`, and without `check_vma`."""
    if (names := _manual_axes()) and not varying(jax.lax.axis_index(names[0])):
        raise ValueError(
            f"over_axes: types do not tell how parameters are split here, in pmap or with check_vma=False: "
            f"give axes, PartitionSpecs or names out of {', '.join(names)}"
        )


def _is_inside(names: Names) -> bool:
    """Whether this is where a `shard_map` or `pmap` splits arrays; an error for axes that it has not."""
    missing = [name for name in names if not is_bound(name)]
    if missing and (there := (*(n for n in names if n not in missing), *_manual_axes())):
        raise ValueError(
            f"over_axes: axes names {missing[0]!r}, but the axes here are {', '.join(dict.fromkeys(there))}"
        )
    return not missing

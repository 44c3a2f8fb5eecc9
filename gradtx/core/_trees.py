# SPDX-License-Identifier: Apache-2.0
"""Checks of trees, with errors that name the path."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._roles import Boxed, is_entry_box, opened, unboxed
from gradtx.core._sentences import listed, shortened
from gradtx.core._types import EmptyState

Path = tuple


def is_none(x: Any) -> bool:
    return x is None


def is_leaf(x: Any) -> bool:
    """Whether to treat this as one leaf, although JAX does not: None, or a box with an array or None in it."""
    return x is None or isinstance(x, Boxed) and is_entry_box(x)


def is_hole(x: Any) -> bool:
    """Whether a gradient leaf stands for "no value here": None, or JAX's float0 for integer parameters."""
    return x is None or getattr(x, "dtype", None) == jax.dtypes.float0


def places_of_values(leaves: list) -> list[int]:
    """The places of the leaves that are no holes; without a call for each."""
    float0 = jax.dtypes.float0
    return [i for i, x in enumerate(leaves) if x is not None and getattr(x, "dtype", None) != float0]


def show_path(path: Path) -> str:
    return jax.tree_util.keystr(path) or "the root"


def paths(tree: Any) -> list[str]:
    """The paths of a tree's leaves as text, None included."""
    return [show_path(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]]


def align(treedef: Any, tree: Any, where: str, name: str, reference: Any, reference_name: str) -> list:
    """The parts of `tree` at the leaves of `treedef` (the structure of `reference`, where None is a leaf)."""
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        have, want = paths(tree), paths(reference)
        lacking = [p for p in want if p not in have]
        extra = [p for p in have if p not in want]
        if lacking or extra:
            differences = [f"{reference_name} have {listed(lacking)}, which {name} lack"] if lacking else []
            differences += [f"{name} have {listed(extra)}, which {reference_name} lack"] if extra else []
            message = "; ".join(differences)
        else:
            message = f"{reference_name} and {name} differ in the types of their containers: {error}"
        raise ValueError(f"{where}: the trees do not match: {message}") from None


def align_leaves(treedef: Any, tree: Any, where: str, name: str, reference: Any, reference_name: str) -> list:
    """`align`, with an error where a leaf of the reference stands for a container of leaves."""
    parts = align(treedef, tree, where, name, reference, reference_name)
    for i, part in enumerate(parts):
        if type(part) in (dict, list, tuple) and jax.tree.leaves(reference, is_leaf=is_none)[i] is not None:
            raise ValueError(
                f"{where}: the trees do not match: {name} have {listed(paths(part))} at {paths(reference)[i]}, where "
                f"{reference_name} have a leaf"
            )
    return parts


def check_shapes(
    where: str, name: str, updates: Any, leaves: list, params: list, *, may_be_complex: bool = False
) -> None:
    """Raises an error for the first leaf whose shape differs from its parameter's; `name` says what the leaves are.

    So for a complex one of a real parameter, unless `may_be_complex`.
    """
    for i, (g, p) in enumerate(zip(leaves, params, strict=True)):
        # Without a call for each leaf that is as it should be: this runs at each update outside jit.
        if g is None:
            continue
        shape = getattr(g, "shape", None)
        if shape is not None and shape == getattr(p, "shape", None) and g.dtype == getattr(p, "dtype", None):
            continue
        if is_hole(g):
            continue
        if p is None:
            raise ValueError(f"{where}: the {name}s have a value at {paths(updates)[i]}, where the parameter is None")
        if not may_be_complex and jnp.iscomplexobj(g) and not jnp.iscomplexobj(p):
            raise ValueError(
                f"{where}: the {name} at {paths(updates)[i]} is complex, its parameter is real ({jnp.result_type(p)})"
            )
        if jnp.shape(g) != jnp.shape(p):
            raise ValueError(
                f"{where}: the {name} at {paths(updates)[i]} has shape {jnp.shape(g)}, "
                f"its parameter has shape {jnp.shape(p)}"
            )


def check_hidden(where: str, updates: Any, places: list[int], seen: list, state: list[list]) -> None:
    """Raises an error unless the state has something for those of the leaves at these places that are seen, only."""
    for column in state:
        has = [not (isinstance(opened(column[i]), tuple) and not opened(column[i])) for i in places]
        wrong = [i for i, there in zip(places, has, strict=True) if there != seen[i]]
        if wrong:
            shown = [x for x in wrong if seen[x]]
            text = listed([paths(updates)[i] for i in shown or wrong])
            sides = ("the gradients", "the state's trees")
            one, other = sides if shown else sides[::-1]
            raise ValueError(f"{where}: the trees do not match: {one} have {text}, which {other} lack")


class NoArrayError(TypeError):
    """A tree of parameters has a leaf that is no array."""


def explaining_leaves(where: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of the parameters; if it fails and a leaf is no array, that is the error, with the path.

    A leaf that nothing is made of, such as a function of a model in `sgd`, is none of its business.
    """

    @functools.wraps(function)
    def explained(params: Any) -> Any:
        try:
            return function(params)
        except NoArrayError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            for path, x in jax.tree_util.tree_leaves_with_path(unboxed(params)):
                if not hasattr(x, "dtype") and not isinstance(x, int | float | complex):
                    raise NoArrayError(
                        f"{where}: parameters must be arrays, got {shortened(repr(x), 60)} at {show_path(path)}; "
                        f"of an equinox model, give eqx.filter(model, eqx.is_inexact_array)"
                    ) from error
            raise

    return explained


def shapes_of(where: str, params: Any) -> Any:
    """The shapes and dtypes of a tree of parameters."""
    return explaining_leaves(where, functools.partial(jax.eval_shape, lambda p: p))(params)


def check_state(where: str, state: Any, kind: Any, *others: Any) -> None:
    """Raises an error for anything but a state of this named tuple class, such as for swapped arguments of `update`.

    A stage that remembers nothing takes anything for its state, also None, and hands it on; then the `others`, updates
    and parameters, tell whether they were swapped with it.
    """
    if kind._fields:
        wrong = getattr(state, "_fields", None) != kind._fields
    else:
        wrong = any([isinstance(x, EmptyState) for x in others]) and not isinstance(state, EmptyState)
    if wrong:
        raise TypeError(
            f"{where}: state must be the {kind.__name__} that init or the last update returned, "
            f"got {type(state).__name__}; the order is update(updates, state, params)"
        )

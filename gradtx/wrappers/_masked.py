# SPDX-License-Identifier: Apache-2.0
"""Applying a transformation to some of the parameters only."""

import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from gradtx.core._factory import transformation
from gradtx.core._kinds import Kind, shown
from gradtx.core._lift import Mask
from gradtx.core._nesting import is_factory
from gradtx.core._prefixes import Rows, is_function, of_boxes, of_whole, rows, said_of
from gradtx.core._selectors import OfKind, described
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import check_state, is_none, show_path
from gradtx.core._types import OptState, Params, Updates


class MaskedState(NamedTuple):
    """The state of the inner transformation, with `MaskedNode` in place of the parameters that it does not see."""

    inner_state: OptState


@transformation
def masked(
    inner: Transformation, mask: Any | Callable[[Params], Any], *, mask_compatible_extra_args: bool = False
) -> GradientTransformationExtraArgs:
    """Applies `inner` where the mask is True; elsewhere updates pass unchanged and there is no state.

    Args:
      inner: the transformation.
      mask: a tree of booleans with the structure of the parameters or a prefix of it, or a function from the
        parameters (or the updates, if `update` is called without parameters) to such a tree. Its containers may be of
        other types if the names in them are the same, such as a dictionary for the state of a module.
      mask_compatible_extra_args: whether extra arguments with the structure of the updates are masked too. `grad`
        always is; functions, such as `value_fn` and `grad_fn`, are always called with whole trees.

    Raises:
      ValueError: if the mask does not fit the tree, with the path.
    """
    tx = as_inner("masked: inner", inner)

    checked = mask_of("masked", "mask", mask)

    def seen_of(updates: Updates, params: Params) -> tuple[Rows, list[bool]]:
        found = rows("masked", "mask", checked, updates, params, is_flag)
        return found, [bool(flag) for flag in found.entries]

    def init(params: Params) -> MaskedState:
        found, seen = seen_of(params, None)
        return MaskedState(tx.init(found.tree(found.updates, seen)))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        inside = opened(state)
        found, seen = seen_of(updates, params)
        extra = hide_extra(found, seen, extra, mask_compatible_extra_args) if extra else extra
        seen_params = None if found.params is None else found.tree(found.params, seen)
        new, inner_state = tx.update(found.tree(found.updates, seen), inside, seen_params, **extra)
        merged = found.merged("masked", new, seen, found.updates)
        return found.whole(merged), state._replace(inner_state=inner_state)

    def opened(state: OptState) -> OptState:
        check_state("masked", state, MaskedState)
        return state.inner_state

    def seen_in(updates: Updates, params: Params) -> list[bool]:
        found, seen = seen_of(updates, params)
        # A None may stand for a branch of parameters: what the mask says inside of it does not matter.
        return jax.tree.structure(updates, is_leaf=is_none).flatten_up_to(jax.tree.unflatten(found.treedef, seen))

    mask_of_leaves = Mask(seen_in, opened, lambda state, inside: state._replace(inner_state=inside))
    return GradientTransformationExtraArgs(
        init,
        update,
        mask=(mask_of_leaves, tx),
        parts=lambda state: {"inner_state": (inner, state.inner_state)},
    )


def is_flag(x: Any) -> bool:
    """Whether this is one boolean, also as an array without axes."""
    if isinstance(x, bool | np.bool_):
        return True
    return isinstance(x, np.ndarray | jax.Array) and x.dtype == bool and x.ndim == 0 and not isinstance(x, Tracer)


def mask_of(where: str, name: str, mask: Any) -> Any:
    """The same mask, or function that makes one; an error if a leaf is not a boolean."""

    def checked(tree: Any) -> Any:
        for path, flag in jax.tree_util.tree_leaves_with_path(tree):
            if not is_flag(flag):
                chosen = flag if isinstance(flag, OfKind | str | re.Pattern) else None
                instead = "" if chosen is None else f"; a choice of parameters is where({described(chosen)})"
                raise TypeError(f"{where}: {name} must hold True or False at {show_path(path)}, got {flag!r}{instead}")
        return tree

    return of_boxes(lambda params: checked(said_of(mask, params))) if is_function(mask) else checked(mask)


class _MaskKind(Kind):
    """The kind of masks, whose errors tell what was meant instead."""

    def check(self, where: str, name: str, optional: bool, value: Any) -> Any:
        if value is None and not optional or is_factory(value):
            raise TypeError(f"{where}: {name} must hold True or False, or be a function, got {shown(value)}")
        if value is not None and not is_function(value):
            mask_of(where, name, value)
        return value


MaskOfParams = Annotated[Any | Callable[[Params], Any], _MaskKind("a mask", lambda value: None)]
"""The annotation of a mask of parameters: a tree of booleans, or a function that makes one."""


def others(mask: Any | Callable[[Params], Any]) -> Any | Callable[[Params], Any]:
    """The mask that is True where this one is False."""

    def rest(params: Params) -> Any:
        return jax.tree.map(lambda flag: not flag, said_of(mask, params))

    return of_boxes(rest) if is_function(mask) else rest(None)


def hide_extra(found: Rows, seen: list[bool], extra: dict[str, Any], trees: bool) -> dict[str, Any]:
    """The extra arguments as the inner transformation gets them.

    `grad` and, if `trees`, all others with the structure of the updates are masked in the same way. Functions, such as
    `value_fn` and `grad_fn`, still get whole trees: what is hidden here is added to what they are called with.
    """
    structure = jax.tree.structure(jax.tree.unflatten(found.treedef, found.updates))
    structures = {structure}
    whole = None if found.params is None else jax.tree.unflatten(found.treedef, found.params)
    if whole is not None:
        structures.add(jax.tree.structure(whole))

    def hidden(x: Any) -> Any:
        if type(x) is tuple:
            return tuple(map(hidden, x))
        fits = jax.tree.structure(x) in structures
        return found.tree(found.treedef.flatten_up_to(x), seen) if fits else x

    def given(name: str, x: Any) -> Any:
        if is_function(x) or callable(x) and name.endswith("_fn"):
            return x if whole is None else of_whole(x, whole, hidden)
        fits = (trees or name == "grad") and jax.tree.structure(x) == structure
        return found.tree(found.treedef.flatten_up_to(x), seen) if fits else x

    return {name: given(name, x) for name, x in extra.items()}

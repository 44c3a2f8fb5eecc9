# SPDX-License-Identifier: Apache-2.0
"""Freezing: parameters that are not trained."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._combine import stateless
from gradtx.core._factory import transformation
from gradtx.core._prefixes import of_boxes, said_of, spread
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, check_transformation
from gradtx.core._trees import align, is_hole, is_none
from gradtx.core._types import Params, Updates
from gradtx.wrappers._masked import MaskOfParams, is_flag, mask_of, masked
from gradtx.wrappers._partition import partition


def _zeros(updates: Updates, params: Params) -> Updates:
    return jax.tree.map(lambda g: g if is_hole(g) else jnp.zeros_like(g), updates, is_leaf=is_none)


@transformation
def freeze(mask: MaskOfParams) -> GradientTransformationExtraArgs:
    """Sets the updates to zero where the mask is True; elsewhere they pass unchanged.

    Put it last in a chain. The stages before it still compute updates and keep slots for frozen parameters;
    `selective_transform` saves both.

    Args:
      mask: True for frozen parameters: a tree of booleans or a function that makes one, as in `masked`.
    """
    return masked(stateless(_zeros), mask)


@transformation
def selective_transform(optimizer: Transformation, *, freeze_mask: MaskOfParams) -> GradientTransformationExtraArgs:
    """Runs `optimizer` on the parameters that are not frozen; the updates of the frozen ones are zeros.

    The optimizer does not see the frozen parameters: they have no state, cost no work and enter no norm. To save even
    the computation of their gradients, see `split_frozen`.

    Args:
      optimizer: the transformation of the trained parameters.
      freeze_mask: True for frozen parameters: a tree of booleans or a function that makes one, as in `masked`.
    """
    check_transformation("selective_transform: optimizer", optimizer)
    mask = mask_of("selective_transform", "freeze_mask", freeze_mask)

    @of_boxes
    def labels(params: Params) -> Any:
        flags = said_of(mask, params)
        return jax.tree.map(lambda flag: "freeze" if flag else "train", flags)

    return partition({"train": optimizer, "freeze": stateless(_zeros)}, labels)


@checked
def split_frozen(params: Params, freeze_mask: MaskOfParams) -> tuple[Params, Params]:
    """Splits parameters into two trees, the trained and the frozen ones, each with None where the other has a leaf.

    Nothing is computed for None: differentiate with respect to the first tree, give it to `init` and `update`, and
    join both inside the loss: `jax.grad(lambda trained: loss(join_frozen(trained, frozen)))(trained)`.

    Args:
      freeze_mask: True for frozen parameters: a tree of booleans or a function that makes one, as in `masked`.
    """
    mask = mask_of("split_frozen", "freeze_mask", freeze_mask)
    flags = spread("split_frozen", "freeze_mask", said_of(mask, params), params, is_flag)
    trained = jax.tree.map(lambda flag, p: None if flag else p, flags, params, is_leaf=is_none)
    frozen = jax.tree.map(lambda flag, p: p if flag else None, flags, params, is_leaf=is_none)
    return trained, frozen


def join_frozen(trained: Params, frozen: Params) -> Params:
    """Joins the two trees of `split_frozen` to the whole parameters.

    Args:
      trained: the first tree, which may have been updated since.
      frozen: the second tree.

    Raises:
      ValueError: if the trees do not match, or have a value at the same place.
    """
    leaves, treedef = jax.tree.flatten(trained, is_leaf=is_none)
    others = align(treedef, frozen, "join_frozen", "the frozen parameters", trained, "the trained parameters")
    if any(x is not None and y is not None for x, y in zip(leaves, others, strict=True)):
        raise ValueError("join_frozen: trained and frozen parameters must not have a value at the same place")
    return jax.tree.unflatten(treedef, [y if x is None else x for x, y in zip(leaves, others, strict=True)])

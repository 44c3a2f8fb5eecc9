# SPDX-License-Identifier: Apache-2.0
"""Where the matrices are: which axes of a parameter are their inputs and outputs, and tensors as stacks of matrices."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._over_devices import whole_shape_of
from gradtx.core._prefixes import said_of, spread
from gradtx.core._roles import Role, carried_role, carried_split, is_box, opened, unboxed
from gradtx.core._trees import is_leaf, is_none, paths
from gradtx.core._types import Params

Groups = tuple[tuple[int, ...], ...]
"""The axes of a tensor that are one axis of its matrices, for each of these; all others stack matrices."""


class MuonDimensionNumbers(NamedTuple):
    """Which axes of a tensor are the inputs of its matrix, and which the outputs; the other axes stack matrices.

    An empty tuple is a side of length 1: `MuonDimensionNumbers(0, ())` makes a vector a column.
    """

    reduction_axis: tuple[int, ...] | int = 0
    output_axis: tuple[int, ...] | int = 1


class Modes(NamedTuple):
    """How a parameter consists of matrices, or of tensors for rules that take any rank.

    Attributes:
      groups: the axes of the parameter that make up each axis of a matrix, counted from the left.
      blocks: the widths of the matrices that lie beside each other along the outputs; () for one.
      turn: for rules that take turns, see `_in_turns`.
    """

    groups: Groups
    blocks: tuple[int, ...] = ()
    turn: tuple[int, int] | None = None

    def is_plain(self, ndim: int) -> bool:
        """Whether the parameter of this rank is itself the matrix or tensor."""
        return not self.blocks and self.groups == tuple((i,) for i in range(ndim))

    def lead(self, ndim: int) -> tuple[int, ...]:
        """The axes that stack matrices."""
        return tuple(i for i in range(ndim) if not any(i in axes for axes in self.groups))

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of the matrices that lie beside each other in a parameter of this shape."""
        whole = tuple(math.prod(shape[i] for i in axes) for axes in self.groups)
        return [(*whole[:-1], n) for n in self.blocks] if self.blocks else [whole]


def to_blocks(x: jax.Array, groups: Groups) -> jax.Array:
    """The tensor as a stack of matrices (..., inputs, outputs), all other axes in front."""
    lead = Modes(groups).lead(x.ndim)
    order = (*lead, *(i for axes in groups for i in axes))
    sizes = [math.prod(x.shape[i] for i in axes) for axes in groups]
    x = x if order == tuple(range(x.ndim)) else jnp.transpose(x, order)
    shape = (*(x.shape[: len(lead)]), *sizes)
    return x if x.shape == shape else x.reshape(shape)


def from_blocks(blocks: jax.Array, groups: Groups, shape: tuple[int, ...]) -> jax.Array:
    """The tensor of this shape from its matrices: the inverse of `to_blocks`."""
    order = (*Modes(groups).lead(len(shape)), *(i for axes in groups for i in axes))
    permuted = tuple(shape[i] for i in order)
    blocks = blocks if blocks.shape == permuted else blocks.reshape(permuted)
    return blocks if order == tuple(range(len(shape))) else jnp.transpose(blocks, sorted(order, key=order.__getitem__))


def modes_of(
    where: str, numbers: Any | Callable[[Params], Any], tree: Any, any_rank: bool = False, takes_turns: bool = False
) -> list[Modes]:
    """How each leaf of a tree of parameters or gradients consists of matrices; a leaf that is None has no axes.

    Args:
      numbers: a tree of `MuonDimensionNumbers` like `tree` (or a prefix, or a function from `tree` to it). None reads
        the axes off the roles; without roles all must be matrices (inputs, outputs).
      any_rank: whether a leaf of which nothing is said is a tensor with all its axes, instead.
      takes_turns: whether each kind of matrices has a turn, see `_in_turns`.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_leaf)
    said = said_of(numbers, tree)
    entries = [None] * len(leaves)
    if said is not None:
        plain = jax.tree.structure(unboxed(tree), is_leaf=is_none)
        entries = plain.flatten_up_to(unboxed(spread(where, "weight_dimension_numbers", said, tree, is_numbers)))
    pairs = enumerate(zip(leaves, entries, strict=True))
    found = [_modes(where, tree, i, x, entry, said is None, any_rank) for i, (x, entry) in pairs]
    return _in_turns(found, tree) if takes_turns else found


def _in_turns(modes: list[Modes], tree: Any) -> list[Modes]:
    """The modes, each with the number of its kind of matrices among those of the tree, and how many kinds there are.

    What is alike in shape, dtype, role and modes is one kind. Their order depends neither on names nor on devices.
    Vectors have an order of their own, as most rules have no such work on them.
    """
    leaves = jax.tree.leaves(tree, is_leaf=is_leaf)
    kinds = [_kind(x, one) for x, one in zip(leaves, modes, strict=True)]
    orders = [sorted({text for is_matrix, text in kinds if text and is_matrix == which}) for which in (False, True)]
    turns = [(orders[which].index(text), len(orders[which])) if text else None for which, text in kinds]
    return [one._replace(turn=turn) for one, turn in zip(modes, turns, strict=True)]


def _kind(leaf: Any, modes: Modes) -> tuple[bool, str]:
    """Whether it has matrices, and a text that tells their kind; an empty one for None."""
    x = opened(leaf)
    if x is None:
        return False, ""
    whole = whole_shape_of(jnp.shape(x), carried_split(leaf))
    return len(modes.groups) > 1, repr((whole, jnp.result_type(x).name, carried_role(leaf), modes))


def is_numbers(x: Any) -> bool:
    """Whether these are dimension numbers, ours or Optax's."""
    return getattr(x, "_fields", None) == MuonDimensionNumbers._fields


def _modes(where: str, tree: Any, i: int, leaf: Any, entry: Any, by_role: bool, any_rank: bool) -> Modes:
    """How one leaf consists of matrices. Its entry counts axes without those of the stack; the result counts all."""
    if opened(leaf) is None:
        return Modes(((), ()))
    role, x = (leaf.role or Role(), leaf.value) if is_box(leaf) else (Role(), leaf)
    shape = jnp.shape(x)
    whole = role.fitted(len(shape))
    kept = [a for a in range(len(shape)) if a not in whole.stack]
    if by_role and whole.in_axes and whole.out_axes:
        inputs = sorted({*whole.kernel, *whole.in_axes}) if whole.kernel else whole.in_axes
        groups = tuple(tuple(a for a in axes if a != whole.heads) for axes in (inputs, whole.out_axes))
        return Modes(groups, _blocks(where, tree, i, whole, shape))
    if entry is None and any_rank:
        return Modes(tuple((a,) for a in kept))
    entry = MuonDimensionNumbers() if by_role else entry
    groups = _fitted(where, tree, i, tuple(shape[a] for a in kept), entry)
    return Modes(tuple(tuple(kept[a] for a in axes) for axes in groups))


def _blocks(where: str, tree: Any, i: int, role: Role, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not role.blocks:
        return ()
    width = math.prod(shape[a] for a in role.out_axes if a != role.heads)
    if sum(role.blocks) != width:
        raise ValueError(
            f"{where}: at {paths(tree)[i]}: the blocks {role.blocks} add up to {sum(role.blocks)}, "
            f"but the parameter of shape {shape} has {width} outputs"
        )
    return role.blocks


def _fitted(where: str, tree: Any, i: int, shape: tuple[int, ...], entry: Any) -> Groups:
    if not is_numbers(entry):
        raise ValueError(f"{where}: at {paths(tree)[i]}: there are no MuonDimensionNumbers, got {entry!r}")
    ndim = len(shape)
    parts = [(part,) if isinstance(part, int) else tuple(part) for part in entry]
    named = [a for part in parts for a in part]
    if any(not -ndim <= a < ndim for a in named) or len({a % ndim for a in named}) < len(named):
        raise ValueError(
            f"{where}: at {paths(tree)[i]}: {entry} does not name axes of the shape {shape}, each once; "
            f"this stage is for matrices"
        )
    return tuple(tuple(a % ndim for a in part) for part in parts)

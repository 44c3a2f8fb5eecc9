# SPDX-License-Identifier: Apache-2.0
"""Where the matrices are: which axes of a parameter are their inputs and outputs, and tensors as stacks of matrices."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

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


Otherwise = Literal["refused", "tensor", "none"]
"""What a leaf is that is not said to be a matrix, and has not two axes."""


def modes_of(
    where: str,
    numbers: Any | Callable[[Params], Any],
    tree: Any,
    otherwise: Otherwise = "refused",
    takes_turns: bool = False,
) -> list[Any]:
    """How each leaf of a tree of parameters or gradients consists of matrices: its `Modes`.

    Args:
      numbers: a tree of `MuonDimensionNumbers` like `tree` (or a prefix, or a function from `tree` to it). None reads
        the axes off the roles; without roles, leaves with two axes are matrices (inputs, outputs).
      otherwise: whether any other leaf is an error, a "tensor" with all its axes, or None in the result. "none" also
        takes a leaf without elements for no matrix, and the dimension numbers must then name all axes.
      takes_turns: whether each kind of matrices has a turn, see `_in_turns`.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_leaf)
    said = said_of(numbers, tree)
    entries = [None] * len(leaves)
    if said is not None:
        plain = jax.tree.structure(unboxed(tree), is_leaf=is_none)
        is_entry = is_numbers if otherwise != "none" else lambda x: x is None or is_numbers(x)
        entries = plain.flatten_up_to(unboxed(spread(where, "weight_dimension_numbers", said, tree, is_entry)))
    pairs = enumerate(zip(leaves, entries, strict=True))
    found = [_modes(where, tree, i, x, entry, said is None, otherwise) for i, (x, entry) in pairs]
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
    """Whether a parameter is matrices and no vector, and a text that tells their kind; an empty one for None."""
    x = opened(leaf)
    if x is None:
        return False, ""
    whole = whole_shape_of(jnp.shape(x), carried_split(leaf))
    return len(modes.groups) > 1, repr((whole, jnp.result_type(x).name, carried_role(leaf), modes))


def is_numbers(x: Any) -> bool:
    """Whether these are dimension numbers, of Muon or of GaLore, ours or Optax's."""
    return getattr(x, "_fields", None) == MuonDimensionNumbers._fields


def _modes(where: str, tree: Any, i: int, leaf: Any, entry: Any, by_role: bool, otherwise: Otherwise) -> Any:
    """How one leaf consists of matrices. Its entry counts axes without those of the stack; the result counts all."""
    if opened(leaf) is None or otherwise == "none" and jnp.size(opened(leaf)) == 0:
        return None if otherwise == "none" else Modes(((), ()))
    role, x = (leaf.role or Role(), leaf.value) if is_box(leaf) else (Role(), leaf)
    shape = jnp.shape(x)
    whole = role.fitted(len(shape))
    kept = [a for a in range(len(shape)) if a not in whole.stack]
    if by_role and whole.in_axes and whole.out_axes:
        inputs = sorted({*whole.kernel, *whole.in_axes}) if whole.kernel else whole.in_axes
        groups = tuple(tuple(a for a in axes if a != whole.heads) for axes in (inputs, whole.out_axes))
        return Modes(groups, _blocks(where, tree, i, whole, shape))
    if by_role and (len(kept) == 2 or otherwise == "refused"):
        entry = MuonDimensionNumbers()
    if entry is None and otherwise != "refused":
        return Modes(tuple((a,) for a in kept)) if otherwise == "tensor" else None
    groups = _fitted(where, tree, i, tuple(shape[a] for a in kept), entry, otherwise == "none")
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
    return role.blocks if len(role.blocks) > 1 else ()


def _fitted(where: str, tree: Any, i: int, shape: tuple[int, ...], entry: Any, all_axes: bool) -> Groups:
    if not is_numbers(entry):
        kinds = "GaLoreDimensionNumbers or None" if all_axes else "MuonDimensionNumbers"
        raise TypeError(f"{where}: at {paths(tree)[i]}: weight_dimension_numbers must hold {kinds}, got {entry!r}")
    ndim = len(shape)
    parts = [(part,) if isinstance(part, int) else tuple(part) for part in entry]
    named = [a for part in parts for a in part]
    distinct = {a % ndim for a in named if -ndim <= a < ndim}
    if all_axes and not ndim == len(distinct) == len(named):
        raise ValueError(f"{where}: at {paths(tree)[i]}: {entry} must name each axis of the shape {shape} once")
    if len(distinct) < len(named):
        raise ValueError(
            f"{where}: at {paths(tree)[i]}: {entry} does not name axes of the shape {shape}, each once; "
            f"this stage is for matrices"
        )
    return tuple(tuple(a % ndim for a in part) for part in parts)

# SPDX-License-Identifier: Apache-2.0
"""The role of a parameter, and the box that carries the role with the parameter through transformations."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core._over_devices import Names, Split

Kind = Literal["hidden", "embedding", "head", "norm", "bias", "other"]
KINDS: tuple[str, ...] = get_args(Kind)
Axes = int | Sequence[int]
"""One axis, or some."""


@dataclasses.dataclass(frozen=True, repr=False, init=False)
class Role:
    """What a parameter is for, and what its axes mean. Axes are numbered as in the array; negative ones from its end.

    Attributes:
      kind: "hidden" for the weights between units of a model, "embedding" for rows that are looked up, "head" for the
        weights of the output, "norm" for the scales of normalizations, "bias" for what is added, "other" for the rest.
      stack: the axes along which several parameters of equal shape are stacked, such as the layers of a scan. The other
        axes are those of one logical parameter; rules run on each of these as on a leaf of its own.
      in_axes, out_axes: the axes of the inputs and outputs of a matrix, () if not known.
      heads: the axis of attention heads, each of which is a matrix of its own; None for none.
      blocks: the widths of the matrices that lie beside each other along the outputs, such as (q, k, v) in a fused
        projection, each of which is a matrix of its own; () for one.
      kernel: the axes of the kernel of a convolution, which count as inputs of its matrix.
    """

    kind: Kind = "other"
    stack: tuple[int, ...] = ()
    in_axes: tuple[int, ...] = ()
    out_axes: tuple[int, ...] = ()
    heads: int | None = None
    blocks: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()

    def __init__(
        self,
        kind: Kind = "other",
        stack: Axes = (),
        in_axes: Axes = (),
        out_axes: Axes = (),
        heads: int | None = None,
        blocks: Sequence[int] = (),
        kernel: Axes = (),
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"Role: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        axes: dict[str, Any] = {"stack": stack, "in_axes": in_axes, "out_axes": out_axes, "kernel": kernel}
        for name, given in axes.items():
            one_or_more = (given,) if _is_axis(given) else given
            if not isinstance(one_or_more, tuple | list) or not all(map(_is_axis, one_or_more)):
                raise TypeError(f"Role: {name} must be an axis or a tuple of axes, got {given!r}")
            axes[name] = tuple(one_or_more)
        if heads is not None and not _is_axis(heads):
            raise TypeError(f"Role: heads must be an axis or None, got {heads!r}")
        for name, value in {"kind": kind, **axes, "heads": heads, "blocks": _widths(blocks)}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """The call, without arguments that have their default."""
        fields = [f for f in dataclasses.fields(self) if f.name != "kind" and getattr(self, f.name) != f.default]
        return f"Role({', '.join([repr(self.kind), *(f'{f.name}={getattr(self, f.name)!r}' for f in fields)])})"

    def fitted(self, ndim: int) -> "Role":
        """The same role with all axes counted from the left, for an array of this rank.

        Raises:
          ValueError: for an axis that the array does not have, or one that is named for two purposes.
        """
        fields = {n: getattr(self, n) for n in ("stack", "in_axes", "out_axes", "kernel")}
        fields["heads"] = () if self.heads is None else (self.heads,)
        for name, axes in fields.items():
            for axis in axes:
                if not -ndim <= axis < ndim:
                    raise ValueError(f"{name} names axis {axis}, but there are {ndim} axes")
        fields = {name: tuple(a % ndim for a in axes) for name, axes in fields.items()}
        named = [a for name in ("stack", "in_axes", "out_axes") for a in fields[name]]
        named += [a for a in fields["kernel"] if a not in fields["in_axes"]]
        if repeated := sorted({a for a in named if named.count(a) > 1}):
            raise ValueError(f"axis {repeated[0]} is named more than once in {self}")
        heads = fields.pop("heads")
        if heads and heads[0] in fields["stack"]:
            raise ValueError(f"axis {heads[0]} cannot be a stack and the heads in {self}")
        return dataclasses.replace(self, **fields, heads=heads[0] if heads else None)

    def logical(self, ndim: int) -> "Role":
        """The role of one logical parameter in an array of this rank: without the stack, the other axes renumbered."""
        role = self.fitted(ndim)
        new = {axis: i for i, axis in enumerate(a for a in range(ndim) if a not in role.stack)}
        return dataclasses.replace(
            role,
            stack=(),
            in_axes=tuple(new[a] for a in role.in_axes),
            out_axes=tuple(new[a] for a in role.out_axes),
            heads=None if role.heads is None else new[role.heads],
            kernel=tuple(new[a] for a in role.kernel),
        )


def _widths(blocks: Any) -> tuple[int, ...]:
    if not isinstance(blocks, tuple | list) or not all(_is_axis(n) and n > 0 for n in blocks):
        raise ValueError(f"Role: blocks must be the widths of the blocks, positive whole numbers, got {blocks!r}")
    return tuple(blocks)


def _is_axis(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False)
class Boxed:
    """A leaf of a tree together with static facts about its parameter.

    Attributes:
      value: the leaf, an array.
      role: the role of the parameter, None if not known.
      group: the number of its group; for a stack, a tuple with the number for each parameter, in the order of the
        stack's axes; None outside `groups`. Hyperparameters that differ between groups are arrays with an entry for
        each group.
      split: between which devices it is split; None outside `over_axes`.
    """

    value: Any
    role: Role | None = None
    group: int | tuple[int, ...] | None = None
    split: Split | None = None

    def tree_flatten_with_keys(self) -> tuple:
        return ((jax.tree_util.GetAttrKey("value"), self.value),), (self.role, self.group, self.split)

    @classmethod
    def tree_unflatten(cls, aux: tuple, children: tuple) -> "Boxed":
        return cls(children[0], *aux)

    def holding(self, value: Any) -> "Boxed":
        return Boxed(value, self.role, self.group, self.split)


def is_box(x: Any) -> bool:
    return isinstance(x, Boxed)


def is_full_box(x: Any) -> bool:
    """Whether this is a box with an array in it; masking a parameter leaves an empty box."""
    return isinstance(x, Boxed) and (hasattr(x.value, "dtype") or jax.tree_util.all_leaves([x.value]))


def is_absent(x: Any) -> bool:
    """Whether there is no parameter: None, or the empty box of one that is masked."""
    return x is None or is_box(x) and not is_full_box(x)


def opened(leaf: Any) -> Any:
    """What is in the box; a leaf without a box as it is."""
    return leaf.value if isinstance(leaf, Boxed) else leaf


def closed(box: Any, value: Any) -> Any:
    """The value in a box like this one; as it is if this is no box, or if it is in a box already."""
    return box.holding(value) if isinstance(box, Boxed) and not isinstance(value, Boxed) else value


def all_opened(leaves: Iterable[Any]) -> list:
    """`opened` of each, without a call for each: this runs at each update outside jit."""
    return [x.value if isinstance(x, Boxed) else x for x in leaves]


def all_closed(boxes: Iterable[Any], values: Iterable[Any]) -> list:
    """`closed` of each, as `all_opened`."""
    pairs = zip(boxes, values, strict=True)
    return [closed(box, x) if isinstance(box, Boxed) else x for box, x in pairs]


def carried_role(leaf: Any) -> Role | None:
    """The role that the box of a leaf carries; None where nobody said, and without a box."""
    return leaf.role if is_box(leaf) else None


def carried_split(leaf: Any) -> Split | None:
    """The split that the box of a leaf carries; None where nobody said, and without a box."""
    return leaf.split if is_box(leaf) else None


def names_of(leaf: Any) -> Names:
    """The mesh axes between whose devices a leaf is split, as far as anybody said."""
    return leaf.split.names if is_box(leaf) and leaf.split is not None else ()


def by_names(leaves: Iterable[Any]) -> dict[Names, list]:
    """What is in these boxes, and leaves without boxes, by the mesh axes between whose devices they are split."""
    found: dict[Names, list] = {}
    for x in leaves:
        found.setdefault(names_of(x), []).append(opened(x))
    return found or {(): []}


def splits_of(tree: Any) -> list[Split | None]:
    """How each leaf of a tree is split, None being a leaf."""
    return [carried_split(x) for x in jax.tree.leaves(tree, is_leaf=is_entry_box)]


def is_entry_box(x: Any) -> bool:
    """Whether this is None, or a box that holds one leaf, None being a leaf."""
    return x is None or is_box(x) and (x.value is None or is_full_box(x))


def names_of_leaves(tree: Any) -> list[Names]:
    """The mesh axes between whose devices each leaf of a tree is split, None being a leaf."""
    return [() if split is None else split.names for split in splits_of(tree)]


def unboxed(tree: Any) -> Any:
    """The tree with each box replaced by its value."""
    return jax.tree.map(opened, tree, is_leaf=is_box)


def logical_view(tree: Any) -> Any:
    """The tree that functions of the parameters get: without boxes, and a stack as shape and dtype of one parameter."""

    def shown(x: Any) -> Any:
        if not is_box(x):
            return x
        if not is_full_box(x) or x.role is None or not x.role.stack:
            return x.value
        shape = jnp.shape(x.value)
        stack = x.role.fitted(len(shape)).stack
        left = tuple(n for axis, n in enumerate(shape) if axis not in stack)
        return jax.ShapeDtypeStruct(left, jnp.result_type(x.value))

    return jax.tree.map(shown, tree, is_leaf=is_box)

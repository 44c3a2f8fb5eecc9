# SPDX-License-Identifier: Apache-2.0
"""Where the matrices of a bucket lie while a rule runs on them: whole on every device, or spread over devices.

Spread, each device has its share of the matrices, whole, and runs the rule on these only. So it is where parameters are
split, by their types or by `over_axes`, over no more devices than there are matrices, and where it is asked for
(`gradtx.sharding.spread_matrices`). Inside a `shard_map` devices swap parts; arrays with explicit shardings enter one
for it. On automatic axes the compiler finds what to move.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.core._matrices import Groups, Modes, from_blocks, to_blocks
from gradtx.core._over_devices import Names, Split, gathered, is_bound, own_part, split_by
from gradtx.core._placement import explicit_sharding, laid_like, names_by_axis, whole_in_loop
from gradtx.core._spreading import Each, Spread, padded, spread_of


class Laid(NamedTuple):
    """How parameters that lie side by side, in arrays with an axis more, consist of matrices.

    Attributes:
      split: between which devices these arrays are split.
      like: one of them.
      shape: that of the whole of it.
      spread: how devices share out the matrices, inside a `shard_map`; None if every device has all of them.
      specs: with `spread`, how each of the other slots is split, a tree like it.
      freely: whether it is not said here where the matrices lie.
    """

    modes: Modes
    split: Split | None
    like: Any
    shape: tuple[int, ...]
    spread: Spread | None = None
    specs: Sequence = ()
    freely: bool = False

    @property
    def groups(self) -> Groups:
        return tuple(tuple(1 + i for i in axes) for axes in self.modes.groups)

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes that stack matrices."""
        return (0, *(1 + i for i in self.modes.lead(len(self.shape) - 1)))

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of the matrices."""
        return tuple(i for axes in self.groups for i in axes)

    def names_of(self, axes: tuple[int, ...]) -> Each:
        """The mesh axes over which these axes are split."""
        each = ((),) * len(self.shape) if self.split is None else self.split.of_each(len(self.shape))
        return tuple(each[i] for i in axes)

    def blocks(self, tree: Any) -> list:
        """For each of the matrices that lie beside each other in a parameter: a tree of stacks of them, (k, m, n)."""
        arrays, treedef = jax.tree.flatten(tree)
        arrays = [self._flat(x) for x in arrays]
        if not self.modes.blocks:
            return [treedef.unflatten(arrays)]
        parts = [jax.lax.split(x, self.modes.blocks, x.ndim - 1) for x in arrays]
        return [treedef.unflatten(row) for row in zip(*parts, strict=True)] or [tree] * len(self.modes.blocks)

    def _flat(self, x: jax.Array) -> jax.Array:
        groups = self.groups
        if self.spread is not None:
            x = _stack(to_blocks(x, _singles(self.axes)), len(self.lead))
            x, groups = self.spread.rows(x, self.names_of(self.axes)), _in_order(groups)
        elif self.split is not None:
            x = gathered(x, self.split)
        elif not self.freely:
            x = whole_in_loop(x, len(self.shape) - 1)
        x = to_blocks(x, groups)
        return _stack(x, x.ndim - len(groups))

    def back(self, blocks: Sequence) -> jax.Array:
        """`blocks` of one array undone."""
        x = blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=-1)
        if self.spread is None:
            x = from_blocks(x, self.groups, self.shape)
            return laid_like(x, self.like) if self.split is None else own_part(x, self.split)
        x = from_blocks(x, _in_order(self.groups), (len(x), *(self.shape[i] for i in self.axes)))
        return from_blocks(self.spread.back(x, self.names_of(self.axes)), _singles(self.axes), self.like.shape)

    def slots(self, fields: list, owns: list[bool]) -> list[list]:
        """For each of the matrices that lie beside each other in a parameter: a list of stacks of slots."""
        if not fields:
            return [[]] * max(1, len(self.modes.blocks))
        specs = self.specs or [None] * len(fields)
        return [list(row) for row in zip(*map(self._slot, fields, owns, specs), strict=True)]

    def _slot(self, field: Any, own: bool, specs: Any) -> list:
        if own:
            return self.blocks(field)
        found = jax.tree.map(self.entries, field) if specs is None else jax.tree.map(self.entries, field, specs)
        return list(found) if self.modes.blocks else [found]

    def entries(self, x: jax.Array, spec: PartitionSpec | None = None) -> jax.Array:
        """A stack of what an array has for each matrix; it has the axes that stack matrices in front."""
        if self.spread is None:
            return _stack(x if self.freely else whole_in_loop(x, x.ndim - 1), len(self.lead))
        each = names_by_axis(spec, x.ndim)
        x = _stack(own_part(x, self._uncut(each, x.ndim)), len(self.lead))
        return self.spread.rows(x, each[len(self.lead) :])

    def entries_back(self, x: jax.Array, spec: PartitionSpec | None = None) -> jax.Array:
        """`entries` undone."""
        if self.spread is None:
            return x.reshape(*(self.shape[i] for i in self.lead), *x.shape[1:])
        lead, each = len(self.lead), names_by_axis(spec, x.ndim - 1 + len(self.lead))
        x = self.spread.back(x, each[lead:])
        x = x.reshape(*(self.like.shape[i] for i in self.lead), *x.shape[1:])
        return gathered(x, self._uncut(each, x.ndim))

    def _uncut(self, each: Each, ndim: int) -> Split:
        """How the stack is split over devices, for an array that is split as `each` says and not yet so."""
        names = self.names_of(self.lead)
        return split_by((*(() if each[: len(names)] == names else names), *((),) * ndim)[:ndim])

    def slots_back(self, rows: Sequence[list], owns: list[bool], fields: list | None = None) -> list:
        """`slots` undone: what becomes of these fields."""

        def one(own: bool, specs: Any, *blocks: Any) -> Any:
            if own:
                return self.back(blocks)
            found = blocks[0] if len(blocks) == 1 else blocks
            return jax.tree.map(self.entries_back, found, *([] if specs is None else [specs]))

        specs = self.specs or [None] * len(owns)
        new = [one(*column) for column in zip(owns, specs, *rows, strict=True)]
        return new if fields is None else jax.tree.map(laid_like, new, fields)


def check_made_for(field: Any, shape: tuple[int, ...]) -> None:
    if jnp.shape(field) != shape:
        raise ValueError(f"the state was made for another shape: {jnp.shape(field)}, updated {shape}")


def _stack(x: jax.Array, lead: int) -> jax.Array:
    """The array with its first axes as one."""
    return x if lead == 1 else x.reshape(-1, *x.shape[lead:])


def _singles(axes: tuple[int, ...]) -> Groups:
    return tuple((i,) for i in axes)


def _in_order(groups: Groups) -> Groups:
    """Groups as long as these, of axes that are numbered one after another, from 1 on."""
    rest = iter(range(1, 1 + sum(map(len, groups))))
    return tuple(tuple(next(rest) for _ in axes) for axes in groups)


class Matrices(NamedTuple):
    """What a rule runs on, for parameters that lie side by side.

    Attributes:
      fixed: what all matrices have alike, a tree.
      each: arrays with an entry for each matrix.
      x: what the rule gets for a gradient, a tree.
      slots: its slots.
      p: the parameters, or None.
    """

    fixed: Any
    each: list
    x: Any
    slots: list
    p: Any


def on_matrices(
    f: Callable[..., tuple], laid: Laid, given: Matrices, owns: list[bool], over: Names | None, in_turn: bool
) -> tuple[jax.Array, list]:
    """`f(fixed, each, x, slots, p)` of each matrix, where it lies best: the updates, and the new slots.

    Args:
      owns: for each slot whether it lies as the parameter does.
      over: the mesh axes over which to spread; None for those over which the matrices are split.
      in_turn: whether matrices that are not spread run in turn.
    """
    for x in (x for x, own in zip(given.slots, owns, strict=True) if own):
        check_made_for(x, laid.like.shape)
    if laid.split is not None or over and all(map(is_bound, over)):
        spread = _spread(laid, over, laid.like.shape, lambda name: jax.lax.axis_size(name))
        if spread is not None:
            specs = [jax.tree.map(lambda x: PartitionSpec(), x) for x in given.slots]
            laid = laid._replace(spread=spread, specs=specs)
        return _run(f, laid, given, owns, in_turn and spread is None)
    typed = explicit_sharding(laid.like)
    if typed is not None:
        return _on_typed(f, laid, given, owns, over, typed, in_turn)
    count = math.prod(laid.shape[i] for i in laid.lead)
    mesh = jax.sharding.get_abstract_mesh()
    if over and count >= math.prod(mesh.shape[name] for name in over):
        return _run(f, laid._replace(freely=True), given, owns, over=over)
    return _run(f, laid, given, owns, in_turn)


def _spread(laid: Laid, over: Names | None, shape: tuple[int, ...], size: Callable[[str], int]) -> Spread | None:
    """How matrices are shared out, of arrays of which each device has a part of this shape."""
    lead = tuple(n for names in laid.names_of(laid.lead) for n in names)
    return spread_of(math.prod(shape[i] for i in laid.lead), laid.names_of(laid.axes), lead, over, size)


def _run(
    f: Callable[..., tuple],
    laid: Laid,
    given: Matrices,
    owns: list[bool],
    in_turn: bool = False,
    over: Names = (),
) -> tuple[jax.Array, list]:
    """As `on_matrices`, where `laid` says; with `over`, spread over these automatic axes."""
    lead = [laid.shape[i] for i in laid.lead]
    each = [laid.entries(x.reshape(lead), PartitionSpec()) for x in given.each]
    rows = zip(laid.blocks(given.x), laid.slots(given.slots, owns), laid.blocks(given.p), strict=True)
    if over:
        found = [_mapped_over(over, f, given.fixed, (each, *row)) for row in rows]
    else:
        found = [mapped(functools.partial(f, given.fixed), (each, *row), in_turn) for row in rows]
    us, new = zip(*found, strict=True)
    return laid.back(us), laid.slots_back(new, owns, given.slots)


def _on_typed(
    f: Callable[..., tuple],
    laid: Laid,
    given: Matrices,
    owns: list[bool],
    over: Names | None,
    typed: NamedSharding,
    in_turn: bool,
) -> tuple[jax.Array, list]:
    """`_run` of arrays with explicit shardings: where matrices are spread, as inside a `shard_map`."""
    mesh, ndim = typed.mesh, len(laid.shape)
    local = laid._replace(split=split_by(names_by_axis(typed.spec, ndim)))
    spread = _spread(local, over, typed.shard_shape(laid.shape), mesh.shape.__getitem__)
    if spread is None:
        return _run(f, laid, given, owns, in_turn)
    lead = local.names_of(local.lead)

    def lying(x: jax.Array) -> PartitionSpec:
        """How a slot of another shape is to be split: over the stack, and as it is if its parts can be swapped."""
        rest = names_by_axis(getattr(explicit_sharding(x), "spec", None), x.ndim)[len(lead) :]
        swaps = sorted(n for names in rest for n in names) == sorted(spread.swapped)
        return PartitionSpec(*(names or None for names in (*lead, *(rest if swaps else ()))))

    specs = [typed.spec if own else jax.tree.map(lying, x) for own, x in zip(owns, given.slots, strict=True)]

    def placed(tree: Any, spec: PartitionSpec) -> Any:
        return jax.tree.map(lambda x: jax.sharding.reshard(x, NamedSharding(mesh, spec)), tree)

    def on_parts(fixed: Any, each: list, x: Any, slots: list, p: Any) -> tuple[jax.Array, list]:
        here = local._replace(like=jax.tree.leaves(x)[0], spread=spread, specs=specs)
        return _run(f, here, Matrices(fixed, each, x, slots, p), owns)

    whole, like = PartitionSpec(), typed.spec
    manual = {n for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit}
    run = jax.shard_map(
        on_parts,
        mesh=mesh if jax.sharding.get_abstract_mesh().empty else None,
        in_specs=(whole, whole, like, specs, like),
        out_specs=(like, specs),
        axis_names=manual | set(over or ()),
        check_vma=False,
    )
    rows = zip(owns, given.slots, specs, strict=True)
    slots = [placed(x, s) if own else jax.tree.map(placed, x, s) for own, x, s in rows]
    fixed, each = placed((given.fixed, given.each), whole)
    u, new = run(fixed, each, placed(given.x, like), slots, placed(given.p, like))
    return u, jax.tree.map(laid_like, new, given.slots)


def mapped(f: Callable[..., Any], arguments: tuple, in_turn: bool = False) -> Any:
    """`f` of each entry of these stacks."""
    leaves = jax.tree.leaves(arguments)
    if len(leaves[0]) == 1:
        found = f(*jax.tree.map(lambda x: jax.lax.squeeze(x, (0,)), arguments))
        return jax.tree.map(lambda x: x[None], found)
    if not in_turn:
        return jax.vmap(f)(*arguments)
    return jax.lax.map(lambda row: f(*row), arguments, batch_size=16 if len(leaves[0]) > 16 else None)


def _mapped_over(over: Names, f: Callable[..., Any], fixed: Any, arguments: tuple) -> Any:
    """`f` of each entry of these stacks, which the compiler spreads over automatic axes of the mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    size, count = math.prod(mesh.shape[name] for name in over), len(jax.tree.leaves(arguments)[0])

    def constrained(x: jax.Array, names: Names) -> jax.Array:
        spec = PartitionSpec(names or None, *[PartitionSpec.UNCONSTRAINED] * (x.ndim - 1))
        return jax.lax.with_sharding_constraint(x, spec)

    # One axis after the other: compilers swap parts along one, and gather the whole for several at once.
    def placed(x: jax.Array) -> jax.Array:
        x = constrained(padded(constrained(x, ()), size), ())
        for i in range(len(over)):
            x = constrained(x, over[: i + 1])
        return x

    def back(x: jax.Array) -> jax.Array:
        for i in reversed(range(len(over))):
            x = constrained(x, over[:i])
        return x[:count]

    rows = PartitionSpec(over)
    automatic = {n for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Auto}
    run = jax.shard_map(
        lambda fixed, rows: mapped(functools.partial(f, fixed), rows),
        in_specs=(PartitionSpec(), rows),
        out_specs=rows,
        axis_names=automatic,
        check_vma=False,
    )
    return jax.tree.map(back, run(fixed, jax.tree.map(placed, arguments)))

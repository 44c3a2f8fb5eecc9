# SPDX-License-Identifier: Apache-2.0
"""A rule on one matrix, run at once on all matrices that are alike: a bucket.

Parameters of equal shape, dtype, role and sharding are put side by side, each is taken apart into its matrices, and the
rule is mapped over all of them: batched on accelerators, in turn on a CPU, whose caches a batch would overflow. The
states stay those of the parameters: slots with the shape of the matrix lie as the parameter does, all others have the
axes of the stack in front, and are in a tuple where matrices of several widths lie side by side in one parameter.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from gradtx.core._dtypes import compute_dtype, promotion, widen, widen_floats
from gradtx.core._matrices import Modes, from_blocks, to_blocks
from gradtx.core._over_devices import WHOLE, Split, gathered, on_leaf, own_part, whole_shape_of
from gradtx.core._placement import explicit_sharding, laid_like, whole_in_loop
from gradtx.core._roles import Role
from gradtx.core._stacks import is_stacked, stack_axes

RuleAt = Callable[[dict[str, Any]], Any]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("gs", "slots", "ps"), meta_fields=("modes", "role", "split")
)
@dataclasses.dataclass(frozen=True)
class Bucket:
    """Parameters that are alike: their gradients, slots (a list for each) and values, and what they have in common."""

    gs: list
    slots: list[list]
    ps: list
    modes: Modes
    role: Role | None = None
    split: Split | None = None


def init_matrices(rule_at: RuleAt, values: dict, p: jax.Array, alike: Bucket) -> list:
    """The slots of one parameter; `alike` says how it consists of matrices. Values may be `Stacked`."""
    modes, split = alike.modes, alike.split
    whole = gathered(p, split)

    def init_one(values: dict, block: jax.Array) -> list:
        return slots_of_one(rule_at(values), block, alike.role, p.ndim)

    if modes.is_plain(p.ndim):
        found = init_one(values, whole)
        return [own_part(x, split) if getattr(x, "shape", None) == whole.shape else x for x in found]
    shape, lead = (1, *whole.shape), tuple(whole.shape[i] for i in modes.lead(p.ndim))
    entries = _Entries(values, alike, whole.shape)
    rows = [_mapped(lambda e, x: init_one(entries.put(e), x), (entries.each, x)) for x in _blocks(whole[None], modes)]
    owns = _owns(rule_at(entries.first), alike, whole.shape, p.dtype)

    def placed(own: bool, blocks: tuple) -> Any:
        if own:
            return own_part(_joined(list(blocks), modes, shape)[0], split)
        return _bare([jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), x) for x in blocks])

    return [placed(own, blocks) for own, blocks in zip(owns, zip(*rows, strict=True), strict=True)]


def slots_of_one(rule: Any, block: Any, role: Role | None, ndim: int) -> list:
    """What the `init` of a rule makes for one matrix, as a list."""
    with on_leaf(WHOLE, jnp.ndim(block)):
        found = rule.init(block, **rule.role(role, ndim))
    found = list(found) if len(rule.slots) > 1 and isinstance(found, tuple | list) else [found]
    if len(found) != len(rule.slots):
        raise TypeError(f"init must return {len(rule.slots)} slots, {rule.slots}, got {len(found)}")
    return [jax.tree.map(jnp.asarray, x) for x in found]


def update_matrices(rule_at: RuleAt, values: dict, bucket: Bucket, count: Any, common: tuple) -> tuple[list, list]:
    """The updates of the parameters of a bucket, and their new slots in the dtype of the work."""
    g, ndim, modes, split = bucket.gs[0], bucket.gs[0].ndim, bucket.modes, _shifted(bucket)
    dtype = compute_dtype(g, bucket.slots[0], bucket.ps[0])
    g, fields, p = (_side_by_side(x) for x in (bucket.gs, bucket.slots, bucket.ps))
    g, fields, p, t, values = widen((g, fields, p, count, values), dtype)
    common = widen_floats(common, dtype)
    shape = whole_shape_of(g.shape, split)
    entries = _Entries((values, common), bucket, shape[1:], len(bucket.gs))
    rule = rule_at(entries.first[0])
    for field in fields[: len(rule.entering)]:
        _check_made_for(field, g.shape)
    entered, held = fields[: len(rule.entering)], fields[len(rule.entering) :]
    owns = _owns(rule, bucket, shape[1:], dtype)[len(rule.entering) :] if held else []
    in_turn = split is None and _runs_in_turn(g)
    with jax.named_scope(rule.name), promotion(g, fields, p):
        x: Any = g
        if rule.enter is not None:
            x, new = rule_at(entries.by_element(ndim)[0]).enter(g, _bare(entered), p, t)
            entered = [new] if len(entered) == 1 else list(new)
        whole = functools.partial(_whole, split=split, ndim=ndim)
        xs, ps = _blocks(whole(x), modes), _blocks(whole(p if rule.needs_params else None), modes)
        slots = zip(*[_held(f, own, modes, whole, g.shape) for f, own in zip(held, owns, strict=True)], strict=True)
        rows = list(slots) if held else [()] * len(xs)

        def one(each: list, x: Any, slots: tuple, p: Any) -> tuple:
            values, common = entries.put(each)
            here = rule_at(values)
            with on_leaf(WHOLE, len(modes.groups), p):
                told = here.role(bucket.role, ndim)
                u, new = checked(here.update(x, _bare(slots), p, t, *common, **told), jax.tree.leaves(x)[0], slots)
            return u, new

        found = [_mapped(one, (entries.each, *row), in_turn) for row in zip(xs, rows, ps, strict=True)]

    def back(blocks: list) -> jax.Array:
        x = _joined(blocks, modes, shape)
        return laid_like(x, g) if split is None else own_part(x, split)

    columns = zip(*[new for _, new in found], strict=True) if held else ()
    lead = [g.shape[1 + i] for i in modes.lead(ndim)]
    kept = [
        back(list(column))
        if own
        else _bare([jax.tree.map(lambda x: x.reshape(len(bucket.gs), *lead, *x.shape[1:]), x) for x in column])
        for own, column in zip(owns, columns, strict=True)
    ]
    return _apart(back([u for u, _ in found]), g.shape[0]), _apart([*entered, *kept], g.shape[0])


def checked(returned: Any, x: jax.Array, slots: tuple) -> tuple[Any, list]:
    """What a rule returned for a matrix x with these slots: the update, and the new slots as a list."""
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise TypeError("update must return the update and the new slots, (u, slots)")
    u, new = returned
    if jax.tree.structure(new) != jax.tree.structure(_bare(slots)):
        raise TypeError(f"update must return new slots like the old, {_bare(slots)}, got {new}")
    if jnp.shape(u) != x.shape:
        raise ValueError(f"the gradient has shape {x.shape}, but the update has shape {jnp.shape(u)}")
    return u, [new] if len(slots) == 1 else list(new)


class _Entries:
    """Hyperparameters, and what is shared, of which some have an entry for each parameter of a stack.

    Attributes:
      each: those entries, an array for each of them with an element for each matrix.
      first: all of them for the first matrix.
    """

    def __init__(self, tree: Any, alike: Bucket, shape: tuple[int, ...], parameters: int = 1):
        self.leaves, self.treedef = jax.tree.flatten(tree, is_leaf=is_stacked)
        self.stack = stack_axes(alike.role, len(shape))
        lead = alike.modes.lead(len(shape))
        at = [i for i, axis in enumerate(lead) if axis not in self.stack]
        sizes = [shape[i] for i in lead]

        def of_matrices(x: jax.Array) -> jax.Array:
            placed = jnp.expand_dims(x, at)
            return jnp.tile(jnp.broadcast_to(placed, sizes).reshape(-1), parameters)

        self.each = [of_matrices(x.value) for x in self.leaves if is_stacked(x)]
        self.first = self.put([x[0] for x in self.each])

    def put(self, each: list) -> Any:
        """The tree, with these in place of the entries."""
        rest = iter(each)
        return jax.tree.unflatten(self.treedef, [next(rest) if is_stacked(x) else x for x in self.leaves])

    def by_element(self, ndim: int) -> Any:
        """The tree, with entries that go with the elements of parameters that lie side by side."""
        others = [0, *(1 + i for i in range(ndim) if i not in self.stack)]
        return self.put([jnp.expand_dims(x.value, others) for x in self.leaves if is_stacked(x)])


def _bare(xs: Any) -> Any:
    """One as it is, several as a tuple: as rules get and return them."""
    return xs[0] if len(xs) == 1 else tuple(xs)


def _side_by_side(rows: list) -> Any:
    """Trees of arrays that are alike as one tree of arrays with an axis more, the first."""
    if len(rows) == 1:
        return jax.tree.map(lambda x: jnp.asarray(x)[None], rows[0])
    return jax.tree.map(lambda *xs: jnp.stack(xs), *rows)


def _apart(tree: Any, count: int) -> list:
    """`_side_by_side` undone."""
    leaves, treedef = jax.tree.flatten(tree)
    columns = [jax.lax.split(x, (1,) * count, 0) if count > 1 else (x,) for x in leaves]
    rows = zip(*columns, strict=True) if leaves else [()] * count
    return [treedef.unflatten([jax.lax.squeeze(x, (0,)) for x in row]) for row in rows]


def _shifted(bucket: Bucket) -> Split | None:
    """The split of parameters that lie side by side; None where they are not split."""
    split = bucket.split
    if split is None or not split.names:
        return None
    return Split(split.names, ((), *split.of_each(bucket.gs[0].ndim)))


def _whole(tree: Any, split: Split | None, ndim: int) -> Any:
    """The arrays of a tree, which have the axes of parameters that lie side by side, whole on each device."""
    return jax.tree.map(lambda x: whole_in_loop(x, ndim) if split is None else gathered(x, split), tree)


def _blocks(tree: Any, modes: Modes) -> list:
    """For each of the matrices that lie beside each other in a parameter: a tree of stacks of them, (k, m, n)."""
    groups = tuple(tuple(1 + i for i in axes) for axes in modes.groups)

    def flat(x: jax.Array) -> jax.Array:
        x = to_blocks(x, groups)
        lead = x.ndim - len(groups)
        return x if lead == 1 else x.reshape(-1, *x.shape[lead:])

    cut = [flat(x) for x in jax.tree.leaves(tree)]
    if modes.blocks:
        parts = [jax.lax.split(x, modes.blocks, x.ndim - 1) for x in cut]
        return [jax.tree.unflatten(jax.tree.structure(tree), row) for row in zip(*parts, strict=True)]
    return [jax.tree.unflatten(jax.tree.structure(tree), cut)]


def _joined(blocks: list, modes: Modes, shape: tuple[int, ...]) -> jax.Array:
    """`_blocks` of one array of this shape undone."""
    groups = tuple(tuple(1 + i for i in axes) for axes in modes.groups)
    return from_blocks(blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=-1), groups, shape)


def _owns(rule: Any, alike: Bucket, shape: tuple[int, ...], dtype: Any) -> list[bool]:
    """For each slot whether it lies as the parameter does, by what `init` makes for matrices of this parameter."""

    def of(shape: tuple[int, ...]) -> list[bool]:
        like = jax.ShapeDtypeStruct(shape, dtype)
        made = jax.eval_shape(lambda p: slots_of_one(rule, p, alike.role, ndim), like)
        return [getattr(x, "shape", None) == shape for x in made]

    ndim = len(shape)
    return [all(column) for column in zip(*map(of, alike.modes.shapes(shape)), strict=True)]


def _held(field: Any, own: bool, modes: Modes, whole: Callable[[Any], Any], shape: tuple[int, ...]) -> list:
    """A slot for each of the matrices that lie beside each other in a parameter, as stacks of them."""
    if own:
        _check_made_for(field, shape)
        return _blocks(whole(field), modes)
    lead = 1 + len(modes.lead(len(shape) - 1))
    flat = jax.tree.map(lambda x: x if lead == 1 else x.reshape(-1, *x.shape[lead:]), field)
    return list(flat) if modes.blocks else [flat]


def _check_made_for(field: Any, shape: tuple[int, ...]) -> None:
    if jnp.shape(field) != shape:
        raise ValueError(f"the state was made for another shape: {jnp.shape(field)[1:]}, updated {shape[1:]}")


def _mapped(f: Callable[..., Any], arguments: tuple, in_turn: bool = False) -> Any:
    """`f` of each entry of these stacks."""
    leaves = jax.tree.leaves(arguments)
    if len(leaves[0]) == 1:
        found = f(*jax.tree.map(lambda x: jax.lax.squeeze(x, (0,)), arguments))
        return jax.tree.map(lambda x: x[None], found)
    return jax.lax.map(lambda row: f(*row), arguments) if in_turn else jax.vmap(f)(*arguments)


def _runs_in_turn(g: jax.Array) -> bool:
    """Whether the matrices of a bucket run in turn, as on a CPU; not where their parts lie on many devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() == "cpu" and explicit_sharding(g) is None and AxisType.Auto not in mesh.axis_types

# SPDX-License-Identifier: Apache-2.0
"""A rule on one matrix, run at once on all matrices that are alike: a bucket.

Parameters of equal shape, dtype, role and sharding are put side by side, each is taken apart into its matrices, and the
rule is mapped over all of them: batched on accelerators, in turn (of many, sixteen at a time) on a CPU, whose caches a
batch would overflow. The states stay those of the parameters: slots with the shape of the matrix lie as the parameter
does, all others have the axes of the stack in front, and are in a tuple where matrices of several widths lie side by
side in one parameter.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from gradtx.core._bucket_layout import Laid, Matrices, check_made_for, mapped, on_matrices
from gradtx.core._dtypes import compute_dtype, promotion, widen, widen_floats
from gradtx.core._matrices import Modes
from gradtx.core._over_devices import WHOLE, Names, Split, gathered, on_leaf, own_part, whole_shape_of
from gradtx.core._placement import explicit_sharding
from gradtx.core._roles import Role, carried_split, opened
from gradtx.core._spreading import OVER
from gradtx.core._stacks import is_stacked, stack_axes

RuleAt = Callable[[dict[str, Any]], Any]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("gs", "slots", "ps"), meta_fields=("modes", "role", "split", "over")
)
@dataclasses.dataclass(frozen=True)
class Bucket:
    """Parameters that are alike: their gradients, slots (a list for each) and values, and what they have in common.

    `over` are the mesh axes over which to spread their matrices, None where nobody says. It is what `spread_matrices`
    has set where the bucket is made, which is outside of the compiled kernels.
    """

    gs: list
    slots: list[list]
    ps: list
    modes: Modes
    role: Role | None = None
    split: Split | None = None
    over: Names | None = dataclasses.field(default_factory=OVER.get)


def init_matrices(rule_at: RuleAt, values: dict, p: jax.Array, alike: Bucket) -> list:
    """The slots of one parameter; `alike` says how it consists of matrices. Values may be `Stacked`."""
    modes, split = alike.modes, alike.split
    whole = gathered(p, split)

    def init_one(values: dict, block: jax.Array) -> list:
        return slots_of_one(rule_at(values), block, alike.role, p.ndim)

    if modes.is_plain(p.ndim):
        found = init_one(values, whole)
        return [own_part(x, split) if getattr(x, "shape", None) == whole.shape else x for x in found]
    entries = _Entries(values, alike, whole.shape)
    laid = Laid(modes, _shifted(split, p.ndim), p[None], (1, *whole.shape))
    rows = [mapped(lambda e, x: init_one(entries.put(e), x), (entries.each, x)) for x in laid.blocks(p[None])]
    owns = _owns(rule_at(entries.first), alike, whole.shape, p.dtype)
    return _apart(laid.slots_back(rows, owns), 1)[0]


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
    like, modes = bucket.gs[0], bucket.modes
    ndim, split = like.ndim, _shifted(bucket.split, like.ndim)
    dtype = compute_dtype(like, bucket.slots[0], bucket.ps[0])
    gs, slots, ps, t, values = widen((bucket.gs, bucket.slots, bucket.ps, count, values), dtype)
    entries = _Entries((values, widen_floats(common, dtype)), bucket, whole_shape_of(like.shape, bucket.split))
    rule = rule_at(entries.first[0])
    n = len(rule.entering)
    with jax.named_scope(rule.name), promotion(gs[0], slots[0], ps[0]):
        # Not on the bucket: it costs compilers less to work on parameters alike than to take parts out of an array.
        enter = jax.jit(_enter(rule_at(entries.by_element[0]), t))
        xs, entered = zip(*[enter(g, x[:n], p) for g, x, p in zip(gs, slots, ps, strict=True)], strict=True)
        x = _side_by_side(xs)
        field = _side_by_side([x[n:] for x in slots])
        p = _side_by_side(ps) if rule.needs_params else None
        laid = Laid(modes, split, jax.tree.leaves(x)[0], whole_shape_of((len(gs), *like.shape), split))
        owns = _owns(rule, bucket, laid.shape[1:], dtype)[n:] if field else []

        def one(fixed: tuple, each: list, x: Any, slots: list, p: Any) -> tuple:
            rest, t = fixed
            values, common = entries.put(each, rest)
            here = rule_at(values)
            with on_leaf(WHOLE, len(modes.groups), p):
                told = here.role(bucket.role, ndim) | ({} if modes.turn is None else {"turn": modes.turn})
                return checked(here.update(x, _bare(slots), p, t, *common, **told), jax.tree.leaves(x)[0], slots)

        given = Matrices((entries.rest, t), [jnp.tile(x, len(gs)) for x in entries.each], x, field, p)
        u, new = on_matrices(one, laid, given, owns, bucket.over, split is None and _runs_in_turn(like))
        us, kept = _apart(u, len(gs)), _apart(new, len(gs))
    return us, [[*first, *rest] for first, rest in zip(entered, kept, strict=True)]


def over_matrices(f: Callable[..., tuple], bucket: Bucket, kept: list | None = None) -> tuple[list, list, list]:
    """`f(kept, g, slots, p) -> (u, slots, kept)` of each matrix of a bucket, for wrappers.

    Updates and slots are those of each parameter. The slots may be others than those that came in, of any shapes: none
    lies as its parameter does. What is kept stays in stacks of matrices, for another call on this bucket. All of it may
    be None.
    """
    dtype, count = compute_dtype(bucket.gs, bucket.slots, bucket.ps, kept), len(bucket.gs)
    each = [()] * max(1, len(bucket.modes.blocks)) if kept is None else widen_floats(kept, dtype)
    rows = widen(bucket.gs, dtype), widen_floats(bucket.slots, dtype), widen(bucket.ps, dtype)

    def one(kept: Any, x: jax.Array, slots: list, p: Any) -> tuple:
        with on_leaf(WHOLE, x.ndim):
            return f(kept, x, slots, p)

    with promotion(*rows):
        x, field, p = map(_side_by_side, rows)
        split = _shifted(bucket.split, bucket.gs[0].ndim)
        laid = Laid(bucket.modes, split, x, whole_shape_of(x.shape, split))
        us, new, left = _over(one, laid, each, x, [False] * len(field), field, p)
        fields = laid.slots_back(new, [False] * len(new[0]))
    return [None] * count if us[0] is None else _apart(laid.back(us), count), _apart(fields, count), left


def _over(f: Callable[..., tuple], laid: Laid, each: list, x: Any, owns: list[bool], slots: list, p: Any) -> Any:
    """What `f(each, x, slots, p)` has for parameters side by side: for each of its results a list of stacks.

    They have an entry for each of the matrices that lie beside each other in a parameter, and so has `each`.
    """
    rows = zip(each, laid.blocks(x), laid.slots(slots, owns), laid.blocks(p), strict=True)
    in_turn = laid.split is None and _runs_in_turn(laid.like)
    return map(list, zip(*[mapped(f, row, in_turn) for row in rows], strict=True))


def buckets_of(
    leaves: list, slots: dict[int, list], ps: list, modes: list, together: bool
) -> list[tuple[list[int], Bucket]]:
    """The leaves, perhaps in boxes, that have slots, in buckets for `over_matrices`, with their places.

    Unless they are to be `together`, each has one of its own where matrices run in turn: products and decompositions
    cost a CPU's compiler less than to take their results out of an array.
    """
    alike: dict[Any, list[int]] = {}
    for i, row in slots.items():
        g, split = opened(leaves[i]), carried_split(leaves[i])
        own = None if together or split is not None or not _runs_in_turn(jnp.asarray(g)) else i
        alike.setdefault((looks_of(g, row, ps[i]), modes[i], split, own), []).append(i)

    def bucket(at: list[int]) -> Bucket:
        rows = [opened(leaves[i]) for i in at], [slots[i] for i in at], [ps[i] for i in at]
        return Bucket(*rows, modes[at[0]], split=carried_split(leaves[at[0]]))

    return [(at, bucket(at)) for at in alike.values()]


def looks_of(g: Any, slots: Any, p: Any) -> tuple:
    """What parameters in one bucket have in common, besides modes and boxes: their types."""
    return tuple([jax.typeof(jnp.asarray(x)) for x in jax.tree.leaves((g, slots, p))])


def _enter(rule: Any, t: Any) -> Callable[..., tuple]:
    """`rule.enter`, which works on single elements: its result, and the new values of the slots that it takes."""

    def enter(g: jax.Array, slots: list, p: Any) -> tuple[Any, list]:
        for slot in slots:
            check_made_for(slot, g.shape)
        if rule.enter is None:
            return g, []
        x, new = rule.enter(g, _bare(slots), p, t)
        return x, [new] if len(slots) == 1 else list(new)

    return enter


def checked(returned: Any, x: jax.Array, slots: list) -> tuple[Any, list]:
    """What a rule returned for a matrix x with these slots: the update, and the new slots as a list.

    The kernels have the checks of rules on arrays inline: a call for each leaf counts there.
    """
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise TypeError("update must return the update and the new slots, (u, slots)")
    u, new = returned
    if jax.tree.structure(new) != jax.tree.structure(_bare(slots)):
        raise TypeError(f"update must return new slots like the old, {len(slots)} of them")
    if jnp.shape(u) != x.shape:
        raise ValueError(f"the gradient has shape {x.shape}, but the update has shape {jnp.shape(u)}")
    return u, [new] if len(slots) == 1 else list(new)


class _Entries:
    """Hyperparameters, and what is shared, of which some have an entry for each parameter of a stack.

    Attributes:
      each: those entries, an array for each of them with an element for each matrix.
      rest: all others, in the order of the tree.
      first: all of them for the first matrix.
      by_element: all of them, such that they go with the elements of a parameter.
    """

    def __init__(self, tree: Any, alike: Bucket, shape: tuple[int, ...]):
        self.leaves, self.treedef = jax.tree.flatten(tree, is_leaf=is_stacked)
        stacked = [x.value for x in self.leaves if is_stacked(x)]
        self.rest = [x for x in self.leaves if not is_stacked(x)]
        stack, lead = stack_axes(alike.role, len(shape)), alike.modes.lead(len(shape))
        at = [i for i, axis in enumerate(lead) if axis not in stack]
        others = [i for i in range(len(shape)) if i not in stack]
        self.each = [jnp.broadcast_to(jnp.expand_dims(x, at), [shape[i] for i in lead]).reshape(-1) for x in stacked]
        self.first = self.put([x[0] for x in self.each])
        self.by_element = self.put([jnp.expand_dims(x, others) for x in stacked])

    def put(self, each: list, rest: list | None = None) -> Any:
        """The tree, with these in place of the entries, and of the rest."""
        stacked, others = iter(each), iter(self.rest if rest is None else rest)
        return jax.tree.unflatten(self.treedef, [next(stacked if is_stacked(x) else others) for x in self.leaves])


def _bare(xs: Any) -> Any:
    """One as it is, several as a tuple: as rules get and return them."""
    return xs[0] if len(xs) == 1 else tuple(xs)


def _side_by_side(rows: Any) -> Any:
    """Trees of arrays that are alike as one tree of arrays with an axis more, the first."""
    if len(rows) == 1:
        return jax.tree.map(lambda x: x[None], rows[0])
    return jax.tree.map(lambda *xs: jnp.stack(xs), *rows)


def _apart(tree: Any, count: int) -> list:
    """`_side_by_side` undone."""
    leaves, treedef = jax.tree.flatten(tree)
    rows = zip(*[_rows(x, count) for x in leaves], strict=True) if leaves else [()] * count
    return [treedef.unflatten(row) for row in rows]


def _rows(x: jax.Array, count: int) -> list[jax.Array]:
    """The entries along the first axis.

    Many are taken in two steps. For a compiler, a part at another place is another program, so that n parts would be n
    programs; parts at the same place of equal arrays are one.
    """
    if count > 20:
        width = math.isqrt(count - 1) + 1
        sizes = [min(width, count - at) for at in range(0, count, width)]
        parts = jax.lax.optimization_barrier(jax.lax.split(x, sizes, 0))
        return [row for part, size in zip(parts, sizes, strict=True) for row in _rows(part, size)]
    return [jax.lax.squeeze(row, (0,)) for row in (jax.lax.split(x, (1,) * count, 0) if count > 1 else (x,))]


def _shifted(split: Split | None, ndim: int) -> Split | None:
    """The split of parameters of this rank that lie side by side; None where they are not split."""
    return None if split is None or not split.names else Split(split.names, ((), *split.of_each(ndim)))


def _owns(rule: Any, alike: Bucket, shape: tuple[int, ...], dtype: Any) -> list[bool]:
    """For each slot whether it lies as the parameter does, by what `init` makes for matrices of this parameter."""

    def of(shape: tuple[int, ...]) -> list[bool]:
        like = jax.ShapeDtypeStruct(shape, dtype)
        made = jax.eval_shape(lambda p: slots_of_one(rule, p, alike.role, ndim), like)
        return [getattr(x, "shape", None) == shape for x in made]

    ndim = len(shape)
    return [all(column) for column in zip(*map(of, alike.modes.shapes(shape)), strict=True)]


def _runs_in_turn(g: jax.Array) -> bool:
    """Whether the matrices of a bucket run in turn, as on a CPU; not where their parts lie on many devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() == "cpu" and explicit_sharding(g) is None and AxisType.Auto not in mesh.axis_types

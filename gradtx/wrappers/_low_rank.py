# SPDX-License-Identifier: Apache-2.0
"""Running an optimizer on gradients projected to few rows or columns: GaLore, and what Fira and APOLLO share."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._branching import branch
from gradtx.core._buckets import Bucket, buckets_of, over_matrices
from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import real_dtype, widened_dtype
from gradtx.core._factory import transformation
from gradtx.core._matrices import Modes, modes_of
from gradtx.core._over_devices import WHOLE, whole_shape_of
from gradtx.core._placement import laid_like
from gradtx.core._ranges import NonNegativeInt, PositiveInt, Real
from gradtx.core._roles import Boxed, Role, carried_role, carried_split, closed, is_box, opened, unboxed
from gradtx.core._said import check_said
from gradtx.core._stacks import stack_axes
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import align, check_shapes, check_state, is_hole, is_leaf
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._projected import Projection, limit_growth, projection_of
from gradtx.numerics._safe import safe_divide


class GaLoreState(NamedTuple):
    """The number of updates made, the inner state, and P of each matrix (None if P is random).

    Of a stack, P and the slots of the inner state have the axes of the stack in front, then those of heads.
    """

    count: jax.Array
    base_optimizer_state: OptState
    projector: Updates

    def eval_params(self, params: Params) -> Params:
        """The parameters themselves: an average in the inner state would have the shapes of the subspace."""
        return params


class LowRankState(NamedTuple):
    """As `GaLoreState`, and for each matrix the norm of the last update outside of the subspace."""

    count: jax.Array
    base_optimizer_state: OptState
    projector: Updates
    norm: Updates

    eval_params = GaLoreState.eval_params


@transformation
def low_rank(
    inner: Transformation,
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    projection: Literal["svd", "random"] = "svd",
    side: Literal["larger", "smaller"] = "smaller",
    seed: NonNegativeInt = 0,
) -> GradientTransformationExtraArgs:
    """GaLore: runs `inner` on R = Pᵀg for every matrix, and on g for all other parameters:

    ```
    u = scale P inner(Pᵀg)
    ```

    `scale_by_fira` and `scale_by_apollo` run an optimizer on R too and make updates of full rank from it.

    Args:
      inner: a stage without learning rate; the parameters that it sees are Pᵀp.
      rank: the number of columns of P, at most the smaller side of the matrix.
      update_proj_gap: the number of steps after which P is computed anew.
      scale: a factor of u for matrices.
      weight_dimension_numbers: a tree of `GaLoreDimensionNumbers` like the parameters or a prefix of it, with None for
        a parameter that is not a matrix; or a function from the parameters to such a tree. None alone reads the axes
        off the roles, and treats all other parameters with two axes as matrices.
      projection: "svd" for the leading singular vectors of g, or "random" for normal numbers of variance 1 / rank,
        which are not stored but drawn from the seed, the number of redraws and the position of the parameter: no two
        parameters share a P, its heads and blocks do. Those of a stack have the same as leaves of their own.
      side: which side of a matrix P acts on.

    Reference: Zhao et al. 2024, arXiv:2403.03507.
    """

    how = Projecting(rank, side, None if projection == "svd" else seed)
    return on_projections(
        "low_rank", inner, _galore, GaLoreState, how, update_proj_gap, scale, weight_dimension_numbers
    )


class Projecting(NamedTuple):
    """What is the same for all matrices: see `low_rank` and `scale_by_fira`. The seed is None for singular vectors."""

    rank: int
    side: str
    seed: int | None
    scaling: str = "channel"

    def of(self, shape: tuple[int, ...]) -> Projection:
        """The projection of a matrix of this shape."""
        return projection_of(shape, self.rank, self.side == "larger")


class Projected(NamedTuple):
    """A matrix at one step: its gradient g, P, R = Pᵀg, N, which the inner optimizer made of R, the norm remembered."""

    how: Projecting
    growth: Any
    g: jax.Array
    basis: jax.Array
    low: jax.Array
    new: jax.Array
    norm: Any = None

    def back(self, low: jax.Array) -> jax.Array:
        """P times a matrix in the subspace."""
        return self.how.of(self.g.shape).back(low, self.basis)

    def gain(self) -> jax.Array:
        """‖N‖ / ‖R‖ of each channel (line of R along the side that is not projected) or of the whole matrix."""
        view, each = self.how.of(self.g.shape), self.how.scaling == "channel"
        return safe_divide(view.norms(self.new, each), view.norms(self.low, each))

    def limited(self, x: jax.Array) -> tuple[jax.Array, list]:
        """x, whose norm is at most `growth` times the one remembered, and its norm to remember."""
        limited, norm = limit_growth(x, self.norm, self.growth)
        return limited, [norm]


def _galore(m: Projected) -> tuple[jax.Array, list]:
    return m.back(m.new), []


def on_projections(
    where: str,
    inner: Transformation,
    update_of: Callable[[Projected], tuple[jax.Array, list]],
    state_type: type,
    how: Projecting,
    update_proj_gap: Any,
    scale: Any,
    weight_dimension_numbers: Any,
    growth: Any = None,
) -> GradientTransformationExtraArgs:
    """What GaLore, Fira and APOLLO share: `inner` runs on R for every matrix, on g for everything else.

    Args:
      update_of: a function of a module, which makes of a `Projected` its update without `scale`, and a list of the norm
        to remember; with `GaLoreState` it is empty.
    """
    tx, remembers = as_inner(f"{where}: inner", inner), state_type is LowRankState

    def modes_in(tree: Any) -> list:
        return modes_of(where, weight_dimension_numbers, tree, "none")

    def init(params: Params) -> OptState:
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_leaf)
        rows = [_first(how, x, modes) for x, modes in zip(leaves, modes_in(params), strict=True)]
        basis, low, norm = (treedef.unflatten([row[k] for row in rows]) for k in range(3))
        fields = jnp.zeros([], jnp.int32), tx.init(low), basis if how.seed is None else None
        return state_type(*fields, *[norm] * remembers)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state(where, state, state_type)
        check_said(where, params)
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_leaf)

        def column(tree: Any, name: str) -> list:
            return list(align(treedef, tree, where, name, updates, "the gradients"))

        gs, ps = list(map(opened, leaves)), [None] * len(leaves)
        if params is not None:
            ps = column(params, "the parameters")
            check_shapes(where, "gradient", updates, gs, list(map(opened, ps)))
        modes: list[Any] = [None if is_hole(g) else m for g, m in zip(gs, modes_in(updates), strict=True)]
        matrices = [i for i, found in enumerate(modes) if found is not None]
        if how.seed is None:
            known: list[Any] = column(state.projector, "the state's projector")
        else:
            counts = column(jax.tree.map(_parameters_in, updates if params is None else params, is_leaf=is_leaf), "")
            known = list(itertools.accumulate([sum(jax.tree.leaves(n)) for n in counts], initial=0))
            for i in matrices:
                known[i] = _numbers(known[i], leaves[i], modes[i])
        buckets = buckets_of(
            leaves, {i: [known[i]] for i in matrices}, list(map(opened, ps)), modes, how.seed is not None
        )

        low, kept = list(leaves), []
        for at, bucket in buckets:
            rows, stacks = _down(how, bucket, state.count // update_proj_gap, state.count % update_proj_gap == 0)
            kept.append(stacks)
            for i, (basis, r, p) in zip(at, rows, strict=True):
                low[i], ps[i] = _in_boxes(leaves[i], modes[i], r), _in_boxes(leaves[i], modes[i], p)
                known[i] = None if how.seed is not None else _stored(basis, known[i])
        seen = None if params is None else treedef.unflatten(ps)
        new, inner_state = tx.update(treedef.unflatten(low), state.base_optimizer_state, seen, **extra)

        new = column(new, "the updates of inner")
        norms = [column(state.norm, "the state's norm")] if remembers else []
        for (at, bucket), stacks in zip(buckets, kept, strict=True):
            slots = [[unboxed(new[i]), *[norm[i] for norm in norms]] for i in at]
            us, rows = _up(how, update_of, dataclasses.replace(bucket, slots=slots), stacks, scale, growth)
            for i, u, found in zip(at, us, rows, strict=True):
                new[i] = closed(leaves[i], u)
                for norm, x in zip(norms, found, strict=True):
                    norm[i] = _stored(x, norm[i])
        projector = treedef.unflatten(known) if how.seed is None else None
        fields = (safe_increment(state.count), inner_state, projector, *map(treedef.unflatten, norms))
        return treedef.unflatten(new), state_type(*fields)

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"base_optimizer_state": (inner, state.base_optimizer_state)}, gathers=True
    )


@functools.partial(jax.jit, static_argnums=0)
def _down(how: Projecting, bucket: Bucket, redraws: jax.Array, is_first: jax.Array) -> tuple[list, list]:
    """P, R and Pᵀp of the parameters of a bucket, and g, P and R for `_up`.

    The slots are the old P, or the number of the parameter if P is random and need not be returned.
    """

    def one(kept: tuple, g: jax.Array, slots: list, p: Any) -> tuple:
        (known,), view = slots, how.of(g.shape)
        if how.seed is None:
            basis = branch(is_first, lambda: view.leading_vectors(g), lambda: known.astype(g.dtype))
        else:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(how.seed), redraws), known)
            basis = view.random_vectors(key, g.shape, real_dtype(g.dtype))
        low = view.low(g, basis)
        shown = basis if how.seed is None else None
        return None, [shown, low, p if p is None else view.low(p, basis)], (g, basis, low)

    _, rows, kept = over_matrices(one, bucket)
    return rows, kept


@functools.partial(jax.jit, static_argnums=(0, 1))
def _up(how: Projecting, update_of: Any, bucket: Bucket, kept: list, scale: Any, growth: Any) -> tuple[list, list]:
    """The updates of the parameters of a bucket and what to remember; the slots are N and what was remembered."""

    def one(kept: tuple, g: jax.Array, slots: list, p: Any) -> tuple:
        u, norms = update_of(Projected(how, growth, *kept, *slots))
        return jnp.asarray(scale, real_dtype(u.dtype)) * u, norms, ()

    return over_matrices(one, bucket, kept)[:2]


def _first(how: Projecting, leaf: Any, modes: Modes | None) -> tuple:
    """P, R and the norm of a parameter, all 0; of one that is no matrix an empty P, and itself in place of R."""
    if opened(leaf) is None:
        return None, leaf, None
    p = jnp.asarray(opened(leaf))
    dtype = widened_dtype(p)
    if modes is None:
        return jnp.zeros((0, 0), dtype), leaf, jnp.zeros([], real_dtype(dtype))
    shape = whole_shape_of(p.shape, carried_split(leaf))
    lead = [shape[a] for a in modes.lead(p.ndim)]
    made = [[jnp.zeros((*lead, *x), dtype) for x in (*how.of(s).shapes(s), ())] for s in modes.shapes(shape)]
    basis, low, norm = zip(*made, strict=True) if modes.blocks else made[0]
    return basis, _in_boxes(leaf, modes, low), jax.tree.map(jnp.real, norm)


def _in_boxes(leaf: Any, modes: Modes, low: Any) -> Any:
    """R of a parameter in boxes like its own: its matrices are stacked in front, and whole on each device."""
    if not is_box(leaf):
        return low
    role, group, split = leaf.role, leaf.group, leaf.split and WHOLE
    if role is not None:
        role = Role(role.kind, tuple(range(len(modes.lead(jnp.ndim(leaf.value))))))
    if isinstance(group, tuple):
        group = tuple(_of_matrices(group, leaf, modes).ravel().tolist())
    return jax.tree.map(lambda x: Boxed(x, role, group, split), low)


def _parameters_in(leaf: Any) -> int:
    """The number of parameters in a stack; 1 for what is none."""
    shape = jnp.shape(opened(leaf)) if opened(leaf) is not None else ()
    shape = whole_shape_of(shape, carried_split(leaf))
    return math.prod(shape[a] for a in stack_axes(carried_role(leaf), len(shape)))


def _numbers(first: int, leaf: Any, modes: Modes) -> Any:
    """For each matrix the number of its parameter, if the first one in the stack has this number."""
    each = _of_matrices(first + np.arange(_parameters_in(leaf)), leaf, modes).astype(np.int32)
    return (each,) * len(modes.blocks) or each


def _of_matrices(each: Any, leaf: Any, modes: Modes) -> np.ndarray:
    """What is said of each parameter of a stack, for each matrix, along the axes that stack these."""
    shape = whole_shape_of(jnp.shape(opened(leaf)), carried_split(leaf))
    lead, stack = modes.lead(len(shape)), stack_axes(carried_role(leaf), len(shape))
    sizes, others = [shape[a] for a in stack], tuple(i for i, a in enumerate(lead) if a not in stack)
    return np.broadcast_to(np.expand_dims(np.reshape(each, sizes), others), [shape[a] for a in lead])


def _stored(new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: laid_like(n.astype(o.dtype), o), new, old)

# SPDX-License-Identifier: Apache-2.0
"""Running an optimizer on gradients that are projected to few rows or columns: the loop that GaLore and its kin share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.counts import safe_increment
from gradtx.core.dtypes import complex_dtype, compute_dtype, promotion, widen
from gradtx.core.ranges import is_number
from gradtx.core.transformation import (
    GradientTransformationExtraArgs,
    check_transformation,
    with_extra_args_support,
)
from gradtx.core.trees import align, check_shapes, is_hole, is_none, paths
from gradtx.core.types import OptState, Params, Updates
from gradtx.numerics.low_rank import (
    MatrixView,
    from_matrix,
    leading_vectors,
    matrix_view,
    norms,
    project,
    random_projector,
    to_matrix,
)


class GaLoreDimensionNumbers(NamedTuple):
    """Which axes of a tensor are the rows of its matrix, and which the columns."""

    reduction_axis: tuple[int, ...] | int = 0
    output_axis: tuple[int, ...] | int = 1


class Projected(NamedTuple):
    """One parameter at one step: its gradient as a matrix G, the projector P, R = PᴴG, and what became of R."""

    view: MatrixView
    g: jax.Array
    projector: jax.Array
    before: jax.Array
    after: jax.Array
    norm: jax.Array | None

    def alike(self, x: Any) -> Any:
        """A hyperparameter in the dtype of the arithmetic; Python numbers stay, to be folded in double."""
        return x if is_number(x) else jnp.asarray(x, compute_dtype(self.g))

    def amplification(self, channels: bool) -> jax.Array:
        """‖N‖ / ‖R‖ of each channel or of the whole matrix, in a shape that multiplies G; 0 where R is 0."""
        size = norms(self.before, self.view, channels)
        return jnp.where(size > 0, norms(self.after, self.view, channels) / jnp.where(size > 0, size, 1), 0)


def low_rank(
    name: str,
    base: Any,
    state_type: type,
    finish: Callable[[Projected], tuple[jax.Array, Any]],
    *,
    rank: int,
    gap: int,
    larger: bool,
    numbers: Any,
    seed: int | None = None,
) -> GradientTransformationExtraArgs:
    """Runs `base` on R for every matrix and on g for everything else; `finish` makes (u, norm) of the result.

    P is made at the first step and after every `gap` steps: of singular vectors of G, or with a `seed` of random
    numbers, which are drawn again at each step and not stored. The fields of the state say what is remembered:
    `projector`, and `norm`, a scalar for each parameter that belongs to `finish`.
    """
    tx = with_extra_args_support(check_transformation(f"{name}: base_optimizer", base))
    fields = state_type._fields  # type: ignore[attr-defined]  # a named tuple class

    def init(params: Params) -> OptState:
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        rows = [_init_leaf(p, view) for p, view in zip(leaves, _views(name, numbers, params, rank, larger), strict=True)]
        low, projectors, sizes = (treedef.unflatten([row[k] for row in rows]) for k in range(3))
        remembered = {"projector": projectors, "norm": sizes}
        return state_type(
            count=jnp.zeros([], jnp.int32),
            base_optimizer_state=tx.init(low),
            **{n: x for n, x in remembered.items() if n in fields},
        )

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        if getattr(state, "_fields", None) != fields:
            raise TypeError(
                f"{name}: state must be the {state_type.__name__} that init or the last update returned, "
                f"got {type(state).__name__}; the order is update(updates, state, params)"
            )
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)

        def column(tree: Any, what: str) -> list:
            return align(treedef, tree, name, what, updates, "the gradients")

        views = {i: v for i, v in enumerate(_views(name, numbers, updates, rank, larger)) if v is not None}
        matrices = {i: to_matrix(_wide(leaves[i]), v) for i, v in views.items()}
        stored = {n: column(getattr(state, n), f"the state's {n}") for n in ("projector", "norm") if n in fields}
        projectors = _projectors(matrices, views, stored.get("projector"), state.count, gap, seed)
        low, low_params = _replaced(leaves, matrices, views, projectors), None
        if params is not None:
            ps = column(params, "the parameters")
            check_shapes(name, "gradient", updates, leaves, ps)
            wide = {i: to_matrix(_wide(ps[i]), v) for i, v in views.items()}
            low_params = treedef.unflatten(_replaced(ps, wide, views, projectors))

        low_updates, base_state = tx.update(treedef.unflatten(low), state.base_optimizer_state, low_params, **extra)
        new = column(low_updates, "the updates of base_optimizer")
        for i, g in matrices.items():
            norm = stored["norm"][i] if "norm" in fields else None
            with promotion(g):
                u, norm = finish(Projected(views[i], g, projectors[i], low[i], new[i], norm))
            new[i] = from_matrix(u, views[i])
            for n, x in (("projector", projectors[i]), ("norm", norm)):
                if n in fields:
                    stored[n][i] = x.astype(stored[n][i].dtype)
        return treedef.unflatten(new), state._replace(
            count=safe_increment(state.count),
            base_optimizer_state=base_state,
            **{n: treedef.unflatten(values) for n, values in stored.items()},
        )

    return GradientTransformationExtraArgs(init, update)


def _init_leaf(p: Any, view: MatrixView | None) -> tuple:
    """What `base` is initialized with, the projector and the norm of one parameter."""
    if p is None:
        return None, None, None
    p = jnp.asarray(p)
    dtype = compute_dtype(p)
    norm = jnp.zeros([], dtype)
    if view is None:
        return p, jnp.zeros((0, 0), dtype), norm
    kind = complex_dtype(dtype) if jnp.iscomplexobj(p) else dtype
    return jnp.zeros(view.low_shape, kind), jnp.zeros(view.projector_shape, kind), norm


def _wide(x: Any) -> jax.Array:
    return widen(x, compute_dtype(jnp.asarray(x)))


def _replaced(leaves: list, matrices: dict, views: dict, projectors: dict) -> list:
    """The leaves with the matrices among them projected."""
    low = list(leaves)
    for i, matrix in matrices.items():
        with promotion(matrix):
            low[i] = project(matrix, projectors[i], views[i])
    return low


def _projectors(matrices: dict, views: dict, stored: list | None, count: jax.Array, gap: int, seed: int | None) -> dict:
    """The projector of each matrix at this step."""
    if seed is not None:
        key = jax.random.fold_in(jax.random.key(seed), count // gap)
        return {
            i: random_projector(jax.random.fold_in(key, i), views[i], compute_dtype(g)) for i, g in matrices.items()
        }
    assert stored is not None
    kept = {i: stored[i].astype(g.dtype) for i, g in matrices.items()}
    if not matrices:
        return kept

    def refreshed(matrices: dict, kept: dict) -> dict:
        return {i: leading_vectors(g, views[i]) for i, g in matrices.items()}

    return jax.lax.cond(count % gap == 0, refreshed, lambda matrices, kept: kept, matrices, kept)


def _views(name: str, numbers: Any, tree: Any, rank: int, larger: bool) -> list[MatrixView | None]:
    """The matrix view of each leaf of a tree of parameters or gradients; None where it is not projected."""
    leaves = jax.tree.leaves(tree, is_leaf=is_none)
    if numbers is None:
        specs = [GaLoreDimensionNumbers() if jnp.ndim(x) == 2 and x is not None else None for x in leaves]
    else:
        specs = _specs(name, numbers(tree) if callable(numbers) else numbers, tree)
    where = paths(tree)
    return [
        None if spec is None or is_hole(x) else _view(f"{name}: at {path}", spec, jnp.shape(x), rank, larger)
        for spec, x, path in zip(specs, leaves, where, strict=True)
    ]


def _specs(name: str, numbers: Any, tree: Any) -> list[GaLoreDimensionNumbers | None]:
    """The dimension numbers of each leaf, from a tree of them that is the tree's structure or a prefix of it."""
    flat, treedef = jax.tree.flatten(numbers, is_leaf=lambda x: x is None or isinstance(x, GaLoreDimensionNumbers))
    for spec in flat:
        if spec is not None and not isinstance(spec, GaLoreDimensionNumbers):
            raise TypeError(f"{name}: weight_dimension_numbers must hold GaLoreDimensionNumbers or None, got {spec!r}")
    parts = align(treedef, tree, name, "the gradients", numbers, "weight_dimension_numbers")
    return [spec for spec, part in zip(flat, parts, strict=True) for _ in jax.tree.leaves(part, is_leaf=is_none)]


def _view(where: str, spec: GaLoreDimensionNumbers, shape: tuple, rank: int, larger: bool) -> MatrixView | None:
    rows, columns = (
        tuple(i + len(shape) if i < 0 else i for i in ((axes,) if isinstance(axes, int) else axes)) for axes in spec
    )
    if sorted((*rows, *columns)) != list(range(len(shape))):
        raise ValueError(f"{where}: {spec} must name each axis of the shape {shape} once")
    return matrix_view(shape, rows, columns, rank, larger)

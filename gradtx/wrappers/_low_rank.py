# SPDX-License-Identifier: Apache-2.0
"""Running an optimizer on gradients projected to few rows or columns: the wrapper behind GaLore, Fira and APOLLO."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._ranges import NonNegativeInt, Positive, PositiveInt, Real
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import align, check_shapes, check_state, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._projected import (
    MatrixView,
    from_matrix,
    leading_vectors,
    limit_growth,
    matrix_views,
    norms,
    project,
    project_back,
    random_projector,
    to_matrix,
)
from gradtx.numerics._safe import safe_divide
from gradtx.wrappers._unstacking import on_parts


class GaLoreState(NamedTuple):
    """The number of updates made, the state of the inner optimizer, and P of each matrix (None for random ones)."""

    count: jax.Array
    base_optimizer_state: OptState
    projector: Updates

    def eval_params(self, params: Params) -> Params:
        """The parameters: what the inner state may answer with has the shapes of the subspace."""
        return params


class LowRankState(NamedTuple):
    """The same, and for each parameter the norm of what was last added outside of the subspace."""

    count: jax.Array
    base_optimizer_state: OptState
    projector: Updates
    norm: Updates

    eval_params = GaLoreState.eval_params


@transformation
def low_rank(
    inner: Any,
    rank: PositiveInt = 128,
    update_proj_gap: PositiveInt = 200,
    scale: Real = 1.0,
    weight_dimension_numbers: Any | Callable[[Params], Any] = None,
    *,
    method: Literal["projected", "completed", "scaled"] = "projected",
    projection: Literal["svd", "random"] = "svd",
    side: Literal["larger", "smaller"] = "smaller",
    scaling: Literal["channel", "tensor"] = "channel",
    growth: Positive = 1.01,
    seed: NonNegativeInt = 0,
) -> GradientTransformationExtraArgs:
    """Runs `inner` on R = Pᵀg for every matrix, N = inner(R), and on g for everything else:

    ```
    projected: u = P N                                   (GaLore)
    completed: u = P N + limit((g - P R) ‖N‖ / ‖R‖)      (Fira)
    scaled:    u = limit(g ‖N‖ / ‖R‖)                    (APOLLO)      limit(x) = x min(1, growth ‖x before‖ / ‖x‖)
    ```

    Args:
      inner: a stage without learning rate. If it asks for parameters, it sees Pᵀp.
      update_proj_gap: P is new at the first step and every so many steps.
      scale: a factor of u where there is a P.
      weight_dimension_numbers: a tree of `GaLoreDimensionNumbers` like the parameters (or a prefix, or a function from
        them to it), with None for what is no matrix. By default all tensors with two axes are.
      projection: the leading singular vectors of g, or normal numbers of variance 1 / rank, which are not stored: they
        are drawn from the seed, the number of redraws and the number of the leaf.
      side: which side of a matrix P acts on.
      scaling: whether norms are taken of each channel (line of R along the other side) or of the whole matrix.
    """
    tx = as_inner("low_rank: inner", inner)
    state_type = GaLoreState if method == "projected" else LowRankState

    def views_of(tree: Any) -> dict[int, MatrixView]:
        return matrix_views("low_rank", weight_dimension_numbers, tree, rank, side == "larger")

    def init(params: Params) -> OptState:
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        views = views_of(params)
        low = [_zeros(p, views[i].low_shape) if i in views else p for i, p in enumerate(leaves)]
        state = state_type._make([None] * len(state_type._fields))
        state = state._replace(count=jnp.zeros([], jnp.int32), base_optimizer_state=tx.init(treedef.unflatten(low)))
        if projection == "svd":
            shapes = [views[i].projector_shape if i in views else (0, 0) for i in range(len(leaves))]
            state = state._replace(projector=treedef.unflatten(map(_zeros, leaves, shapes)))
        if method != "projected":
            zero = treedef.unflatten(map(_zeros, leaves))
            state = state._replace(norm=jax.tree.map(jnp.real, zero))  # type: ignore[call-arg]  # this class has it
        return state

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("low_rank", state, state_type)
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)

        def column(tree: Any, name: str) -> list:
            return align(treedef, tree, "low_rank", name, updates, "the gradients")

        views = views_of(updates)
        matrices = {i: to_matrix(_wide(leaves[i]), view) for i, view in views.items()}
        stored = column(state.projector, "the state's projector") if projection == "svd" else []
        projectors = refreshed(matrices, stored, views, state.count) if stored else drawn(matrices, views, state.count)
        low, low_params = projected(leaves, matrices, projectors, views), None
        if params is not None:
            ps = column(params, "the parameters")
            check_shapes("low_rank", "gradient", updates, leaves, ps)
            wide = {i: to_matrix(_wide(ps[i]), view) for i, view in views.items()}
            low_params = treedef.unflatten(projected(ps, wide, projectors, views))

        low_updates, inner_state = tx.update(treedef.unflatten(low), state.base_optimizer_state, low_params, **extra)
        new = column(low_updates, "the updates of inner")
        sizes = column(state.norm, "the state's norm") if state_type is LowRankState else [None] * len(leaves)
        for i, g in matrices.items():
            with promotion(g):
                u, sizes[i] = finished(views[i], g, projectors[i], low[i], new[i], sizes[i])
            new[i] = from_matrix(u, views[i])
            if stored:
                stored[i] = projectors[i].astype(stored[i].dtype)
        state = state._replace(count=safe_increment(state.count), base_optimizer_state=inner_state)
        if stored:
            state = state._replace(projector=treedef.unflatten(stored))
        if state_type is LowRankState:
            state = state._replace(norm=treedef.unflatten(sizes))
        return treedef.unflatten(new), state

    def refreshed(matrices: dict, stored: list, views: dict, count: jax.Array) -> dict:
        kept = {i: stored[i].astype(g.dtype) for i, g in matrices.items()}

        def anew(kept: dict) -> dict:
            return {i: leading_vectors(g, views[i]) for i, g in matrices.items()}

        return jax.lax.cond(count % update_proj_gap == 0, anew, lambda kept: kept, kept)

    def drawn(matrices: dict, views: dict, count: jax.Array) -> dict:
        key = jax.random.fold_in(jax.random.key(seed), count // update_proj_gap)
        keys = {i: jax.random.fold_in(key, i) for i in matrices}
        return {i: random_projector(keys[i], views[i], _real(g)) for i, g in matrices.items()}

    def finished(view: MatrixView, g: jax.Array, basis: jax.Array, low: jax.Array, new: jax.Array, norm: Any) -> tuple:
        factor, limit = jnp.asarray(scale, _real(g)), jnp.asarray(growth, _real(g))
        if method == "projected":
            return factor * project_back(new, basis, view), norm
        channels = scaling == "channel"
        amplification = safe_divide(norms(new, view, channels), norms(low, view, channels))
        rest = g if method == "scaled" else g - project_back(low, basis, view)
        rest, size = limit_growth(rest * amplification, norm, limit)
        u = rest if method == "scaled" else project_back(new, basis, view) + rest
        return factor * u, size.astype(norm.dtype)

    pair = on_parts(init, update, keep_axes=False)  # R has other axes
    return GradientTransformationExtraArgs(
        *pair, parts=lambda state: {"base_optimizer_state": (inner, state.base_optimizer_state)}
    )


def projected(leaves: list, matrices: dict, projectors: dict, views: dict) -> list:
    """The leaves, with R for the matrices among them."""
    low = list(leaves)
    for i, matrix in matrices.items():
        with promotion(matrix):
            low[i] = project(matrix, projectors[i], views[i])
    return low


def _zeros(p: Any, shape: tuple = ()) -> Any:
    """Zeros in the dtype of the arithmetic; None for None."""
    return p if p is None else jnp.zeros(shape, _wide(p).dtype)


def _real(x: Any) -> Any:
    return compute_dtype(jnp.asarray(x))


def _wide(x: Any) -> jax.Array:
    return widen(x, _real(x))

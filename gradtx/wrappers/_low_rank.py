# SPDX-License-Identifier: Apache-2.0
"""Running an optimizer on gradients projected to few rows or columns: GaLore, and what Fira and APOLLO share."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._placement import laid_like, replicated
from gradtx.core._ranges import NonNegativeInt, PositiveInt, Real
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import align, check_shapes, check_state, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.core._wholes import on_wholes
from gradtx.numerics._projected import (
    MatrixView,
    from_matrix,
    leading_vectors,
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
    """The number of updates made, the inner state, and P of each matrix (None if P is random)."""

    count: jax.Array
    base_optimizer_state: OptState
    projector: Updates

    def eval_params(self, params: Params) -> Params:
        """The parameters themselves: an average in the inner state would have the shapes of the subspace."""
        return params


class LowRankState(NamedTuple):
    """As `GaLoreState`, and for each parameter the norm of the last update outside of the subspace."""

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
        a parameter that is not a matrix; or a function from the parameters to such a tree. None alone treats all
        parameters with two axes as matrices.
      projection: "svd" for the leading singular vectors of g, or "random" for normal numbers of variance 1 / rank,
        which are not stored but drawn from the seed, the number of redraws and the position of the leaf.
      side: which side of a matrix P acts on.

    Reference: Zhao et al. 2024, arXiv:2403.03507.
    """

    def update_of(m: Projected, size: None) -> tuple[jax.Array, None]:
        return m.back(m.new), None

    numbers, source = weight_dimension_numbers, None if projection == "svd" else seed
    return on_projections(
        "low_rank", inner, update_of, GaLoreState, rank, update_proj_gap, scale, numbers, side=side, seed=source
    )


class Projected(NamedTuple):
    """A matrix at one step: how to see it, its gradient g, P, R = Pᵀg and N, which the inner optimizer made of R."""

    view: MatrixView
    g: jax.Array
    basis: jax.Array
    low: jax.Array
    new: jax.Array

    def back(self, low: jax.Array) -> jax.Array:
        """P times a matrix in the subspace."""
        return project_back(low, self.basis, self.view)

    def gain(self, scaling: str) -> jax.Array:
        """‖N‖ / ‖R‖ of each channel (line of R along the side that is not projected) or of the whole matrix."""
        each = scaling == "channel"
        return safe_divide(norms(self.new, self.view, each), norms(self.low, self.view, each))


def on_projections(
    where: str,
    inner: Any,
    update_of: Callable[[Projected, Any], tuple[jax.Array, Any]],
    state_type: type,
    rank: Any,
    update_proj_gap: Any,
    scale: Any,
    weight_dimension_numbers: Any,
    *,
    side: str,
    seed: int | None,
) -> GradientTransformationExtraArgs:
    """What GaLore, Fira and APOLLO share: `inner` runs on R for every matrix, on g for everything else.

    Args:
      update_of: makes of a `Projected` its update without `scale`, and a norm to remember, from the norm of the step
        before. With `GaLoreState` both norms are None.
      seed: of random projections; None for singular vectors, which are stored.
    """
    tx = as_inner(f"{where}: inner", inner)

    def views_of(tree: Any) -> dict[int, MatrixView]:
        return matrix_views(where, weight_dimension_numbers, tree, rank, side == "larger")

    def init(params: Params) -> OptState:
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        views = views_of(params)
        low = [_zeros(p, views[i].low_shape) if i in views else p for i, p in enumerate(leaves)]
        shapes = [views[i].projector_shape if i in views else (0, 0) for i in range(len(leaves))]
        projector = treedef.unflatten(map(_zeros, leaves, shapes)) if seed is None else None
        fields = [jnp.zeros([], jnp.int32), tx.init(treedef.unflatten(low)), projector]
        if state_type is LowRankState:
            fields.append(jax.tree.map(jnp.real, treedef.unflatten(map(_zeros, leaves))))
        return state_type(*fields)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state(where, state, state_type)
        check_said(where, params)
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)

        def column(tree: Any, name: str) -> list:
            return align(treedef, tree, where, name, updates, "the gradients")

        views = views_of(updates)
        matrices = _matrices(leaves, views)
        redraws, is_first = state.count // update_proj_gap, state.count % update_proj_gap == 0
        if seed is None:
            stored = column(state.projector, "the state's projector")
            bases = _singular(matrices, views, stored, is_first)
            kept = [laid_like(bases[i].astype(x.dtype), x) if i in bases else x for i, x in enumerate(stored)]
            projector = treedef.unflatten(kept)
        else:
            bases, projector = _random(matrices, views, seed, redraws), None

        low, low_params = _projected(leaves, matrices, bases, views), None
        if params is not None:
            ps = column(params, "the parameters")
            check_shapes(where, "gradient", updates, leaves, ps)
            low_params = treedef.unflatten(_projected(ps, _matrices(ps, views), bases, views))
        new, inner_state = tx.update(treedef.unflatten(low), state.base_optimizer_state, low_params, **extra)

        new = column(new, "the updates of inner")
        sizes = column(state.norm, "the state's norm") if state_type is LowRankState else [None] * len(leaves)
        for i, g in matrices.items():
            with promotion(g):
                u, sizes[i] = update_of(Projected(views[i], g, bases[i], low[i], new[i]), sizes[i])
                new[i] = laid_like(from_matrix(jnp.asarray(scale, compute_dtype(g)) * u, views[i]), leaves[i])
        norm = [treedef.unflatten(sizes)] if state_type is LowRankState else []
        return treedef.unflatten(new), state_type(safe_increment(state.count), inner_state, projector, *norm)

    pair = on_parts(*on_wholes(init, update, views_of), keep_axes=False)  # R has other axes
    return GradientTransformationExtraArgs(
        *pair, parts=lambda state: {"base_optimizer_state": (inner, state.base_optimizer_state)}, gathers=True
    )


def _matrices(leaves: list, views: dict) -> dict[int, jax.Array]:
    # Whole on each device, as decompositions are.
    return {i: to_matrix(replicated(widen(leaves[i])), view) for i, view in views.items()}


def _singular(matrices: dict, views: dict, stored: list, is_first: jax.Array) -> dict:
    """P of each matrix, as stored but at the first step of a period."""
    kept = {i: replicated(stored[i].astype(g.dtype)) for i, g in matrices.items()}

    def anew(kept: dict) -> dict:
        return {i: leading_vectors(g, views[i]) for i, g in matrices.items()}

    return jax.lax.cond(is_first, anew, lambda kept: kept, kept)


def _random(matrices: dict, views: dict, seed: int, redraws: jax.Array) -> dict:
    key = jax.random.fold_in(jax.random.key(seed), redraws)
    return {i: random_projector(jax.random.fold_in(key, i), views[i], compute_dtype(g)) for i, g in matrices.items()}


def _projected(leaves: list, matrices: dict, bases: dict, views: dict) -> list:
    """The leaves, with R in place of the matrices."""
    low = list(leaves)
    for i, matrix in matrices.items():
        with promotion(matrix):
            low[i] = project(matrix, bases[i], views[i])
    return low


def _zeros(p: Any, shape: tuple = ()) -> Any:
    """Zeros in the dtype of the arithmetic; None for None."""
    return p if p is None else jnp.zeros(shape, widen(p).dtype)

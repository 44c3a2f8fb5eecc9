# SPDX-License-Identifier: Apache-2.0
"""The linear assignment problem: which rows to pair with which columns so that the sum of the costs is smallest."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype
from gradtx.core._kinds import ArrayLike


@checked
def hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Pairs of rows i and columns j with the smallest Σ cost_matrix[i, j]: both indices of the pairs, ordered by row.

    Each row and each column is in at most one pair, and there are min(n, m) pairs. Rows first take their cheapest
    column; rows whose cheapest column is taken are assigned by shortest augmenting paths. Works under `jit` and
    `vmap`; the indices have no derivatives.

    Args:
      cost_matrix: of shape (n, m), integers or floats, of any sign. Infinity forbids a pair; if every assignment has
        forbidden pairs, so has the result.

    Raises:
      ValueError: if the argument is not a matrix or, unless it is traced, has a NaN or a minus infinity.

    References: Kuhn 1955; Jonker and Volgenant 1987; Crouse 2016, "On implementing 2D rectangular assignment".
    """
    return _assigned("hungarian_algorithm", cost_matrix, start_greedily=True)


@checked
def base_hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """`hungarian_algorithm` with a shortest augmenting path for every row: simpler and slower.

    Where several assignments are best, the two functions may find different ones.

    Args:
      cost_matrix: as in `hungarian_algorithm`.
    """
    return _assigned("base_hungarian_algorithm", cost_matrix, start_greedily=False)


class _Matching(NamedTuple):
    """The dual variables u of rows and v of columns, called prices, and the pairs so far (-1: not paired)."""

    u: jax.Array
    v: jax.Array
    column_of_row: jax.Array
    row_of_column: jax.Array


def _assigned(where: str, cost_matrix: Any, start_greedily: bool) -> tuple[jax.Array, jax.Array]:
    costs = _checked(where, cost_matrix)
    n, m = costs.shape
    if n > m:
        columns, rows = _match(costs.T, start_greedily)
        order = jnp.argsort(rows)
        return rows[order], columns[order]
    return _match(costs, start_greedily)


def _checked(where: str, cost_matrix: Any) -> jax.Array:
    costs = jnp.asarray(cost_matrix)
    if costs.ndim != 2:
        raise ValueError(f"{where}: cost_matrix must have two axes, got shape {costs.shape}; jax.vmap maps over others")
    if jnp.iscomplexobj(costs):
        raise TypeError(f"{where}: cost_matrix must be real, got {costs.dtype}")
    if not isinstance(costs, Tracer):
        # Sums with NaN or minus infinity have no minimum. These two are the values that are not > -infinity.
        if jnp.issubdtype(costs.dtype, jnp.floating) and not np.all(np.asarray(costs.astype(float)) > -np.inf):
            raise ValueError(f"{where}: cost_matrix must have no NaN and no minus infinity")
    if jnp.issubdtype(costs.dtype, jnp.floating):
        return jax.lax.stop_gradient(costs.astype(compute_dtype(costs)))
    wide = jnp.issubdtype(costs.dtype, jnp.signedinteger) and costs.dtype.itemsize > 4
    return costs if wide else costs.astype(jnp.int32)


def _match(costs: jax.Array, start_greedily: bool) -> tuple[jax.Array, jax.Array]:
    """(rows, columns) of the pairs of a matrix with at least as many columns as rows."""
    n, m = costs.shape
    rows = jnp.arange(n, dtype=jnp.int32)
    if n == 0:
        return rows, rows
    u, v = jnp.zeros_like(costs[:, 0]), jnp.zeros_like(costs[0])
    nobody = _Matching(u, v, jnp.full(n, -1, jnp.int32), jnp.full(m, -1, jnp.int32))
    matching = _greedy(costs, nobody) if start_greedily else nobody

    def unfinished(matching: _Matching) -> jax.Array:
        return jnp.any(matching.column_of_row < 0)

    def one_more(matching: _Matching) -> _Matching:
        return _augmented(costs, matching, jnp.argmax(matching.column_of_row < 0).astype(jnp.int32))

    return rows, jax.lax.while_loop(unfinished, one_more, matching).column_of_row


def _greedy(costs: jax.Array, nobody: _Matching) -> _Matching:
    """Pairs each row with its cheapest column, unless an earlier row has the same cheapest column."""
    n, m = costs.shape
    cheapest = jnp.argmin(costs, axis=1).astype(jnp.int32)
    first = jnp.full(m, n, jnp.int32).at[cheapest].min(jnp.arange(n, dtype=jnp.int32))
    price = jnp.min(costs, axis=1)
    # A row with forbidden pairs only has no finite price.
    possible = jnp.isfinite(price)
    wins = (first[cheapest] == jnp.arange(n, dtype=jnp.int32)) & possible
    columns = jnp.where(wins, cheapest, -1)
    rows = jnp.full(m, -1, jnp.int32).at[jnp.where(wins, cheapest, m)].set(jnp.arange(n, dtype=jnp.int32), mode="drop")
    return nobody._replace(u=jnp.where(possible, price, 0), column_of_row=columns, row_of_column=rows)


class _RowSearch(NamedTuple):
    """The state of Dijkstra's algorithm from the new row.

    distance: of each column so far; before: the row before each column on its path; done: the columns with final
    distance; row, column, reached: the current row and column, and the distance of that column.
    """

    distance: jax.Array
    before: jax.Array
    done: jax.Array
    row: jax.Array
    column: jax.Array
    reached: jax.Array


def _augmented(costs: jax.Array, matching: _Matching, new_row: jax.Array) -> _Matching:
    """The cheapest matching with the new row added."""
    u, v, column_of_row, row_of_column = matching
    far = jnp.asarray(jnp.inf if jnp.issubdtype(costs.dtype, jnp.floating) else jnp.iinfo(costs.dtype).max, costs.dtype)

    def searching(s: _RowSearch) -> jax.Array:
        # Under vmap this also runs for matrices that are finished and have no free column.
        return ((s.column < 0) | (row_of_column[s.column] >= 0)) & ~jnp.all(s.done)

    def step(s: _RowSearch) -> _RowSearch:
        through = s.reached + (costs[s.row] - u[s.row] - v)
        closer = ~s.done & (through < s.distance)
        distance = jnp.where(closer, through, s.distance)
        before = jnp.where(closer, s.row, s.before)
        reached = jnp.min(jnp.where(s.done, far, distance))
        nearest = ~s.done & (distance == reached)
        # Among the nearest columns a free one is preferred: it ends the search, and where every remaining distance is
        # infinite, only a free column is valid.
        column = jnp.argmax(nearest.astype(jnp.int32) * (1 + (row_of_column < 0).astype(jnp.int32))).astype(jnp.int32)
        return _RowSearch(distance, before, s.done.at[column].set(True), row_of_column[column], column, reached)

    nowhere = jnp.full_like(row_of_column, new_row)
    start = _RowSearch(
        jnp.full_like(v, far), nowhere, row_of_column < -1, new_row, jnp.full_like(new_row, -1), jnp.zeros_like(far)
    )
    found = jax.lax.while_loop(searching, step, start)

    # New prices, for which the paths of the search have reduced cost 0. Columns that were not reached keep theirs.
    slack = jnp.where(found.done & jnp.isfinite(found.distance), found.reached - found.distance, 0)
    slack = jnp.where(jnp.isfinite(slack), slack, 0)
    owner = jnp.where(row_of_column >= 0, row_of_column, u.size)
    u = u.at[owner].add(slack, mode="drop").at[new_row].add(jnp.where(jnp.isfinite(found.reached), found.reached, 0))
    v = v - slack

    def walking(walk: tuple) -> jax.Array:
        return walk[0] >= 0

    def swap(walk: tuple) -> tuple:
        column, column_of_row, row_of_column = walk
        row = found.before[column]
        following = jnp.where(row == new_row, -1, column_of_row[row])
        return following, column_of_row.at[row].set(column), row_of_column.at[column].set(row)

    _, column_of_row, row_of_column = jax.lax.while_loop(walking, swap, (found.column, column_of_row, row_of_column))
    return _Matching(u, v, column_of_row, row_of_column)

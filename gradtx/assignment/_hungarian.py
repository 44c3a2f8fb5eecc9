# SPDX-License-Identifier: Apache-2.0
"""The linear assignment problem: which rows to pair with which columns so that the sum of the costs is smallest."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._dtypes import compute_dtype


def hungarian_algorithm(cost_matrix: Any) -> tuple[jax.Array, jax.Array]:
    """The rows i and columns j, in the order of the rows, for which Σ cost_matrix[i, j] is smallest.

    Each row and each column is used at most once, and all of the shorter side are. Shortest augmenting paths, for the
    rows only whose cheapest column is already taken. Can be compiled and mapped; the indices have no derivatives.

    Args:
      cost_matrix: of shape (n, m), integers or floats, of any sign. Infinity forbids a pair; if there is no assignment
        without forbidden pairs, some are in the result.

    Raises:
      ValueError: if it is not a matrix or, where values are known, has a NaN or a minus infinity.

    References: Kuhn 1955; Jonker and Volgenant 1987; Crouse 2016, "On implementing 2D rectangular assignment".
    """
    return _assigned("hungarian_algorithm", cost_matrix, start_greedily=True)


def base_hungarian_algorithm(cost_matrix: Any) -> tuple[jax.Array, jax.Array]:
    """The same as `hungarian_algorithm`, with one shortest augmenting path for every row: simpler and slower.

    Where several assignments are best, the two may find different ones.
    """
    return _assigned("base_hungarian_algorithm", cost_matrix, start_greedily=False)


class _Matching(NamedTuple):
    """Prices of rows and columns, and which is paired with which (-1: none)."""

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
        # A sum with these has no smallest value. NaN and minus infinity are what fails to be above minus infinity.
        if jnp.issubdtype(costs.dtype, jnp.floating) and not np.all(np.asarray(costs.astype(float)) > -np.inf):
            raise ValueError(f"{where}: cost_matrix must have no NaN and no minus infinity")
    if jnp.issubdtype(costs.dtype, jnp.floating):
        return jax.lax.stop_gradient(costs.astype(compute_dtype(costs)))
    wide = jnp.issubdtype(costs.dtype, jnp.signedinteger) and costs.dtype.itemsize > 4
    return costs if wide else costs.astype(jnp.int32)


def _match(costs: jax.Array, start_greedily: bool) -> tuple[jax.Array, jax.Array]:
    """(row, column) for every row of a matrix that is not taller than wide."""
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
    """Every row with its cheapest column, where no row before it wants the same."""
    n, m = costs.shape
    cheapest = jnp.argmin(costs, axis=1).astype(jnp.int32)
    first = jnp.full(m, n, jnp.int32).at[cheapest].min(jnp.arange(n, dtype=jnp.int32))
    price = jnp.min(costs, axis=1)
    # A row of forbidden pairs has no price.
    possible = jnp.isfinite(price)
    wins = (first[cheapest] == jnp.arange(n, dtype=jnp.int32)) & possible
    columns = jnp.where(wins, cheapest, -1)
    rows = jnp.full(m, -1, jnp.int32).at[jnp.where(wins, cheapest, m)].set(jnp.arange(n, dtype=jnp.int32), mode="drop")
    return nobody._replace(u=jnp.where(possible, price, 0), column_of_row=columns, row_of_column=rows)


class _RowSearch(NamedTuple):
    """Dijkstra's: distances of columns from the new row, the row before each, which are done; where it is."""

    distance: jax.Array
    before: jax.Array
    done: jax.Array
    row: jax.Array
    column: jax.Array
    reached: jax.Array


def _augmented(costs: jax.Array, matching: _Matching, new_row: jax.Array) -> _Matching:
    """The cheapest matching with one row more."""
    u, v, column_of_row, row_of_column = matching
    far = jnp.asarray(jnp.inf if jnp.issubdtype(costs.dtype, jnp.floating) else jnp.iinfo(costs.dtype).max, costs.dtype)

    def searching(s: _RowSearch) -> jax.Array:
        # Under vmap this runs for finished matrices too, in which no column is free.
        return ((s.column < 0) | (row_of_column[s.column] >= 0)) & ~jnp.all(s.done)

    def step(s: _RowSearch) -> _RowSearch:
        through = s.reached + (costs[s.row] - u[s.row] - v)
        closer = ~s.done & (through < s.distance)
        distance = jnp.where(closer, through, s.distance)
        before = jnp.where(closer, s.row, s.before)
        reached = jnp.min(jnp.where(s.done, far, distance))
        nearest = ~s.done & (distance == reached)
        # A free column ends the search, and is the only right one where nothing can be reached.
        column = jnp.argmax(nearest.astype(jnp.int32) * (1 + (row_of_column < 0).astype(jnp.int32))).astype(jnp.int32)
        return _RowSearch(distance, before, s.done.at[column].set(True), row_of_column[column], column, reached)

    nowhere = jnp.full_like(row_of_column, new_row)
    start = _RowSearch(
        jnp.full_like(v, far), nowhere, row_of_column < -1, new_row, jnp.full_like(new_row, -1), jnp.zeros_like(far)
    )
    found = jax.lax.while_loop(searching, step, start)

    # Prices that make the paths of the search cost nothing. Columns not reached by then stay as they are.
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

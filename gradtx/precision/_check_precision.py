# SPDX-License-Identifier: Apache-2.0
"""A check before training whether the steps of an optimizer are large enough for the precision of the parameters."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._apply import apply_updates
from gradtx.core._checked import checked
from gradtx.core._counts import restart
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._kinds import Steps, Tree
from gradtx.core._selectors import named_leaves
from gradtx.core._transformation import as_inner
from gradtx.core._trees import align, is_hole
from gradtx.core._types import Params, Updates
from gradtx.numerics._safe import root_mean_square, safe_divide

ROWS = 20
"""Rows of the printed table."""

TOLERATED = 0.1
ADVICE = (
    "Rounding loses those steps. End the chain with round_stochastically(seed), compensate(), error_bits(8) or "
    "keep_master(), keep these parameters in float32, or take larger steps."
)


@dataclasses.dataclass(frozen=True)
class PrecisionRow:
    """How many of the updates of one parameter are lost by rounding.

    Attributes:
      size, step: the root mean squares of its elements and of their updates.
      needed: half the spacing of its dtype at that size: smaller steps are rounded away.
      lost: the fraction of the elements with a nonzero update that do not change.
    """

    path: str
    dtype: str
    size: float
    step: float
    needed: float
    lost: float

    @property
    def ok(self) -> bool:
        return self.lost <= TOLERATED


@dataclasses.dataclass(frozen=True)
class PrecisionReport:
    """A row for each parameter that has an update; `print` shows those that lose more than a tenth of them."""

    rows: tuple[PrecisionRow, ...]

    @property
    def ok(self) -> bool:
        """Whether every parameter keeps at least nine tenths of its updates."""
        return all(row.ok for row in self.rows)

    @property
    def lossy(self) -> tuple[PrecisionRow, ...]:
        """The parameters that lose more than a tenth of their updates, those that lose most first."""
        return tuple(sorted((row for row in self.rows if not row.ok), key=lambda row: -row.lost))

    def __str__(self) -> str:
        found = self.lossy
        if not found:
            return f"The updates of all {len(self.rows)} parameters are large enough for their precision."
        cells = [("parameter", "dtype", "size", "step", "needed", "lost")]
        for r in found[:ROWS]:
            size, step, needed = (f"{x:.2g}" for x in (r.size, r.step, r.needed))
            cells.append((r.path, r.dtype, size, step, needed, f"{100 * r.lost:.0f} %"))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        if len(found) > ROWS:
            lines.append(f"... and {len(found) - ROWS} more")
        return "\n".join([*lines, ADVICE])


@checked
def check_precision(
    tx: Any,
    params: Tree,
    gradients: Tree | None = None,
    *,
    steps: Steps = (0, 10, 100, 1_000, 10_000),
    **extra: Any,
) -> PrecisionReport:
    """Computes one update at several steps of the schedules, and reports parameters whose dtype is too coarse for it.

    Adam with a learning rate of 1e-4 does not change bfloat16 parameters of size 1, as the next number is 0.004 away.
    For each parameter the largest of its updates at these steps counts, so that a warmup does not matter. With a
    rounding stage at the end of the chain no update is lost.

    Args:
      params: the parameters at the start of training.
      gradients: typical gradients; None for normal numbers, which are as good for rules whose updates do not grow with
        the gradient, such as those of Adam, Lion and Muon.
      steps: the numbers of updates made at which the update is computed; at least one.
      extra: keyword arguments of `update`.
    """
    tx = as_inner("check_precision: tx", tx)
    if not steps:
        raise ValueError("check_precision: steps must name a step, such as (0,)")
    if gradients is None:
        gradients = _normal(params)

    @jax.jit
    def measured(gradients: Updates, state: Any, params: Params) -> list:
        updates, _ = tx.update(gradients, state, params, **extra)
        return [_measures(p, u) for _, p, u in _rows(updates, params)]

    state = tx.init(params)
    tries = [jax.device_get(measured(gradients, restart(state, at), params)) for at in steps]
    rows = []
    for i, (path, p, _) in enumerate(_rows(gradients, params)):
        size, step, lost = (float(x) for x in max((t[i] for t in tries), key=lambda row: float(row[1])))
        rows.append(PrecisionRow(path, str(p.dtype), size, step, _needed(size, p.dtype), lost))
    return PrecisionReport(tuple(rows))


def _rows(updates: Updates, params: Params) -> list[tuple[str, jax.Array, Any]]:
    """(path, parameter, update) for each parameter with an update."""
    names, us, treedef = named_leaves(updates)
    ps = align(treedef, params, "check_precision", "the parameters", updates, "the gradients")
    rows = zip(names, ps, us, strict=True)
    return [(name or "(root)", jnp.asarray(p), u) for name, p, u in rows if not is_hole(u)]


def _measures(p: jax.Array, u: jax.Array) -> tuple[jax.Array, ...]:
    moved = u != 0
    lost = moved & (apply_updates(p, u) == p)
    counts = [jnp.sum(x, dtype=jnp.float32) for x in (lost, moved)]
    p, u = widen((p, u), compute_dtype(p, u))
    return root_mean_square(p), root_mean_square(u), safe_divide(*counts)


def _needed(size: float, dtype: Any) -> float:
    info = jnp.finfo(dtype)
    if not math.isfinite(size):
        return math.nan
    exponent = max(math.frexp(size)[1] - 1, int(info.minexp)) if size else int(info.minexp)
    return 2.0 ** (exponent - int(info.nmant) - 1)


def _normal(params: Params) -> Updates:
    """Normal numbers like the parameters; None for integer parameters."""

    def normal(path: Any, p: Any) -> Any:
        dtype = jnp.result_type(p)
        if not jnp.issubdtype(dtype, jnp.inexact):
            return None
        return jax.random.normal(jax.random.key(0), jnp.shape(p), dtype)

    return jax.tree_util.tree_map_with_path(normal, params)

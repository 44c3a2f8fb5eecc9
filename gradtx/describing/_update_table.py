# SPDX-License-Identifier: Apache-2.0
"""The tables of `explain_update`."""

import math
from collections.abc import Sequence
from typing import Any

from gradtx.core._sentences import shortened
from gradtx.describing._table import TableCells

PARAMETERS = 12
"""Rows of the printed table of parameters."""
SHARES = ("changed", "clipped", "masked", "decayed", "lost")


def summary(explanation: Any) -> str:
    """The line above the tables."""
    number, total = len(explanation.parameters), explanation.total
    if not explanation.chosen:
        return f"one step, {total} parameter" + "s" * (total != 1)
    return f"one step, {number} of {total} parameters: those of {explanation.chosen}"


def stage_cells(rows: Sequence[Any]) -> TableCells:
    """A row for each stage, without the columns that would be empty."""
    numbers = {"in": [_number(r.norm_in) for r in rows], "out": [_number(r.norm_out) for r in rows]}
    numbers["cosine"] = ["" if r.cosine is None else f"{r.cosine:+.3f}" for r in rows]
    numbers |= {name: [_share(getattr(r, name)) for r in rows] for name in SHARES}
    numbers["not finite"] = [f"{r.not_finite:,}" if r.not_finite else "" for r in rows]
    shown = {name: column for name, column in numbers.items() if set(column) - {"", "0"} or name in ("in", "out")}
    cells = [[_stage(row), *(column[i] for column in shown.values())] for i, row in enumerate(rows)]
    return TableCells(["stage", *shown], cells, frozenset(shown))


def _stage(row: Any) -> str:
    name = f"{row.path[-1]}: " if row.path else ""
    return "  " * row.depth + shortened(name + row.call, 56) + ("" if row.ran else " (did not run)")


def parameter_cells(parameters: Sequence[Any]) -> TableCells:
    """A row for each of the parameters that moved most."""
    header = ["parameter", "shape", "gradient", "update", "parameter norm", "update / parameter", "lost", "not finite"]
    rows = [
        [
            p.path,
            str(p.shape) + ("" if p.dtype == "float32" else f" {p.dtype}"),
            *map(_number, (p.gradient, p.update, p.parameter, p.relative)),
            _share(p.lost),
            f"{p.not_finite:,}" if p.not_finite else "",
        ]
        for p in parameters[:PARAMETERS]
    ]
    used = [i for i, name in enumerate(header) if name != "not finite" or any(row[i] for row in rows)]
    if len(parameters) > PARAMETERS:
        rows.append([f"... and {len(parameters) - PARAMETERS} more", *[""] * (len(header) - 1)])
    cells = [[row[i] for i in used] for row in rows]
    return TableCells([header[i] for i in used], cells, frozenset(header[2:]))


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.3g}"


def _share(x: float | None) -> str:
    if x is None:
        return ""
    percent = 100 * x
    if 0 < percent < 0.1 or 99.9 < percent < 100:  # not all and not none
        return "<0.1 %" if percent < 50 else ">99.9 %"
    return "0" if not percent else f"{percent:.3g} %" if math.isfinite(percent) else "nan"

# SPDX-License-Identifier: Apache-2.0
"""A description as text: stages, a table of the parameters, totals."""

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from gradtx.core._roles import Role
from gradtx.core._sentences import shortened
from gradtx.describing._folding import Folded, folded, slots_text, spanned
from gradtx.describing._stages import Slot, Stage

WIDTH = 120
"""Columns of the printed table."""
ROWS = 80
"""Rows of the printed table; the rest is summed in one row."""

HEADER = ("parameter", "shape", "role", "rule", "rate", "decay", "slots", "bytes", "sharding")
WIDEST = {"slots": 44, "rule": 30, "stage": 72}
"""The largest widths of columns that may hold many names."""
NARROWEST = (("slots", 24), ("parameter", 24), ("slots", 16), ("sharding", 12), ("rule", 10), ("role", 10))
"""The columns that are cut if a table is too wide, in this order, and the least widths; numbers are never cut."""


class TableCells(NamedTuple):
    """The cells of a table, without the columns that would be empty."""

    header: list[str]
    rows: list[list[str]]
    right: frozenset[str] = frozenset(("bytes",))


def parameter_lines(parameters: Sequence[Any], others: Sequence[Slot]) -> TableCells:
    """The table of the parameters, with a last row for the state that belongs to none of them."""
    groups = folded(parameters)
    shown = len(groups) if len(groups) <= ROWS + 1 else ROWS  # hiding a single row would save nothing
    rows = [_cells(group) for group in groups[:shown]]
    if rest := [row for group in groups[shown:] for row in group.rows]:
        rows.append(_summary(f"... and {len(rest):,} more", sum(row.state_bytes for row in rest), ""))
    if others:
        kept = slots_text(dict.fromkeys((slot.name, slot.dtype) for slot in others))  # there may be many counts
        rows.append(_summary("(no parameter)", sum(slot.bytes for slot in others), kept))
    used = [i for i, name in enumerate(HEADER) if name not in ("role", "sharding") or any(row[i] for row in rows)]
    return TableCells([HEADER[i] for i in used], [[row[i] for i in used] for row in rows])


def _cells(group: Folded) -> list[str]:
    rows = group.rows
    first = rows[0]
    return [
        group.path + (f" x{len(rows)}" if len(rows) > 1 else ""),
        str(first.shape) + ("" if first.dtype == "float32" else f" {first.dtype}"),
        _role(first.role, first.shape),
        first.rule or "-",
        spanned([row.learning_rate for row in rows]),
        spanned([row.weight_decay for row in rows]),
        slots_text(first.slots),
        f"{sum(row.state_bytes for row in rows):,}",
        first.sharding,
    ]


def _summary(name: str, size: int, slots: str) -> list[str]:
    return [name, "", "", "", "", "", slots, f"{size:,}", ""]


def _role(role: Role | None, shape: tuple[int, ...]) -> str:
    if role is None:
        return ""
    stack = math.prod(shape[axis] for axis in role.stack)
    return f"{role.kind} x{stack}" if role.stack else role.kind


def as_text(layout: TableCells) -> list[str]:
    """The lines of the table, none wider than `WIDTH` if possible."""
    lines = [layout.header, *layout.rows]
    limits = [WIDEST.get(name, WIDTH) for name in layout.header]
    widths = [min(max(map(len, column)), n) for column, n in zip(zip(*lines, strict=True), limits, strict=True)]
    for name, least in NARROWEST:
        if name in layout.header and (over := sum(widths) + 2 * (len(widths) - 1) - WIDTH) > 0:
            i = layout.header.index(name)
            widths[i] = min(widths[i], max(least, widths[i] - over))
    right = [name in layout.right for name in layout.header]
    text = []
    for row in lines:
        cells = [shortened(cell, width) for cell, width in zip(row, widths, strict=True)]
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
        text.append("  ".join(padded).rstrip())
    return text


def as_rich(head: list[str], layout: TableCells, total: str, *more: TableCells) -> Any:
    """The description for a terminal, by the library Rich."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tables = []
    for cells in (layout, *more):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in cells.header:
            table.add_column(name, justify="right" if name in cells.right else "left", overflow="fold")
        for row in cells.rows:
            table.add_row(*map(Text, row))  # as Text, so that brackets in a path are no markup
        tables += [Text(), table]
    return Group(Text("\n".join(head)), *tables, Text(), Text(total, style="bold"))


def as_html(head: list[str], *tables: TableCells) -> str:
    """The description for a notebook."""

    def row(cells: list[str], tag: str, right: list[bool]) -> str:
        style = ["right" if r else "left" for r in right]
        found = zip(cells, style, strict=True)
        return "".join(f'<{tag} style="text-align: {s}; white-space: pre">{html.escape(c)}</{tag}>' for c, s in found)

    parts = [f"<pre>{html.escape(chr(10).join(head))}</pre>"]
    for cells in tables:
        right = [name in cells.right for name in cells.header]
        rows = [row(cells.header, "th", right), *(row(x, "td", right) for x in cells.rows)]
        parts.append(f"<table>{''.join(f'<tr>{x}</tr>' for x in rows)}</table>")
    return "".join(parts)


def stage_lines(stages: tuple[Stage, ...]) -> list[str]:
    lines, last = [], ()
    for stage in stages:
        name = stage.label or (".".join(map(str, stage.path)) if stage.path != last else "")
        lines.append(shortened("  " * stage.depth + (f"{name}: " if name else "") + stage.call, WIDTH))
        last = stage.path
    return lines

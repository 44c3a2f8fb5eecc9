# SPDX-License-Identifier: Apache-2.0
"""What `migrate` did, as a value that prints."""

import dataclasses
from typing import Any

from gradtx.core._sentences import MOST


@dataclasses.dataclass(frozen=True)
class MigrationRow:
    """One slot of one parameter; `parameter` is None for arrays that belong to no parameter, such as counts.

    `source` is the old slot of the value, and `reason` says why the value is not the old one.
    """

    slot: str
    parameter: str | None
    source: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class MigrationReport:
    """Which slots `migrate` carried over, grew, initialized and dropped; `print` shows them as a table."""

    carried: tuple[MigrationRow, ...] = ()
    grown: tuple[MigrationRow, ...] = ()
    initialized: tuple[MigrationRow, ...] = ()
    dropped: tuple[MigrationRow, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists and strings."""
        found = dataclasses.asdict(self)
        return {name: list(rows) for name, rows in found.items()}

    def __str__(self) -> str:
        lines = []
        for what in ("carried", "grown", "initialized", "dropped"):
            rows = getattr(self, what)
            lines += [(what, *cells) for cells in _summary(rows)] or [(what, "nothing", "")]
        widths = [max(len(line[i]) for line in lines) for i in range(2)]
        text = [f"{what:{widths[0]}}  {slot:{widths[1]}}  {rest}".rstrip() for what, slot, rest in lines]
        return "\n".join([*text, *(f"note: {note}" for note in self.notes)])


def _summary(rows: tuple[MigrationRow, ...]) -> list[tuple[str, str]]:
    """For each slot, source and reason: the slot's name, and its parameters, source and reason as text."""
    found = []
    order = dict.fromkeys((r.slot, r.source, r.reason) for r in rows)
    groups = {key: [r.parameter for r in rows if (r.slot, r.source, r.reason) == key] for key in order}
    for (slot, source, reason), parameters in groups.items():
        owned = [p or "(root)" for p in parameters if p is not None]
        text = f"{len(owned):,} parameters" if len(owned) > MOST else ", ".join(owned)
        text += f"{' ' if text else ''}from {source}" if source not in ("", slot) else ""
        text += f"{': ' if text else ''}{reason}" if reason else ""
        found.append((slot or "(root)", text))
    return found

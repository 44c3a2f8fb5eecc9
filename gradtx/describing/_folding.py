# SPDX-License-Identifier: Apache-2.0
"""Parameters with equal rows whose paths differ only in numbers, folded into one row."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from gradtx.describing._fate import OWN

_NUMBER = re.compile(r"(?<![^/_.])\d+(?![^/.])")


class Folded(NamedTuple):
    """Rows of parameters that are shown as one, and the path that stands for all of them."""

    path: str
    rows: list


def folded(rows: Iterable[Any]) -> list[Folded]:
    """Folds rows that are equal except for numbers in their paths, such as those of layers, and for multiples."""
    groups: dict[Any, list] = {}
    for row in rows:
        what = (row.shape, row.dtype, row.role, row.rule, row.weight_decay is None, row.slots, row.sharding)
        groups.setdefault((_NUMBER.sub("*", row.path), what), []).append(row)
    return [Folded(_common([row.path for row in group]), group) for group in groups.values()]


def _common(paths: list[str]) -> str:
    """The path with "*" in place of the numbers in which the paths differ."""
    numbers = zip(*(_NUMBER.findall(path) for path in paths), strict=True)
    shown = iter(n[0] if len(set(n)) == 1 else "*" for n in numbers)
    return _NUMBER.sub(lambda _: next(shown), paths[0])


def spanned(multiples: list[Any]) -> str:
    """Multiples of a hyperparameter as text: "x1", "x0.1..0.8", "own", "-" for none."""
    known = [m for m in multiples if m is not None]
    if not known:
        return "-"
    if OWN in known:
        return OWN
    ends = [m if isinstance(m, tuple) else (m, m) for m in known]
    least, greatest = min(low for low, _ in ends), max(high for _, high in ends)
    return f"x{least:.4g}" if least == greatest else f"x{least:.3g}..{greatest:.3g}"


def slots_text(slots: Iterable[tuple[str, str]]) -> str:
    """The names of slots with their dtypes: `mu, nu float32`, or `mu int8+float32` for a slot of several arrays."""
    found: list[tuple[str, dict[str, str]]] = []
    for name, dtype in slots:
        begin = re.split(r"(?<=.)[.\[]", name)[0]
        # A name that occurs a second time belongs to another stage.
        same = [arrays for other, arrays in found if other == begin and name not in arrays]
        arrays = same[-1] if same else {}
        arrays[name] = dtype
        found += [] if same else [(begin, arrays)]
    names: dict[str, list[str]] = {}
    for begin, arrays in found:
        names.setdefault("+".join(dict.fromkeys(arrays.values())), []).append(begin)
    return ", ".join(f"{', '.join(begins)} {dtype}" for dtype, begins in names.items())

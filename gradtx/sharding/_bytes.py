# SPDX-License-Identifier: Apache-2.0
"""How many bytes of a state lie on each device."""

from typing import Any, NamedTuple

import jax

from gradtx.core._checked import checked
from gradtx.core._sentences import listed
from gradtx.core._transformation import check_transformation
from gradtx.core._types import Params
from gradtx.sharding._layout import AnyMesh, layout_of, spec_text
from gradtx.sharding._state_shardings import LARGE, nbytes, state_types
from gradtx.surgery._slots import Part, split


class SlotBytes(NamedTuple):
    """The bytes of one slot of a state.

    Attributes:
      name: the slot's path in the state, such as `0.mu`.
      dtype: the dtypes of its arrays.
      arrays: how many there are.
      total: the bytes of the arrays, each counted once.
      per_device: the bytes on one device.
      whole: of these, the bytes in arrays of 64 kB or more that every device has whole.
      sharding: the specs of its arrays, and their memory if it is not the device's.
    """

    name: str
    dtype: str
    arrays: int
    total: int
    per_device: int
    whole: int
    sharding: str


class StateBytes(NamedTuple):
    """The bytes of a state; printed, a table of its slots.

    Attributes:
      per_device: the bytes on one device, of whatever memory.
      total: the bytes of the arrays, each counted once.
      devices: the number of devices.
      rows: the slots.
    """

    per_device: int
    total: int
    devices: int
    rows: tuple[SlotBytes, ...]

    def __str__(self) -> str:
        header = ("slot", "dtype", "arrays", "bytes", "per device", "whole", "sharding")
        cells = [(r.name, r.dtype, *(f"{n:,}" for n in r[2:6]), r.sharding) for r in self.rows]
        whole = sum(r.whole for r in self.rows)
        cells.append(
            ("all", "", "", f"{self.total:,}", f"{self.per_device:,}", f"{whole:,}", f"{self.devices} devices")
        )
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        lines = []
        for row in (header, *cells):
            padded = [
                c.rjust(w) if 2 <= i <= 5 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(padded).rstrip())
        return "\n".join(lines)


@checked
def bytes_per_device(tx: Any, params: Params, *, mesh: AnyMesh | None = None, specs: Any = None) -> StateBytes:
    """The bytes of `tx.init(params)` on each device, if it lies as `state_shardings` says.

        print(bytes_per_device(zero(adamw(1e-3)), params))

    Nothing is computed and no device is needed.

    Args:
      tx, params, mesh, specs: see `state_shardings`.

    Raises:
      ValueError: as `state_shardings`.
    """
    check_transformation("bytes_per_device: tx", tx)
    layout = layout_of("bytes_per_device", params, mesh, specs)
    state = state_types(tx, layout)
    slots: dict[str, list[Part]] = {}
    for part in split(state, layout.params):
        slots.setdefault(part.name, []).append(part)
    rows = tuple(
        _row(name, [x for part in parts for x in jax.tree.leaves(part.value)]) for name, parts in slots.items()
    )
    return StateBytes(sum(r.per_device for r in rows), sum(r.total for r in rows), layout.mesh.size, rows)


def _row(name: str, arrays: list[Any]) -> SlotBytes:
    whole = [x for x in arrays if x.sharding.is_fully_replicated and nbytes(x) >= LARGE]
    return SlotBytes(
        name or "state",
        listed(dict.fromkeys(str(x.dtype) for x in arrays)),
        len(arrays),
        sum(map(nbytes, arrays)),
        sum(nbytes(x, per_device=True) for x in arrays),
        sum(map(nbytes, whole)),
        listed(dict.fromkeys(spec_text(x.sharding) for x in arrays)),
    )

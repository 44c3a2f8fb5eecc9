# SPDX-License-Identifier: Apache-2.0
"""What a rule measures of all leaves: sums, also over the devices between which a leaf is split."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._kernels import RuleSource
from gradtx.core._over_devices import Names, sum_over
from gradtx.core._rescaling import added_up, divided, in_range_over, known_squares
from gradtx.core._roles import names_of, opened


class Live(NamedTuple):
    """A leaf with a gradient: its place in the tree, and what the compiled functions of one rule get, t as `count`."""

    index: int
    source: RuleSource
    values: dict[str, Any]
    g: Any
    slots: Any
    p: Any
    count: Any


def _by_names(live: list[Live]) -> dict[Names, list[Live]]:
    """The leaves by the mesh axes between whose devices they are split."""
    found: dict[Names, list[Live]] = {}
    for x in live:
        found.setdefault(names_of(x.g), []).append(x)
    return found


def _measured(live: list[Live], memory: Any, scale: jax.Array | None = None) -> Any:
    """The sum of the measures of these leaves; with a scale, of their gradients divided by it."""
    gs = [x.g if scale is None else divided(x.g, scale) for x in live]
    return added_up(
        [x.source.kernels.measure(x.values, g, x.slots, x.p, x.count, memory) for x, g in zip(live, gs, strict=True)]
    )


def total_of(live: list[Live], memory: Any) -> Any:
    """The sum of what a rule measures of these leaves."""
    return sum_over({names: _measured(leaves, memory) for names, leaves in _by_names(live).items()})


def total_in_range(live: list[Live], memory: Any) -> tuple[jax.Array, jax.Array]:
    """The squares of the gradients as `in_range` has them: summed again, of g/s, where they left the range."""
    dtype = jnp.result_type(float)
    known = known_squares([opened(x.g) for x in live], dtype)
    if known is not None:
        return known
    return in_range_over(
        _by_names(live), lambda some, scale=None: _measured(some, memory, scale), dtype, lambda x: opened(x.g)
    )

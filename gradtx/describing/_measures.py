# SPDX-License-Identifier: Apache-2.0
"""What a transformation did to the updates that it got, in numbers."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._apply import apply_updates
from gradtx.describing._fate import decays
from gradtx.describing._routes import RouteNode

Arrays = Mapping[str, Any]

ROUNDED = 1e-5
"""Multiplying by one may round: a difference of this size is not counted as clipping."""


@dataclasses.dataclass(frozen=True)
class Measures:
    """Numbers of one run over the chosen parameters; None for what has no meaning there."""

    norm_in: float
    norm_out: float
    cosine: float | None
    changed: float | None
    clipped: float | None
    masked: float | None
    decayed: float | None
    lost: float | None
    not_finite: int


class Measuring:
    """Measures runs against the gradients and the parameters of the step."""

    def __init__(self, gradients: Arrays, params: Arrays, chosen: set[str]):
        self.gradients = {name: wide(x) for name, x in gradients.items() if name in chosen}
        self.params, self.chosen = params, chosen

    def __call__(self, node: RouteNode, given: Arrays, new: Arrays) -> Measures | None:
        if any(isinstance(x, Tracer) for x in (*given.values(), *new.values())):
            return None  # inside a loop or a map, of which no step is the step
        own = set(given) | set(new) <= set(self.params)  # else of a vector of all, of which no element is a parameter's
        ins = {name: wide(x) for name, x in given.items() if not own or name in self.chosen}
        outs = {name: wide(x) for name, x in new.items() if not own or name in self.chosen}
        both = [(x, outs.get(n, np.zeros_like(x))) for n, x in ins.items()]  # no update is one of zeros
        comparable = all(x.shape == y.shape for x, y in both) and bool(both)
        return Measures(
            norm(ins.values()),
            norm(outs.values()),
            self._cosine(outs) if own else None,
            share([(x != y) & ~(np.isnan(x) & np.isnan(y)) for x, y in both]) if comparable else None,
            share([np.abs(y) < (1 - ROUNDED) * np.abs(x) for x, y in both]) if comparable and clips(node) else None,
            self._masked(ins) if own else None,
            self._decayed(node, ins) if own else None,
            self._lost(new) if own else None,
            not_finite(outs.values()),
        )

    def _cosine(self, outs: Arrays) -> float | None:
        pairs = [(x, g) for n, x in outs.items() if (g := self.gradients.get(n)) is not None and g.shape == x.shape]
        lengths = norm(x for x, _ in pairs) * norm(g for _, g in pairs)
        inner = math.fsum(float(np.vdot(x, g).real) for x, g in pairs)
        return inner / lengths if math.isfinite(lengths) and lengths > 0 else None

    def _masked(self, ins: Arrays) -> float:
        sizes = {name: math.prod(np.shape(self.params[name])) for name in self.gradients}
        total = sum(sizes.values())
        return 1 - sum(sizes.get(name, 0) for name in ins) / total if total else 0.0

    def _decayed(self, node: RouteNode, ins: Arrays) -> float | None:
        """The share of the elements to which weight decay is applied; None where there is none to set."""
        if not any(_has_decay(x) for name in ins for x in node.through(name)):
            return None
        return share([np.full(x.shape, decays(node, name)) for name, x in ins.items()])

    def _lost(self, new: Arrays) -> float | None:
        """The share of the nonzero updates that would not change a parameter, were they added to it as they are."""
        found = [lost(self.params[name], u) for name, u in new.items() if name in self.chosen]
        moved = sum(n for _, n in found)
        return sum(n for n, _ in found) / moved if moved else None


def clips(node: RouteNode) -> bool:
    """Whether this is a stage that clips, by its name."""
    return not node.children and ("clip" in node.factory or node.factory in ("adagc", "stabilize_norm"))


def _has_decay(node: RouteNode) -> bool:
    """Whether this transformation has a weight decay whose number is known."""
    known = "weight_decay" in getattr(getattr(node.tx, "factory", None), "hyperparameters", ())
    return known and not isinstance(node.tx.arguments["weight_decay"], Tracer)


def wide(x: Any) -> np.ndarray:
    """The numbers in 64 bits, whose squares are in range where those of float32 are not."""
    return np.asarray(x).astype(np.complex128 if jnp.iscomplexobj(x) else np.float64)


def norm(arrays: Any) -> float:
    return math.sqrt(math.fsum(float(np.sum(np.abs(x) ** 2)) for x in arrays))


def not_finite(arrays: Any) -> int:
    """The number of elements that are NaN or infinite."""
    return sum(int(np.sum(~np.isfinite(x))) for x in arrays)


def share(flags: list[np.ndarray]) -> float:
    """The share of the elements that are True."""
    size = sum(x.size for x in flags)
    return sum(int(np.sum(x)) for x in flags) / size if size else 0.0


def lost(p: Any, u: Any) -> tuple[int, int]:
    """How many elements of an update are not 0 but too small to change their parameter, and how many are not 0."""
    if jnp.shape(p) != jnp.shape(u):
        return 0, 0
    moved, same = _moved(jnp.asarray(p), jnp.asarray(u))
    return int(np.sum(np.asarray(moved) & np.asarray(same))), int(np.sum(np.asarray(moved)))


@jax.jit
def _moved(p: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    return u != 0, apply_updates(p, u) == p

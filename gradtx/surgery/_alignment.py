# SPDX-License-Identifier: Apache-2.0
"""Matching the stages of an old state with those of a new one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._unwrapping import children
from gradtx.surgery._ages import COUNTERS, is_whole
from gradtx.surgery._slots import Part, is_named_tuple, joined, names, split


@dataclasses.dataclass(frozen=True, eq=False)
class StageState:
    """A part of a state that holds arrays of its own: `kind` is the name of its class, `has` the names of its fields.

    `kind` is empty for states restored as dictionaries, `factory` if the transformation is not known.
    """

    path: str
    kind: str
    factory: str
    has: frozenset[str]
    value: Any

    @property
    def kinds(self) -> tuple[str, str]:
        return self.kind, self.factory


class Outline:
    """A state indexed by paths as text, so that states of named tuples, dictionaries and lists can be compared.

    Args:
      state, params: unwrapped.
      inside: the factories of the stages by the dotted paths of their states, as far as they are known.
      holders: the paths of all that lies above the states of stages.
    """

    def __init__(self, state: Any, params: Any, inside: Mapping[str, str], holders: frozenset[str]):
        self.factories = {path: name for path, name in inside.items() if name}
        self.parts: list[Part] = list(split(state, params, holders))
        pairs = [(names(path), x) for path, x in jax.tree_util.tree_leaves_with_path(state)]
        self.ages = _ages({joined(*keys): x for keys, x in pairs})
        self.leaves: dict[str, Any] = {}
        self.below: dict[str, dict[str, Any]] = {}
        for keys, x in pairs:
            if keys and keys[-1] in COUNTERS and joined(*keys[:-1]) in self.ages:
                x = jnp.max(x)  # for stages that have one age for all parameters
            self.leaves[joined(*keys)] = x
            for i in range(len(keys) + 1):
                self.below.setdefault(joined(*keys[:i]), {})[joined(*keys[i:])] = x
        keys = list(self.leaves)
        self.homes = {key: part for part in self.parts for key in keys[part.start : part.stop]}
        own = {part.stage_path: not part.field for part in self.parts}
        slots = {joined(p.stage_path, p.field_path) for p in self.parts if p.parameter is not None}
        found = _nodes(state, "", slots)
        if not any(is_named_tuple(x) for _, x in found):
            own = {path: own.get(path, False) for path, _ in found}
        self.stages = [
            StageState(
                path,
                type(x).__name__ if is_named_tuple(x) else "",
                self._factory(path),
                frozenset({""}) if own.get(path) else frozenset(_filled(x)),
                x,
            )
            for path, x in found
            if path in own or is_named_tuple(x) and jax.tree.leaves(x)
        ]
        self.by_path = {stage.path: stage for stage in self.stages}

    def age(self, stage: str, parameter: str) -> Any:
        """The count of a stage for a parameter; None if the stage has none."""
        ages = self.ages.get(stage)
        counts = (self.leaves.get(joined(stage, field)) for field in COUNTERS)
        return next((x for x in counts if x is not None), None) if ages is None else ages.get(parameter)

    def _factory(self, path: str) -> str:
        path = path.replace("/", ".")
        above = [p for p in self.factories if p == "" or path == p or path.startswith(f"{p}.")]
        return self.factories[max(above, key=len)] if above else ""


def _ages(leaves: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By the paths of the stages whose count has entries, these by the paths of their parameters.

    The parameters need not be those of today: their paths are read off a slot beside the count.
    """
    found = {}
    for key, x in leaves.items():
        stage, _, field = key.rpartition("/")
        if field not in COUNTERS or not is_whole(x) or jnp.ndim(x) != 1:
            continue
        slots: dict[str, list[str]] = {}
        for other in leaves:
            if other != key and other.startswith(f"{stage}/" if stage else ""):
                field, _, parameter = other[len(stage) :].strip("/").partition("/")
                slots.setdefault(field, []).append(parameter)
        # A stored slot has several arrays for each parameter.
        lists = [*slots.values(), *(list(dict.fromkeys(p.rpartition("/")[0] for p in ps)) for ps in slots.values())]
        owners = next((ps for ps in lists if len(ps) == len(x)), None)
        if owners is not None:
            found[stage] = dict(zip(owners, x, strict=True))
    return found


def aligned(new: list[StageState], old: list[StageState]) -> dict[str, StageState]:
    """The old stage that each new stage continues, by the new path: in the same order if possible, else in another."""

    def worth(n: StageState, o: StageState) -> int:
        return (2 + (n.path == o.path)) if same(n, o) else 0

    best = [[0] * (len(old) + 1) for _ in range(len(new) + 1)]
    for i, n in reversed(list(enumerate(new))):
        for j, o in reversed(list(enumerate(old))):
            pair = worth(n, o)
            best[i][j] = max(best[i + 1][j], best[i][j + 1], pair + best[i + 1][j + 1] if pair else 0)
    found, i, j = {}, 0, 0
    while i < len(new) and j < len(old):
        pair = worth(new[i], old[j])
        if pair and best[i][j] == pair + best[i + 1][j + 1]:
            found[new[i].path] = old[j]
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    left = [o for o in old if o not in found.values()]
    for n in new:
        match = None if n.path in found else next((o for o in left if same(n, o)), None)
        if match is not None:
            found[n.path] = match
            left.remove(match)
    return found


def same(new: StageState, old: StageState) -> bool:
    """Whether two stages are of the same class, as far as is known."""
    if new.factory and old.factory and new.factory != old.factory:
        return False
    return new.kind == old.kind if new.kind and old.kind else new.has == old.has


def _nodes(node: Any, path: str, slots: set[str]) -> list[tuple[str, Any]]:
    """All parts of a tree with their paths, from the root on, without the insides of slots."""
    found = [(path, node)]
    if path in slots or jax.tree_util.all_leaves([node]):
        return found
    for key, child in children(node):
        found += _nodes(child, joined(path, *names((key,))), slots)
    return found


def _filled(node: Any) -> list[str]:
    below = [] if jax.tree_util.all_leaves([node]) else children(node)
    return [names((key,))[0] for key, child in below if jax.tree.leaves(child)]

# SPDX-License-Identifier: Apache-2.0
"""The passes of `migrate`: which part of the old state each part of the new one is taken from."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.surgery._access import has_name
from gradtx.surgery._alignment import Node, Outline, aligned, joined, same
from gradtx.surgery._fitting import Fit, check_grow, fitted
from gradtx.surgery._quantities import is_harmless, quantity
from gradtx.surgery._report import MigrationReport, MigrationRow
from gradtx.surgery._slots import Part, dotted, names, parameter_names

SHOWN = 4


class Carrying:
    """Decides which parts of an old state go where in a new one. Each pass handles what the passes before left over."""

    def __init__(self, old: Outline, new: Outline, params: Any, moved: Any, grow: Any):
        check_grow("migrate", grow)
        self.old, self.new, self.grow = old, new, grow
        self.called = parameter_names(params)
        self.were = {path: _before(path, name, moved) for path, name in self.called.items()}
        self.pairs = aligned(new.stages, old.stages)
        self.fits: dict[Part, tuple[Fit, str]] = {}  # with the path in the old state
        self.refused: dict[Part, Fit] = {}
        self.origins: dict[str, Node] = {}  # the old stage that a new one got its slots from
        self.taken: set[str] = set()
        self.notes: list[str] = []

    # The passes.

    def renamed(self, rename: Mapping[str, Any]) -> None:
        """Carries the slots that the user named."""
        for source, target in rename.items():
            target, change = target if isinstance(target, tuple) else (target, None)
            into = [p for p in self.new.parts if has_name(_slot(p), target)]
            if not into:
                raise ValueError(
                    f"migrate: rename: new_tx has no slot {target!r}; it has {_listed(map(_slot, self.new.parts))}"
                )
            before = [p for p in self.old.below if has_name(p.replace("/", "."), source)]
            if not before:
                raise ValueError(
                    f"migrate: rename: old_state has no slot {source!r}; it has {_listed(map(_slot, self.old.parts))}"
                )
            for part in into:
                for path in before:
                    stage, _, field = path.rpartition("/")
                    if self._take(part, stage, field, change):
                        if stage in self.old.by_path:
                            self.origins.setdefault(_stage(part), self.old.by_path[stage])
                        break

    def by_stage(self) -> None:
        """Carries the slots of stages that match."""
        for part in self._slots():
            if (stage := self.pairs.get(_stage(part))) is not None and self._take(part, stage.path, _field(part)):
                self.origins.setdefault(_stage(part), stage)

    def by_kind(self) -> None:
        """Carries slots from other stages of the same class: parameters may have changed their group."""
        for part in self._slots():
            new = self.new.by_path[_stage(part)]
            for stage in self.old.stages:
                if new.kind and same(new, stage) and self._take(part, stage.path, _field(part)):
                    self.origins.setdefault(new.path, stage)
                    break

    def by_quantity(self) -> None:
        """Carries averages to a stage of another rule, if that rule needs nothing else."""
        for new in self.new.stages:
            slots = [p for p in self._slots() if _stage(p) == new.path]
            own = [p for p in self.new.parts if _stage(p) == new.path]
            if not slots or any(p in self.fits for p in own):
                continue
            found = {p: source for p in slots if (source := self._same_quantity(new, p))}
            known = {None, *(p.parameter for p in found)}  # new parameters lack everything, which is harmless
            missing = sorted({_field(p) for p in own if p.parameter in known and not self._is_ready(new, p, found)})
            if found and missing:
                fields = sorted({_field(p) for p in found})
                self.notes.append(
                    f"{_named(new)}: {', '.join(fields)} would fit, but the old state has nothing for "
                    f"{', '.join(missing)}, and the steps would be of a wrong size; rename carries it anyway"
                )
            elif found:
                for part, (stage, field) in found.items():
                    if self._take(part, stage.path, field):
                        self.origins.setdefault(new.path, stage)

    def numbers(self, step: Any) -> None:
        """Carries what belongs to no parameter: counts, averages over the whole tree, keys, windows."""
        step = self._step() if step is None else jnp.asarray(step)
        slotted = {_stage(p) for p in self.new.parts if p.parameter is not None}
        carried = {_stage(p) for p in self.fits}
        for part in [p for p in self.new.parts if p.parameter is None]:
            new = self.new.by_path[_stage(part)]
            origin = self.origins.get(new.path) or self.pairs.get(new.path)
            if new.path in slotted and new.path not in carried:
                origin = None
            if origin is not None and same(new, origin) and self._take(part, origin.path, _field(part), again=True):
                continue
            starts = getattr(type(new.value), "counts_from", {})
            if _field(part) in starts and step is not None:
                self._set(part, jnp.asarray(step, part.value.dtype) + starts[_field(part)], "the step")
            elif new.path in carried and _is_count(part.value):
                path = "" if origin is None else joined(origin.path, "count")
                age, source = (self.old.leaves[path], _dots(path)) if path in self.old.leaves else (step, "the step")
                if age is not None:
                    self._set(part, jnp.array(age, part.value.dtype), source)
                    self.taken |= {path} & set(self.old.leaves)
                else:
                    self.notes.append(f"{_slot(part)} begins at 0, though slots beside it do not: give step")

    def check_growth(self) -> None:
        """Raises if slots have grown and `grow` does not say what to do."""
        smaller = {p: fit for p, fit in self.refused.items() if fit.is_smaller and p not in self.fits}
        if smaller:
            lines = [f"{_slot(p)} of {self._owner(p)}: {fit.reason}" for p, fit in smaller.items()]
            more = f" (and {len(lines) - SHOWN} more)" if len(lines) > SHOWN else ""
            raise ValueError(
                f"migrate: slots have grown: {'; '.join(lines[:SHOWN])}{more}. Say with grow what the new entries get: "
                f'"init", "mean", a function, or "reset" for new slots'
            )

    # What comes out.

    def values(self) -> Iterable[tuple[Part, list]]:
        return [(part, fit.values) for part, (fit, _) in self.fits.items() if fit.values is not None]

    def report(self) -> MigrationReport:
        carried, grown, initialized = [], [], []
        for part in self.new.parts:
            slot, owner = _slot(part), self._owner(part)
            if part not in self.fits:
                refused = self.refused.get(part)
                initialized.append(MigrationRow(slot, owner, "", refused.reason if refused else ""))
                continue
            fit, source = self.fits[part]
            (grown if fit.is_grown else carried).append(MigrationRow(slot, owner, source, fit.reason))
        young = {_stage(p) for p in self.new.parts if self._is_young(p)}
        for part in self.new.parts:
            if part.parameter is None and part in self.fits and _stage(part) in young and _is_count(part.value):
                self.notes.append(
                    f"{_slot(part)} is one age for all parameters: if the rule corrects a bias by it, steps of what "
                    f"begins anew beside it are too long at first"
                )
        dropped = tuple(dict.fromkeys(self._dropped(key) for key in self.old.leaves if key not in self.taken))
        return MigrationReport(tuple(carried), tuple(grown), tuple(initialized), dropped, tuple(self.notes))

    # Details.

    def _slots(self) -> list[Part]:
        """The slots of parameters that have no value yet."""
        return [p for p in self.new.parts if p.parameter is not None and p not in self.fits]

    def _take(self, part: Part, stage: str, field: str, change: Callable | None = None, again: bool = False) -> bool:
        """Carries the old state's value in this field for the parameter; returns whether there is one and it fits."""
        owner = "" if part.parameter is None else self.were[part.parameter]
        if part in self.fits or owner is None:
            return False
        path = joined(stage, field, owner)
        old = self.old.below.get(path)
        if old is None:
            return False
        used = any(joined(path, rest) in self.taken for rest in old)
        if used and not again:
            return False
        new = {joined(*names(rest)): x for rest, x in jax.tree_util.tree_leaves_with_path(part.value)}
        if part.parameter is None and set(old) != set(new):
            return False
        if change is not None:
            old = {rest: change(jnp.asarray(x)) for rest, x in old.items()}
        fit = fitted(old, new, self._way(part), part.parameter is not None)
        if fit.values is None:
            self.refused.setdefault(part, fit)
            return False
        if used:  # a state that may be donated must not hold an array twice
            fit = Fit([jnp.copy(x) for x in fit.values])
        self.fits[part] = fit, _dots(joined(stage, field))
        self.taken |= {joined(path, rest) for rest in old}
        return True

    def _set(self, part: Part, value: jax.Array, source: str) -> None:
        self.fits[part] = Fit([value]), source

    def _way(self, part: Part) -> Any:
        if not isinstance(self.grow, Mapping):
            return self.grow
        return next((way for name, way in self.grow.items() if has_name(_slot(part), name)), None)

    def _same_quantity(self, new: Node, part: Part) -> tuple[Node, str] | None:
        """The old stage and field that hold the same average as this slot."""
        what, owner = quantity(new.kinds, _field(part)), self.were[part.parameter or ()]
        if what is None or owner is None:
            return None
        for stage in self.old.stages:
            for field in sorted(stage.has):
                path = joined(stage.path, field, owner)
                free = path in self.old.below and not self.taken & {joined(path, r) for r in self.old.below[path]}
                if free and quantity(stage.kinds, field) == what:
                    return stage, field
        return None

    def _is_ready(self, new: Node, part: Part, found: Mapping[Part, Any]) -> bool:
        return part in found or _is_count(part.value) and part.parameter is None or is_harmless(new.kind, _field(part))

    def _is_young(self, part: Part) -> bool:
        if part.parameter is None or is_harmless(part.kind, _field(part)):
            return False
        return part not in self.fits or self.fits[part][0].is_grown

    def _step(self) -> jax.Array | None:
        """The number of updates that the old state has counted: by schedules' counts if there are any, else by all."""
        found = []
        for stage in [*self.old.stages, *self.pairs.values()]:
            twins = [self.new.by_path[path].value for path, old in self.pairs.items() if old is stage]
            for owner in (stage.value, *twins):
                for name, start in getattr(type(owner), "counts_from", {}).items():
                    x = self.old.leaves.get(joined(stage.path, name))
                    found += [] if x is None else [jnp.asarray(x) - start]
        if not found:
            counts = [self.old.leaves.get(joined(stage.path, "count")) for stage in self.old.stages]
            found = [jnp.asarray(x) for x in counts if x is not None and _is_count(x)]
        return None if not found else jnp.max(jnp.stack([x.astype(jnp.int32) for x in found]))

    def _owner(self, part: Part) -> str | None:
        return None if part.parameter is None else self.called[part.parameter]

    def _dropped(self, key: str) -> MigrationRow:
        """The row for an array of the old state: its slot, and its parameter as far as that can be told."""
        part = self.old.homes[key]
        if part.parameter is not None:
            return MigrationRow(_slot(part), self.called[part.parameter])
        above = [s.path for s in self.old.stages if s.kind and (s.path == "" or key.startswith(f"{s.path}/"))]
        stage = max(above, key=len, default="")
        field, _, parameter = key[len(stage) :].strip("/").partition("/")
        return MigrationRow(_dots(joined(stage, field)), parameter or None)


def _before(path: tuple, name: str, moved: Any) -> str | None:
    """The path of the parameter in the old state; None if it is new."""
    key = joined(*names(path))
    was = name if moved is None else moved.get(name, name) if isinstance(moved, Mapping) else moved(name)
    return None if was is None else key.replace(name, was, 1) if name else key


def _is_count(x: Any) -> bool:
    return jnp.ndim(x) == 0 and jnp.issubdtype(jnp.result_type(x), jnp.integer)


def _stage(part: Part) -> str:
    return joined(*names(part.stage))


def _field(part: Part) -> str:
    return joined(*names(part.field))


def _slot(part: Part) -> str:
    return dotted((*part.stage, *part.field))


def _dots(path: str) -> str:
    return path.replace("/", ".")


def _named(stage: Node) -> str:
    return f"{_dots(stage.path)} ({stage.factory or stage.kind})"


def _listed(found: Iterable[str]) -> str:
    return ", ".join(sorted(set(found))[:8]) or "none"

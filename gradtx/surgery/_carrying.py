# SPDX-License-Identifier: Apache-2.0
"""The passes of `migrate`: which part of the old state each part of the new one is taken from."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._sentences import CHOICES, listed
from gradtx.surgery._access import has_name
from gradtx.surgery._ages import aged, count_of
from gradtx.surgery._alignment import Outline, StageState, aligned, same
from gradtx.surgery._fitting import Fit, by_path, check_grow, fitted
from gradtx.surgery._quantities import is_harmless, quantity
from gradtx.surgery._report import MigrationReport, MigrationRow
from gradtx.surgery._slots import Part, joined, names, parameter_names

Source = tuple[str, str, Callable | None]
"""Where a slot may be from: the path of an old stage, the field in it, and what is done with the values."""


class Carrying:
    """Decides which parts of an old state go where in a new one. Each pass handles what the passes before left over."""

    def __init__(self, old: Outline, new: Outline, params: Any, moved: Any, grow: Any):
        check_grow("migrate", grow)
        self.old, self.new, self.grow = old, new, grow
        self.called = parameter_names(params)
        self.shapes = {path: x.shape for path, x in jax.tree_util.tree_leaves_with_path(params)}
        self.were = {path: _before(path, name, moved) for path, name in self.called.items()}
        self.pairs = aligned(new.stages, old.stages)
        self.fits: dict[Part, tuple[Fit, str]] = {}  # with the path in the old state
        self.refused: dict[Part, Fit] = {}
        self.origins: dict[str, StageState] = {}  # the old stage that a new one got its slots from
        self.sources: dict[Part, str] = {}  # the path of the old stage that a slot was carried from
        self.own_age: set[tuple] = set()  # the stages and parameters that begin with an age of 0
        self.taken: set[str] = set()
        self.notes: list[str] = []

    # The passes.

    def slots(self, rename: Mapping[str, Any]) -> None:
        """Carries the slots that the user named."""
        named = self._named(rename)
        for sources in (lambda part: named.get(part, []), self._in_same_stage, self._in_same_class):
            for part in [p for p in self.new.parts if p not in self.fits]:
                for stage, field, change in sources(part):
                    if self._take(part, stage, field, change):
                        break

    def _named(self, rename: Mapping[str, Any]) -> dict[Part, list[Source]]:
        found: dict[Part, list[Source]] = {}
        for source, target in rename.items():
            target, change = target if isinstance(target, tuple) else (target, None)
            into = [p for p in self.new.parts if has_name(p.name, target)]
            before = [path for path in self.old.below if has_name(_dots(path), source)]
            if not into:
                raise ValueError(f"migrate: rename: new_tx has no slot {target!r}; it has {_slots_of(self.new)}")
            if not before:
                raise ValueError(f"migrate: rename: old_state has no slot {source!r}; it has {_slots_of(self.old)}")
            for part in into:
                ends = (path.rpartition("/") for path in before)
                found.setdefault(part, []).extend((stage, field, change) for stage, _, field in ends)
        return found

    def _in_same_stage(self, part: Part) -> list[Source]:
        stage = None if part.parameter is None else self.pairs.get(part.stage_path)
        return [] if stage is None else [(stage.path, part.field_path, None)]

    def _in_same_class(self, part: Part) -> list[Source]:
        """Slots in any old stage of the same class, as a parameter may have been in another group."""
        new = self.new.by_path[part.stage_path]
        if part.parameter is None or not new.kind:
            return []
        return [(stage.path, part.field_path, None) for stage in self.old.stages if same(new, stage)]

    def averages(self) -> None:
        """Carries averages into stages of another rule, if that rule can go on with them alone."""
        for new in self.new.stages:
            own = [p for p in self.new.parts if p.stage_path == new.path]
            if any(p in self.fits for p in own):
                continue
            found = {p: source for p in own if p.parameter is not None and (source := self._same_quantity(new, p))}
            known = {None, *(p.parameter for p in found)}  # new parameters lack everything, which is harmless
            lacking = [p for p in own if p.parameter in known and not self._is_ready(new, p, found)]
            if found and lacking:
                fields, missing = (sorted({p.field_path for p in parts}) for parts in (found, lacking))
                self.notes.append(
                    f"{_called(new)}: {', '.join(fields)} would fit, but the old state has nothing for "
                    f"{', '.join(missing)}, and the steps would be of a wrong size; rename carries it anyway"
                )
            elif found:
                for part, (stage, field) in found.items():
                    self._take(part, stage, field)

    def numbers(self, step: Any) -> None:
        """Carries what belongs to no parameter: counts, averages over the whole tree, keys, windows."""
        step = self._step() if step is None else jnp.asarray(step)
        slotted = {p.stage_path for p in self.new.parts if p.parameter is not None}
        carried = {p.stage_path for p in self.fits}
        for part in [p for p in self.new.parts if p.parameter is None]:
            new = self.new.by_path[part.stage_path]
            origin = self.origins.get(new.path) or self.pairs.get(new.path)
            if new.path in slotted and new.path not in carried:
                origin = None
            if origin is not None and same(new, origin) and self._take(part, origin.path, part.field_path, again=True):
                continue
            starts = getattr(type(new.value), "counts_from", {})
            if part.field_path in starts and step is not None:
                self._set(part, jnp.asarray(step, part.value.dtype) + starts[part.field_path], "the step")
            elif new.path in carried and _is_count(part.value):
                path = "" if origin is None else joined(origin.path, "count")
                age, source = (self.old.leaves[path], _dots(path)) if path in self.old.leaves else (step, "the step")
                if age is not None:
                    self._set(part, jnp.array(age, part.value.dtype), source)
                    self.taken |= {path} & set(self.old.leaves)
                else:
                    self.notes.append(f"{part.name} begins at 0, though slots beside it do not: give step")

    def ages(self, rules: Mapping[str, Any]) -> None:
        """Gives each parameter the age of its averages, where they have not the same."""
        for count, slots in aged(self.new.parts, rules):
            if count not in self.fits:
                continue
            fit, source = self.fits[count]
            carried = {
                p.parameter: self.sources[p] for p in self.new.parts if p.stage == count.stage and p in self.sources
            }
            ages = [self._age(slot, carried.get(slot.parameter), fit) for slot in slots]
            origins = {carried[s.parameter] for s in slots if s.parameter in carried}
            anew = [slot for slot in slots if slot.parameter not in carried]
            if anew or len(origins) > 1 or origins & set(self.old.ages):
                reason = f"0 for {listed([self._owner(slot) or '(root)' for slot in anew])}" if anew else ""
                self.fits[count] = Fit([count_of(ages, count.value.dtype)], reason), source
                self.own_age |= {(count.stage, slot.parameter) for slot in anew}

    def _age(self, slot: Part, origin: str | None, fit: Fit) -> Any:
        """The age of a parameter's averages, 0 if they begin anew, that of the stage if the old one had none."""
        if origin is None:
            return 0
        found = self.old.age(origin, self.were[slot.parameter or ()] or "")
        return (fit.values or [0])[0] if found is None else found

    # What comes out.

    def values(self) -> list[tuple[Part, list]]:
        """The arrays for the parts of the new state; an error if slots have grown and nobody said what to do."""
        smaller = {p: fit for p, fit in self.refused.items() if fit.is_smaller and p not in self.fits}
        if smaller:
            lines = [f"{p.name} of {self._owner(p)}: {fit.reason}" for p, fit in smaller.items()]
            raise ValueError(
                f"migrate: slots have grown: {listed(lines, joint='; ')}. Say with grow what the new entries get: "
                f'"init", "mean", a function, or "reset" for new slots'
            )
        return [(part, fit.values) for part, (fit, _) in self.fits.items() if fit.values is not None]

    def report(self) -> MigrationReport:
        carried, grown, initialized = [], [], []
        for part in self.new.parts:
            slot, owner = part.name, self._owner(part)
            if part not in self.fits:
                refused = self.refused.get(part)
                initialized.append(MigrationRow(slot, owner, "", refused.reason if refused else ""))
                continue
            fit, source = self.fits[part]
            (grown if fit.is_grown else carried).append(MigrationRow(slot, owner, source, fit.reason))
        young = {
            p.stage_path for p in self.new.parts if self._is_young(p) and (p.stage, p.parameter) not in self.own_age
        }
        for part in self.new.parts:
            if part.parameter is None and part in self.fits and part.stage_path in young and _is_count(part.value):
                has_grown = any(
                    p.stage == part.stage and p in self.fits and self.fits[p][0].is_grown for p in self.new.parts
                )
                self.notes.append(
                    f"{part.name} is one age for all parameters: if the rule corrects a bias by it, steps of what "
                    f"begins anew beside it are too long at first"
                    + (
                        '; for Adam, grow={"mu": "init", "nu": "mean"} makes them of the usual size'
                        if has_grown
                        else ""
                    )
                )
        dropped = tuple(dict.fromkeys(self._dropped(key) for key in self.old.leaves if key not in self.taken))
        return MigrationReport(tuple(carried), tuple(grown), tuple(initialized), dropped, tuple(self.notes))

    # Details.

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
        new = by_path(part.value)
        if part.parameter is None and set(old) != set(new):
            return False
        if change is not None:
            old = {rest: change(jnp.asarray(x)) for rest, x in old.items()}
        fit = fitted(
            old, part.value, self._way(part), None if part.parameter is None else self.shapes.get(part.parameter)
        )
        if fit.values is None:
            self.refused.setdefault(part, fit)
            return False
        if used:  # a state that may be donated must not hold an array twice
            fit = Fit([jnp.copy(x) for x in fit.values])
        self.fits[part], self.sources[part] = (fit, _dots(joined(stage, field))), stage
        if stage in self.old.by_path:
            self.origins.setdefault(part.stage_path, self.old.by_path[stage])
        self.taken |= {joined(path, rest) for rest in old}
        return True

    def _set(self, part: Part, value: jax.Array, source: str) -> None:
        self.fits[part] = Fit([value]), source

    def _way(self, part: Part) -> Any:
        if not isinstance(self.grow, Mapping):
            return self.grow
        return next((way for name, way in self.grow.items() if has_name(part.name, name)), None)

    def _same_quantity(self, new: StageState, part: Part) -> tuple[str, str] | None:
        """The old stage and field that hold the same average as this slot."""
        what, owner = quantity(new.kinds, part.field_path), self.were[part.parameter or ()]
        if what is None or owner is None:
            return None
        for stage in self.old.stages:
            for field in sorted(stage.has):
                path = joined(stage.path, field, owner)
                free = path in self.old.below and not self.taken & {joined(path, r) for r in self.old.below[path]}
                if free and quantity(stage.kinds, field) == what:
                    return stage.path, field
        return None

    def _is_ready(self, new: StageState, part: Part, found: Mapping[Part, Any]) -> bool:
        is_age = part.parameter is None and _is_count(part.value)
        return part in found or is_age or is_harmless(new.kind, part.field_path)

    def _is_young(self, part: Part) -> bool:
        if part.parameter is None or is_harmless(part.kind, part.field_path):
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
            return MigrationRow(part.name, self.called[part.parameter])
        above = [s.path for s in self.old.stages if s.kind and (s.path == "" or key.startswith(f"{s.path}/"))]
        stage = max(above, key=len, default="")
        field, _, parameter = key[len(stage) :].strip("/").partition("/")
        return MigrationRow(_dots(joined(stage, field)), parameter or None)


def _before(path: tuple, name: str, moved: Any) -> str | None:
    """The path of the parameter in the old state; None if it is new."""
    key = joined(*names(path))
    was = name if moved is None else moved.get(name, name) if isinstance(moved, Mapping) else moved(name)
    return None if was is None else key.replace(name, was, 1) if name else key


def _slots_of(outline: Outline) -> str:
    return listed(sorted({part.name for part in outline.parts}), CHOICES)


def _is_count(x: Any) -> bool:
    return jnp.ndim(x) == 0 and jnp.issubdtype(jnp.result_type(x), jnp.integer)


def _dots(path: str) -> str:
    return path.replace("/", ".")


def _called(stage: StageState) -> str:
    return f"{_dots(stage.path)} ({stage.factory or stage.kind})"
